"""The RACTD student: consistency trajectory distillation with a reward.

RACTD sections 2.3, 3.3 and 5.3; Kim et al. 2023 (CTM). "0" in the equations is sigma_min.

    g(x, t, s) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), c_noise(s), cond)
    G(x, t, s) = s/t x + (1 - s/t) g(x, t, s)                                     `jump`

    t > u > s are levels of the grid, x_t = x_0 + t eps, x_u = Solver(x_t, t, u; teacher)
    L_CTM = d( G_sg(G(x_t, t, s), s, 0), G_sg(G_sg(x_u, u, s), s, 0) )  (Eqs. 5, 6)  `ctm_loss`
    L_DSM = w(t) d( G(x_t, t, 0), x_0 )                                 (Eq. 7)   `dsm_loss`
    L_R   = -R(s_n, first action of G(x_T, T, 0))                       (Eq. 8)   `reward.maximise`
    L     = alpha L_CTM + beta L_DSM + sigma L_R                        (Eq. 9)   `make_student`

Acting is one call, x_0 = G(x_T, T, 0); more calls add noise again and jump back: `sample`.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PRNGKeyArray

from ractd_jax import diffusion, edm, errors, reward, train_state
from ractd_jax.edm import Denoiser, Levels, Trajectory
from ractd_jax.types import Algorithm, Batch, Params

Jump = Callable[[Trajectory, Levels, Levels], Trajectory]  # G: (x, t, s) -> x_s


@dataclasses.dataclass(frozen=True)
class Student:
    """How a student is distilled. With `reward_weight` 0 it is the paper's CTD.

    Attributes:
        ctm_weight: alpha of Eq. 9.
        dsm_weight: beta of Eq. 9.
        reward_weight: sigma of Eq. 9.
        distance: distance between clean trajectories, see `diffusion.distance`.
        dsm_goal: what DSM regresses on, "data", the clean example, as published, or "teacher", the
            frozen teacher's denoised one.
        reward_on: prediction that the return model judges: "start", G(x_T, T, 0), which is what
            acts and what Eq. 8 says; or "dsm", G(x_t, t, 0) of the DSM loss, as released.
        reward_clip: clip the judged action to [-1, 1], the range of the data, before judging it.
        reward_scale: "gradient" divides L_R by the mean length of dR/da over the batch, so that
            the weight means the same for every return model and task; "none" as published.
        advantage: sharpness k of the weights exp(k A / std A) of the DSM examples, A being how much
            better the example went than the judge expects of the prediction it judges.
            The reward then selects among the data's modes, where its gradient alone leaves the mean
            of them by a little. 0, all alike, as published.
        solver: "heun" or "euler", for the teacher's step from t to u.
        solver_steps: steps between t and u.
        max_jump: bins between t and u at most; 1 as released.
        target: "online", the live weights under a stop-gradient (Eq. 6), or "ema".
        target_dropout: dropout in target and frozen teacher, an accident of the released code.
        warm_start: start from the teacher's weights.
        nfe: network calls per action.
    """

    ctm_weight: float = 1.0
    dsm_weight: float = 1.0
    reward_weight: float = 0.0
    distance: str = "huber"
    dsm_goal: str = "data"
    reward_on: str = "start"
    reward_clip: bool = True
    reward_scale: str = "gradient"
    advantage: float = 0.0
    solver: str = "heun"
    solver_steps: int = 1
    max_jump: int = 1
    target: str = "online"
    target_dropout: bool = False
    warm_start: bool = True
    nfe: int = 1

    def __post_init__(self):
        for field, legal in (
            ("distance", diffusion.DISTANCES),
            ("dsm_goal", ("data", "teacher")),
            ("reward_on", ("start", "dsm")),
            ("reward_scale", reward.SCALES),
            ("solver", edm.SOLVERS),
            ("target", ("online", "ema")),
        ):
            errors.choose(f"student.method.{field}", getattr(self, field), legal)
        if self.nfe < 1 or self.solver_steps < 1 or self.max_jump < 1:
            raise errors.UserError("student.method: nfe, solver_steps and max_jump start at 1")


def jump(net, params: Params, noise: diffusion.Noise, x, t, s, cond, **kwargs) -> Trajectory:
    """Return G(x, t, s): where the student says the ODE leads from x at level t to level s.

    Args:
        net: a network of `networks`.
        params: its weights.
        noise: scalings.
        x: noisy trajectories (batch, horizon, dim).
        t: noise level of each (batch,).
        s: level to jump to (batch,), at most t; s = t returns x.
        cond: conditions (batch, cond).
        **kwargs: `train` and `rngs` for the network's dropout.
    """
    c_skip, c_out, c_in = map(diffusion.expand, diffusion.scalings(noise, t))
    times = jnp.stack([diffusion.c_noise(t), diffusion.c_noise(s)], axis=-1)
    g = c_skip * x + c_out * net.apply({"params": params}, c_in * x, times, cond, **kwargs)
    ratio = diffusion.expand(s / t)
    return ratio * x + (1 - ratio) * g


def triples(
    noise: diffusion.Noise, key: PRNGKeyArray, batch: int, max_jump: int
) -> tuple[Int[Array, " {batch}"], Int[Array, " {batch}"], Int[Array, " {batch}"]]:
    """Draw the bins of t, u and s of Eq. 6 (a larger bin is a lower noise level).

    t is uniform on the grid, s uniform from t to one past the grid's end (sigma_min again), u
    uniform from t to s and then at most `max_jump` bins from t: the released procedure, which draws
    them one by one on the host.
    """
    key_t, key_s, key_u = jax.random.split(key, 3)
    t = jax.random.randint(key_t, (batch,), 0, noise.bins)
    s = jax.random.randint(key_s, (batch,), t, noise.bins + 1)
    u = jax.random.randint(key_u, (batch,), t, s + 1)
    return t, jnp.minimum(u, t + max_jump), s


# ---- losses ------------------------------------------------------------------------------------


def ctm_loss(
    model: Jump,
    target: Jump,
    teacher: Denoiser,
    noise: diffusion.Noise,
    student: Student,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Levels:
    """Return L_CTM of each example (RACTD Eqs. 5 and 6).

    The gradient reaches `model` only; `target` must hold stopped weights. It does flow *through*
    `target` on the model's side, or the loss would teach nothing.
    """
    key_bins, key_eps = jax.random.split(key)
    t_bin, u_bin, s_bin = triples(noise, key_bins, x_0.shape[0], student.max_jump)
    fractions = jnp.linspace(0, 1, student.solver_steps + 1)[:, None]
    levels = diffusion.sigmas(noise, t_bin[None] + fractions * (u_bin - t_bin)[None])
    t, u, s = levels[0], levels[-1], diffusion.sigmas(noise, s_bin)
    zero = jnp.full_like(t, noise.sigma_min)

    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x_u = edm.solve(teacher, x_t, levels, student.solver)
    p = model(x_t, t, s)
    q = target(x_u, u, s)
    # Compared in clean space, where the distance means something.
    return diffusion.distance(
        student.distance, target(p, s, zero), jax.lax.stop_gradient(target(q, s, zero))
    )


def dsm_loss(
    model: Jump,
    teacher: Denoiser | None,
    noise: diffusion.Noise,
    kind: str,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> tuple[Levels, Trajectory]:
    """Return L_DSM of each example and the predictions G(x_t, t, 0) (RACTD Eq. 7).

    With a teacher its denoised D(x_t, t) takes the place of x_0. Ideally that is the mean of x_0
    given x_t, so the squared distance has the same minimum, and the chance of the single example,
    in which the reward's small and steady gradient would drown, is gone.
    """
    key_t, key_eps = jax.random.split(key)
    t = diffusion.mixed(noise, key_t, x_0.shape[0])
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    prediction = model(x_t, t, jnp.full_like(t, noise.sigma_min))
    goal = x_0 if teacher is None else jax.lax.stop_gradient(teacher(x_t, t))
    losses = diffusion.karras_weight(noise, t) * diffusion.distance(kind, prediction, goal)
    return losses, prediction


def advantage_weights(returns: Levels, values: Levels, sharpness: float) -> Levels:
    """Return exp(k A / std A) of each example, at most 20, and of mean 1 over the batch.

    A = return - value. Under these weights the regression of DSM solves "maximise the return, stay
    close to the data" in closed form (Peng et al. 2019, advantage-weighted regression).
    """
    advantage = returns - values
    advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    weights = jnp.minimum(jnp.exp(sharpness * advantage), 20.0)
    return jax.lax.stop_gradient(weights / jnp.mean(weights))


# ---- sampling ----------------------------------------------------------------------------------


def chain(noise: diffusion.Noise, nfe: int) -> list[int]:
    """Return the bins at which an action of `nfe` calls is noised again, from high to low level.

    Raises:
        UserError: so many calls would noise it again to the lowest level, where none changes it.
    """
    if nfe > max(noise.bins // 2, 1):
        raise errors.UserError(
            f"student.method.nfe is {nfe}: with noise.bins={noise.bins} at most {noise.bins // 2}, "
            "each from a level of its own above the lowest"
        )
    return [-(-noise.bins * i // nfe) for i in range(1, nfe)]


def sample(
    model: Jump,
    noise: diffusion.Noise,
    nfe: int,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
) -> Trajectory:
    """Draw one trajectory a key with `nfe` network calls (RACTD section 5.3)."""

    def to_zero(x, t):
        x_0 = model(x, t, jnp.full_like(t, noise.sigma_min))
        return jnp.clip(x_0, -1, 1) if noise.clip else x_0

    keys = jax.vmap(lambda key: jax.random.split(key, nfe))(keys)
    x = diffusion.initial(noise, keys[:, 0], shape)
    x = to_zero(x, jnp.full(x.shape[0], noise.sigma_max))
    for call, level_bin in enumerate(chain(noise, nfe), start=1):
        t = jnp.full(x.shape[0], diffusion.sigmas(noise, jnp.asarray(level_bin)))
        eps = jax.vmap(lambda key: jax.random.normal(key, shape))(keys[:, call])
        x = to_zero(x + diffusion.expand(t) * eps, t)
    return x


# ---- the algorithm -----------------------------------------------------------------------------


def warm_start(student_params: Params, teacher_params: Params, embed_dim: int) -> Params:
    """Copy the teacher's weights into a student; the second time gets zero weights.

    Every layer that reads the condition ("film", "around") has rows for [embedding of t,
    observation]; the student's has rows for [embedding of t, embedding of s, observation].
    """

    def copy(path, mine, teachers):
        if mine.shape == teachers.shape:
            return jnp.copy(teachers)  # not the frozen teacher's own buffer, which lives on
        conditioned = re.search("film|around", jax.tree_util.keystr(path))
        wider = (teachers.shape[0] + embed_dim, *teachers.shape[1:])
        if not conditioned or mine.ndim != 2 or mine.shape != wider:
            raise different
        zeros = jnp.zeros((embed_dim, mine.shape[1]), mine.dtype)
        return jnp.concatenate([teachers[:embed_dim], zeros, teachers[embed_dim:]])

    different = errors.UserError(
        "student.method.warm_start copies the teacher's weights, so both need networks of the same "
        "kind (unet or mlp) and size: make student.network like teacher.network, or set "
        "warm_start=False"
    )
    if jax.tree.structure(student_params) != jax.tree.structure(teacher_params):
        raise different
    return jax.tree.map_with_path(copy, student_params, teacher_params)


def make_student(
    net,
    teacher_net,
    judge: Callable[..., Levels] | None,
    noise: diffusion.Noise,
    student: Student,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
    own_units: bool = False,
) -> Algorithm:
    """Make the student; its `init(key, frozen)` takes {"teacher": params, "reward": params}.

    Args:
        net: the student's network.
        teacher_net: the teacher's network.
        judge: `(reward_params, x, cond, key) -> (batch,)`, see `reward.value`; None for a student
            without reward.
        noise: noise levels and scalings, the teacher's.
        student: losses and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        own_units: the judge does not predict the data's returns, so that an example's advantage is
            by its own estimate of it, R(s, a) - R(s, student's a), not by the return.
    """
    chain(noise, student.nfe)  # says so now if there are too many calls

    def init(key, frozen):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        params = net.init(key, x, jnp.zeros((1, 2)), cond)["params"]
        if student.warm_start:
            params = warm_start(params, frozen["teacher"], net.embed_dim)
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch, key):
        key_ctm, key_dsm, key_start, key_judge, *keys_dropout = jax.random.split(key, 9)
        frozen = state.frozen

        # Each has its own dropout masks, as in PyTorch; the steps of a solver share theirs.
        calls = itertools.count()

        def jump_with(params, key, train):
            def model(x, t, s):
                rngs = {"dropout": jax.random.fold_in(key, next(calls))}
                return jump(net, params, noise, x, t, s, batch.cond, train=train, rngs=rngs)

            return model

        def teacher(x, t):
            rngs = {"dropout": jax.random.fold_in(keys_dropout[0], next(calls))}
            kwargs = {"train": student.target_dropout, "rngs": rngs}
            return edm.denoise(teacher_net, frozen["teacher"], noise, x, t, batch.cond, **kwargs)

        def judge_here(x):
            return judge(frozen["reward"], x, batch.cond, key_judge)

        def loss_fn(params):
            # The target is a copy that the gradient must not reach (sg(theta) in Eq. 6).
            weights = jax.lax.stop_gradient(state.ema if student.target == "ema" else params)
            target = jump_with(weights, keys_dropout[1], student.target_dropout)
            model = jump_with(params, keys_dropout[2], train=True)
            ctm = 0.0
            if student.ctm_weight:
                ctm = jnp.mean(ctm_loss(model, target, teacher, noise, student, batch.x, key_ctm))
            model = jump_with(params, keys_dropout[3], train=True)
            guide = teacher if student.dsm_goal == "teacher" else None
            dsm, x = dsm_loss(model, guide, noise, student.distance, batch.x, key_dsm)
            metrics, worth = {"ctm": ctm}, 0.0
            if student.reward_weight or student.advantage:
                if student.reward_on == "start":
                    model = jump_with(params, keys_dropout[4], train=True)
                    start = jax.random.split(key_start, batch.x.shape[0])
                    x = sample(model, dataclasses.replace(noise, clip=False), 1, start, shape)
                clip, scale = student.reward_clip, student.reward_scale
                worth, returns = reward.maximise(judge_here, x, clip=clip, scale=scale)
                metrics["return"] = jnp.mean(returns)
            if student.advantage:
                went = judge_here(batch.x) if own_units else batch.returns
                dsm = dsm * advantage_weights(went, returns, student.advantage)
            metrics["dsm"] = jnp.mean(dsm)
            total = student.ctm_weight * ctm + student.dsm_weight * jnp.mean(dsm)
            total = total + student.reward_weight * worth
            return total, {"loss": total} | metrics

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        def model(x, t, s):
            return jump(net, params, noise, x, t, s, cond)

        return sample(model, noise, student.nfe, keys, shape)

    return Algorithm(init, update, act)
