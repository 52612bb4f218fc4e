"""Consistency models: one network call from noise to data, with or without a teacher.

Song et al. 2023 (CM); Song and Dhariwal 2024 (iCT); the details of both are those of CleanDiffuser,
whose Consistency-IDQL acts with such a model and lets IQL choose among its samples.

    f(x, t) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), cond)             `edm.denoise`

With the "boundary" scalings f(x, sigma_min) = x, and f is to be the same all along a path of the
probability-flow ODE. The levels t_0 < ... < t_N are EDM's, N intervals in all (`level`). In each
u = t_i and t = t_{i+1}, and x_t = x_0 + t eps:

    L_CD = E[ |f(x_t, t) - f_ema(x_u, u)|^2 / (t - u) ],   x_u = Euler(x_t, t, u; teacher)
    L_CT = E[ huber(f(x_t, t), f_sg(x_u, u)) / (t - u) ],  x_u = x_0 + u eps

`cd_loss` draws i uniformly (CM, Algorithm 2). `ct_loss` draws it where a log-normal density is
(iCT, Eq. 10) while N grows with the updates (iCT, Eq. 9): `intervals`, `draw_interval`.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PRNGKeyArray

from ractd_jax import diffusion, edm, errors, train_state
from ractd_jax.edm import Denoiser, Levels, Trajectory
from ractd_jax.types import Algorithm, Batch, Params, Transition

Map = Callable[[Trajectory, Levels], Trajectory]  # f: (x, t) -> x_0


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How a consistency model is distilled.

    Attributes:
        intervals: N.
        weight: of each example: "interval", 1 / (t - u), as in CleanDiffuser, or "one", as in CM.
            The former weighs the lowest level some thousand times more than the highest, which is
            where the single call of `nfe` 1 is made.
        clip: clip f to [-1, 1] while training too, as released; samples outside then teach
            nothing.
        warm_start: start from the teacher's weights.
        nfe: network calls per action.
    """

    intervals: int = 18
    weight: str = "interval"
    clip: bool = False
    warm_start: bool = True
    nfe: int = 1

    def __post_init__(self):
        errors.choose("cd.method.weight", self.weight, ("interval", "one"))
        if self.intervals < 1 or self.nfe < 1:
            raise errors.UserError("cd.method: intervals and nfe start at 1")


@dataclasses.dataclass(frozen=True)
class Training:
    """How a consistency model is trained without a teacher.

    Attributes:
        s0: N of the first updates.
        s1: N of the last updates.
        rounding: of the number of doublings, and of the updates between them: "floor", as
            published, or "ceil", as released.
        p_mean: mean of ln t.
        p_std: standard deviation of ln t.
        huber_c: see `diffusion.distance`.
        target_dropout: in the network that gives the target: "same" units are dropped as in the
            one that learns (iCT, section 3.2), "own", as released, or "none".
        clip: see `Distillation`.
        nfe: network calls per action.
    """

    s0: int = 10
    s1: int = 1280
    rounding: str = "floor"
    p_mean: float = -1.1
    p_std: float = 2.0
    huber_c: float = 0.0
    target_dropout: str = "same"
    clip: bool = False
    nfe: int = 1

    def __post_init__(self):
        errors.choose("ct.method.rounding", self.rounding, ("floor", "ceil"))
        errors.choose("ct.method.target_dropout", self.target_dropout, ("same", "own", "none"))
        if not 1 <= self.s0 <= self.s1 or self.nfe < 1:
            raise errors.UserError(
                f"ct.method: 1 <= s0 <= s1 and nfe >= 1 are needed, not {self.s0}, {self.s1} and "
                f"{self.nfe}"
            )


# ---- levels ------------------------------------------------------------------------------------


def level(
    noise: diffusion.Noise, i: Num[Array, "*batch"], n: Num[Array, ""] | int
) -> Float[Array, "*batch"]:
    """Return t_i of a grid of n intervals, from t_0 = sigma_min to t_n = sigma_max (EDM Eq. 5)."""
    return diffusion.sigmas(noise, (1 - i / n) * (noise.bins - 1))


def interval(noise: diffusion.Noise, t: Levels, n: Num[Array, ""] | int) -> Int[Array, " batch"]:
    """Return the i with t_i <= t < t_{i+1}: the inverse of `level`."""
    low, high = noise.sigma_min ** (1 / noise.rho), noise.sigma_max ** (1 / noise.rho)
    i = jnp.floor(n * (t ** (1 / noise.rho) - low) / (high - low)).astype(jnp.int32)
    return jnp.clip(i, 0, n - 1)


def intervals(method: Training, step: Int[Array, "*batch"], steps: int) -> Int[Array, "*batch"]:
    """Return N at update number `step` of `steps`: it doubles from s0 to s1 (iCT, Eq. 9).

    That is min(s0 2^floor(k / K'), s1), where K' = floor(K / (log2 floor(s1 / s0) + 1)).
    """
    up = method.rounding == "ceil"
    rounded = math.ceil if up else math.floor
    each = max(rounded(steps / (math.log2(rounded(method.s1 / method.s0)) + 1)), 1)
    return jnp.minimum(method.s0 * 2 ** ((step + up * (each - 1)) // each), method.s1)


def draw_interval(
    noise: diffusion.Noise, method: Training, n: Int[Array, ""], key: PRNGKeyArray, batch: int
) -> Int[Array, " {batch}"]:
    """Draw i with probability proportional to erf(z_{i+1}) - erf(z_i) (iCT, Eq. 10).

    With z = (ln t - P_mean) / (sqrt(2) P_std) this is the mass of a log-normal between t_i and
    t_{i+1}. So a level is drawn from it, cut at both ends, and its interval is looked up: there is
    no table of levels, and n may change from update to update without another compilation.
    """
    ends = jnp.log(jnp.array([noise.sigma_min, noise.sigma_max]))
    low, high = (ends - method.p_mean) / method.p_std
    z = jax.random.truncated_normal(key, low, high, (batch,))
    return interval(noise, jnp.exp(method.p_mean + method.p_std * z), n)


# ---- losses ------------------------------------------------------------------------------------


def cd_loss(
    model: Map,
    target: Map,
    teacher: Denoiser,
    noise: diffusion.Noise,
    method: Distillation,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Levels:
    """Return L_CD of each example; the gradient reaches `model` only (CM, Eq. 7)."""
    key_i, key_eps = jax.random.split(key)
    n = method.intervals
    i = jax.random.randint(key_i, x_0.shape[:1], 0, n)
    u, t = level(noise, i, n), level(noise, i + 1, n)
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x_u = edm.euler(teacher, x_t, t, u)
    goal = jax.lax.stop_gradient(target(x_u, u))
    losses = diffusion.distance("squared", model(x_t, t), goal)
    return losses / (t - u) if method.weight == "interval" else losses


def ct_loss(
    model: Map,
    target: Map,
    noise: diffusion.Noise,
    method: Training,
    n: Int[Array, ""],
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Levels:
    """Return L_CT of each example; the gradient reaches `model` only (iCT, section 3)."""
    key_i, key_eps = jax.random.split(key)
    i = draw_interval(noise, method, n, key_i, x_0.shape[0])
    u, t = level(noise, i, n), level(noise, i + 1, n)
    eps = jax.random.normal(key_eps, x_0.shape)
    p = model(x_0 + diffusion.expand(t) * eps, t)
    q = jax.lax.stop_gradient(target(x_0 + diffusion.expand(u) * eps, u))
    return diffusion.distance("huber", p, q, method.huber_c) / (t - u)


# ---- sampling ----------------------------------------------------------------------------------


def sample(
    model: Map,
    noise: diffusion.Noise,
    nfe: int,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
) -> Trajectory:
    """Draw one trajectory a key with `nfe` network calls (CM, Algorithm 1).

    The first call is at sigma_max, the others at the inner levels of a grid of `nfe` intervals.
    """

    def to_zero(x, t):
        x_0 = model(x, jnp.full(x.shape[0], t))
        return jnp.clip(x_0, -1, 1) if noise.clip else x_0

    keys = jax.vmap(lambda key: jax.random.split(key, nfe))(keys)
    x = to_zero(diffusion.initial(noise, keys[:, 0], shape), noise.sigma_max)
    for call in range(1, nfe):
        t = level(noise, jnp.asarray(nfe - call), nfe)
        eps = jax.vmap(lambda key: jax.random.normal(key, shape))(keys[:, call])
        x = to_zero(x + jnp.sqrt(t**2 - noise.sigma_min**2) * eps, t)
    return x


# ---- the algorithms ----------------------------------------------------------------------------


def consistency_map(net, params: Params, noise: diffusion.Noise, cond, **kwargs) -> Map:
    """Return f of some weights for some conditions; **kwargs as `edm.denoise`, and `clip`."""
    clip = kwargs.pop("clip", False)

    def f(x, t):
        x_0 = edm.denoise(net, params, noise, x, t, cond, **kwargs)
        return jnp.clip(x_0, -1, 1) if clip else x_0

    return f


def boundary(noise: diffusion.Noise) -> diffusion.Noise:
    """Return the same noise with the scalings that make f(x, sigma_min) = x."""
    return dataclasses.replace(noise, scaling="boundary")


def make_cd(
    net,
    teacher_net,
    noise: diffusion.Noise,
    method: Distillation,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the distilled model; its `init(key, frozen)` takes {"teacher": params}.

    Args:
        net: a network of `networks`.
        teacher_net: the teacher's network, of the same kind and size for a warm start.
        noise: the teacher's noise levels and scalings.
        method: loss and sampler.
        optimiser: how to train; its average gives the targets.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
    """
    mine = boundary(noise)

    def init(key, frozen):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        params = net.init(key, x, jnp.zeros((1, 1)), cond)["params"]
        if method.warm_start:
            params = _copy(frozen["teacher"], like=params)
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout = jax.random.split(key)

        def teacher(x, t):
            return edm.denoise(teacher_net, state.frozen["teacher"], noise, x, t, batch.cond)

        def loss_fn(params):
            words = {"train": True, "rngs": {"dropout": key_dropout}, "clip": method.clip}
            model = consistency_map(net, params, mine, batch.cond, **words)
            target = consistency_map(net, state.ema, mine, batch.cond, clip=method.clip)
            losses = cd_loss(model, target, teacher, mine, method, batch.x, key_loss)
            return jnp.mean(losses)

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        return sample(consistency_map(net, params, mine, cond), mine, method.nfe, keys, shape)

    return Algorithm(init, update, act)


def _copy(teacher: Params, *, like: Params) -> Params:
    shapes = [jax.tree.map(jnp.shape, params) for params in (teacher, like)]
    if shapes[0] != shapes[1]:
        raise errors.UserError(
            "cd.method.warm_start copies the teacher's weights, so both need networks of the same "
            "kind and size: make cd.network like edm_bc.network, or set warm_start=False"
        )
    return jax.tree.map(jnp.copy, teacher)  # not the frozen teacher's own buffers, which live on


def make_ct(
    net,
    noise: diffusion.Noise,
    method: Training,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the model that is trained without a teacher.

    Args:
        net: a network of `networks`.
        noise: noise levels and scalings.
        method: loss, curriculum and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
    """
    mine = boundary(noise)

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout, key_other = jax.random.split(key, 3)
        n = intervals(method, state.step, optimiser.steps)

        def f(params, key, train=True):
            words = {"train": train, "rngs": {"dropout": key}, "clip": method.clip}
            return consistency_map(net, params, mine, batch.cond, **words)

        def loss_fn(params):
            same = method.target_dropout == "same"
            target = f(
                params,
                jax.random.clone(key_dropout) if same else key_other,
                train=method.target_dropout != "none",
            )
            model = f(params, key_dropout)
            return jnp.mean(ct_loss(model, target, mine, method, n, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        metrics = {"loss": value, "intervals": n.astype(jnp.float32)}
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        return sample(consistency_map(net, params, mine, cond), mine, method.nfe, keys, shape)

    return Algorithm(init, update, act)
