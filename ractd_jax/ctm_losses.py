"""What a student is trained on: the losses of RACTD, Eqs. 5 to 9.

RACTD sections 2.3 and 3.3; Kim et al. 2023 (CTM). "0" in the equations is sigma_min. t > u > s are
levels of the grid, x_t = x_0 + t eps, x_u = Solver(x_t, t, u; teacher); G is `ctm.jump`.

    L_CTM = d( G_sg(G(x_t, t, s), s, 0), G_sg(G_sg(x_u, u, s), s, 0) )  (Eqs. 5, 6) `ctm_loss`
    L_DSM = w(t) d( G(x_t, t, 0), x_0 )                                 (Eq. 7)     `dsm_loss`
            or, as CTM has it, w(t) d( g(x_t, t, t), x_0 )
    G(x_T, T, 0)                                                        (Eq. 8)     `from_noise`
    L_R = -R(s_n, first action of G(x_T, T, 0))                (Eq. 8)     `reward.reward_loss`
    L = alpha L_CTM + beta L_DSM + sigma L_R                            (Eq. 9)     `student_loss`

`loss_terms` puts them together. They take functions D, G and R, never a network.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PRNGKeyArray

from ractd_jax import diffusion, edm, errors, networks, reward
from ractd_jax.diffusion import long_triples, triples
from ractd_jax.types import (
    Batch,
    Critic,
    Denoiser,
    Jump,
    Params,
    Scalar,
    Trajectory,
    Values,
)


@dataclasses.dataclass(frozen=True)
class Student:
    """How a student is distilled. With `reward_weight` 0 it is the paper's CTD.

    Attributes:
        ctm_weight: alpha of Eq. 9.
        dsm_weight: beta of Eq. 9.
        reward_weight: sigma of Eq. 9.
        distance: distance between clean trajectories, see `diffusion.distance`.
        dsm_stop: where the prediction of DSM stops: "zero", G(x_t, t, 0), as published; or "level",
            g(x_t, t, t), as CTM has it. The former's minimum at high levels is the mean of the
            data, and one call then gives that mean; the latter's minimum is CTM's own.
        dsm_goal: what DSM regresses on, "data", the clean example, as published, or "teacher", the
            frozen teacher's denoised one.
        reward_on: prediction that the critic values: "start", G(x_T, T, 0), which is what acts and
            what Eq. 8 says; or "dsm", G(x_t, t, 0) of the DSM loss, as released.
        reward_clip: clip the action to [-1, 1], the range of the data, before it is valued.
        reward_scale: "gradient" divides L_R by the mean length of dR/da over the batch, so that
            the weight means the same for every critic and task; "none" as published.
        advantage: sharpness k of the weights exp(k A / std A) of the DSM examples, A being how much
            better the example went than the critic expects of the prediction that it values.
            The reward then selects among the data's modes, where its gradient alone leaves the mean
            of them by a little. 0, all alike, as published.
        balance: "gradient" multiplies L_DSM by |dL_CTM| / |dL_DSM|, as CTM has it (`dsm_scale`);
            "none" as published.
        draw: how t, u and s are drawn: "released" (`triples`) or "ctm" (`long_triples`).
        guide: whose ODE the solver follows, the frozen "teacher"'s, as published, or that of the
            "student" itself, g(x, t, t), which starts as the teacher's (`warm_start`): where the
            student learns from other examples than its teacher did, the teacher leads elsewhere.
            It takes `dsm_stop` "level", which is what teaches g.
        solver: "heun" or "euler", for the step from t to u.
        solver_steps: steps between t and u; CTM takes one for every bin between them.
        max_jump: bins between t and u at most; 1 as released.
        target: "online", the live weights under a stop-gradient (Eq. 6), or "ema".
        target_dropout: dropout in target and frozen teacher, an accident of the released code.
        warm_start: start from the teacher's weights.
        nfe: network calls per action.

    Raises:
        FieldError: an option is unknown, or a number is out of range.
    """

    ctm_weight: float = 1.0
    dsm_weight: float = 1.0
    reward_weight: float = 1.0
    distance: str = "huber"
    dsm_stop: str = "zero"
    dsm_goal: str = "data"
    reward_on: str = "start"
    reward_clip: bool = False
    reward_scale: str = "none"
    advantage: float = 0.0
    balance: str = "none"
    draw: str = "released"
    guide: str = "teacher"
    solver: str = "heun"
    solver_steps: int = 1
    max_jump: int = 1
    target: str = "online"
    target_dropout: bool = False
    warm_start: bool = True
    nfe: int = 1

    def __post_init__(self):
        for field, options in (
            ("distance", diffusion.DISTANCES),
            ("dsm_stop", ("zero", "level")),
            ("dsm_goal", ("data", "teacher")),
            ("reward_on", ("start", "dsm")),
            ("reward_scale", reward.SCALES),
            ("balance", ("none", "gradient")),
            ("draw", ("released", "ctm")),
            ("guide", ("teacher", "student")),
            ("solver", edm.SOLVERS),
            ("target", ("online", "ema")),
        ):
            errors.choose_field(field, getattr(self, field), options)
        if self.guide == "student" and self.dsm_stop != "level":
            raise errors.FieldError(
                "guide", "{field} is 'student': it takes dsm_stop=level, which teaches its ODE"
            )
        for field in ("ctm_weight", "dsm_weight", "reward_weight", "advantage"):
            errors.at_least(field, getattr(self, field), 0)
        for field in ("solver_steps", "max_jump", "nfe"):
            errors.at_least(field, getattr(self, field), 1)

    @property
    def uses_critic(self) -> bool:
        """Whether a critic takes part in the training."""
        return bool(self.reward_weight or self.advantage)


# ---- G(x_T, T, 0) --------------------------------------------------------------------------------


def call_keys(keys: Key[Array, " batch"], nfe: int) -> Key[Array, "batch {nfe}"]:
    """Return the keys of the noise that each of `nfe` calls begins with."""
    return jax.vmap(lambda key: jax.random.split(key, nfe))(keys)


def from_noise(
    model: Jump, noise: diffusion.Noise, keys: Key[Array, " batch"], shape: tuple[int, int]
) -> Trajectory:
    """Return G(x_T, T, 0), the prediction of one call, for an x_T of each key.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> from_noise(lambda x, t, s: x, diffusion.Noise(), keys, (16, 3)).shape
        (5, 16, 3)
    """
    x = diffusion.initial(noise, keys, shape)
    t = jnp.full(x.shape[0], noise.sigma_max)
    return model(x, t, jnp.full_like(t, noise.sigma_min))


# ---- each loss -----------------------------------------------------------------------------------


def ctm_loss(
    model: Jump,
    target: Jump,
    teacher: Denoiser,
    noise: diffusion.Noise,
    student: Student,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Values:
    """Return L_CTM of each example (RACTD Eqs. 5 and 6).

    The gradient reaches `model` only; `target` must hold stopped weights. It does flow *through*
    `target` on the model's side, or the loss would teach nothing.

    Args:
        model: G.
        target: G_sg.
        teacher: D, whose ODE the solver follows from t to u.
        noise: the grid of levels.
        student: distance, solver and reach of its steps.
        x_0: clean trajectories.
        key: of levels and noise.
    """
    key_bins, key_eps = jax.random.split(key)
    draw = triples if student.draw == "released" else long_triples
    t_bin, u_bin, s_bin = draw(noise, key_bins, x_0.shape[0], student.max_jump)
    fractions = jnp.linspace(0, 1, student.solver_steps + 1)[:, None]
    levels = diffusion.sigmas(noise, t_bin[None] + fractions * (u_bin - t_bin)[None])
    t, u, s = levels[0], levels[-1], diffusion.sigmas(noise, s_bin)
    zero = jnp.full_like(t, noise.sigma_min)

    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x_u = edm.solve(teacher, x_t, levels, student.solver, diffusion.zero(noise))
    p = model(x_t, t, s)
    q = target(x_u, u, s)
    # Compared in clean space, where the distance means something.
    p_0 = diffusion.named(target, "p")(p, s, zero)
    q_0 = diffusion.named(target, "q")(q, s, zero)
    return diffusion.distance(student.distance, p_0, jax.lax.stop_gradient(q_0))


def dsm_loss(
    model: Jump,
    teacher: Denoiser | None,
    noise: diffusion.Noise,
    kind: str,
    x_0: Trajectory,
    key: PRNGKeyArray,
    *,
    stop: str = "zero",
) -> tuple[Values, Trajectory]:
    """Return L_DSM of each example and the predictions (RACTD Eq. 7).

    They are G(x_t, t, 0), or g(x_t, t, t) where `stop` is "level".

    With a teacher its denoised D(x_t, t) takes the place of x_0. Ideally that is the mean of x_0
    given x_t, so the squared distance has the same minimum, and the chance of the single example,
    in which the reward's small and steady gradient would drown, is gone.

    Args:
        model: G; g where `stop` is "level".
        teacher: D; None for the data, as published.
        noise: levels and weight of the loss.
        kind: of the distance, see `diffusion.distance`.
        x_0: clean trajectories.
        key: of levels and noise.
        stop: "zero" or "level", see `Student`.
    """
    key_t, key_eps = jax.random.split(key)
    t = diffusion.mixed(noise, key_t, x_0.shape[0])
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    prediction = model(x_t, t, t if stop == "level" else jnp.full_like(t, noise.sigma_min))
    goal = x_0 if teacher is None else jax.lax.stop_gradient(teacher(x_t, t))
    losses = diffusion.karras_weight(noise, t) * diffusion.distance(kind, prediction, goal)
    return losses, prediction


def advantage_weights(returns: Values, values: Values, sharpness: float) -> Values:
    """Return exp(k A / std A) of each example, at most 20, and of mean 1 over the batch.

    A = return - value. Under these weights the regression of DSM solves "maximise the return, stay
    close to the data" in closed form (Peng et al. 2019, advantage-weighted regression).

    Args:
        returns: how well each example went.
        values: how well it was expected to go.
        sharpness: k.

    Example:
        >>> advantage_weights(jnp.array([0.0, 2.0]), jnp.ones(2), sharpness=0.0).tolist()
        [1.0, 1.0]
    """
    advantage = returns - values
    advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    weights = jnp.minimum(jnp.exp(sharpness * advantage), 20.0)
    return jax.lax.stop_gradient(weights / jnp.mean(weights))


class Terms(NamedTuple):
    """The three losses of Eq. 9, each a mean over the batch; 0 for one that is left out."""

    ctm: Scalar
    dsm: Scalar
    reward: Scalar


def student_loss(student: Student, terms: Terms) -> Scalar:
    """Return L = alpha L_CTM + beta L_DSM + sigma L_R (RACTD Eq. 9).

    Example:
        >>> student = Student(ctm_weight=1.0, dsm_weight=2.0, reward_weight=0.5)
        >>> float(student_loss(student, Terms(jnp.array(1.0), jnp.array(3.0), jnp.array(-4.0))))
        5.0
    """
    total = student.ctm_weight * terms.ctm + student.dsm_weight * terms.dsm
    return total + student.reward_weight * terms.reward


def dsm_scale(terms: Callable[[Params], Terms], params: Params) -> Scalar:
    """Return |dL_CTM| / |dL_DSM| by the weights of the last layer, at most 10,000 (CTM).

    Args:
        terms: weights -> losses.
        params: the live weights.
    """
    last = {name: params[name] for name in networks.LAST_LAYERS if name in params} or params

    def length(term: str) -> Scalar:
        gradient = jax.grad(lambda layer: getattr(terms({**params, **layer}), term))(last)
        return optax.tree.norm(gradient)

    scale = length("ctm") / (length("dsm") + 1e-4)
    return jax.lax.stop_gradient(jnp.minimum(scale, 1e4))


# ---- all of them ---------------------------------------------------------------------------------


class Keys(NamedTuple):
    """The keys of one update, by what is drawn: noise, the critic's members, and dropout."""

    ctm: PRNGKeyArray
    dsm: PRNGKeyArray
    start: PRNGKeyArray
    critic: PRNGKeyArray
    dropout_teacher: PRNGKeyArray
    dropout_target: PRNGKeyArray
    dropout_ctm: PRNGKeyArray
    dropout_dsm: PRNGKeyArray
    dropout_start: PRNGKeyArray


class Models(NamedTuple):
    """The models of one update, their weights, conditions and keys given.

    Attributes:
        ctm: G of the live weights, in L_CTM.
        dsm: the same in L_DSM, with dropout of its own; g where DSM stops at the level.
        start: the same in L_R.
        target: G_sg of Eq. 6.
        teacher: D.
        critic: R; None for a student without reward.
    """

    ctm: Jump
    dsm: Jump
    start: Jump
    target: Jump
    teacher: Denoiser
    critic: Critic | None


def loss_terms(
    models: Models,
    noise: diffusion.Noise,
    student: Student,
    batch: Batch,
    keys: Keys,
    critic_units: bool,
) -> tuple[Terms, Values | None]:
    """Return the losses of a batch, and the values of what the critic was shown.

    Args:
        models: G, D and R.
        noise: noise levels.
        student: which losses there are, and how.
        batch: clean trajectories, their conditions and returns.
        keys: of noise.
        critic_units: an example went as well as the critic says, not as its return does.
    """
    ctm = jnp.zeros(())
    if student.ctm_weight:
        ctm = jnp.mean(
            ctm_loss(models.ctm, models.target, models.teacher, noise, student, batch.x, keys.ctm)
        )
    teacher = diffusion.named(models.teacher, "dsm") if student.dsm_goal == "teacher" else None
    stop, distance = student.dsm_stop, student.distance
    dsm, x = dsm_loss(models.dsm, teacher, noise, distance, batch.x, keys.dsm, stop=stop)
    if models.critic is None:
        return Terms(ctm, jnp.mean(dsm), jnp.zeros(())), None

    if student.reward_on == "start":
        rows, horizon, dim = batch.x.shape
        keys_start = call_keys(jax.random.split(keys.start, rows), nfe=1)[:, 0]
        x = from_noise(models.start, noise, keys_start, (horizon, dim))
    clip, scale = student.reward_clip, student.reward_scale
    reward_loss, values = reward.reward_loss(models.critic, x, clip=clip, scale=scale)
    if student.advantage:
        achieved = models.critic(batch.x) if critic_units else batch.returns
        dsm = dsm * advantage_weights(achieved, values, student.advantage)
    return Terms(ctm, jnp.mean(dsm), reward_loss), values
