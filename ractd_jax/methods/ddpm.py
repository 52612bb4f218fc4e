"""DDPM on the same network: the baseline of RACTD's tables, with its DDPM and DDIM samplers.

Ho et al. 2020; Song, Meng and Ermon 2021 (DDIM); schedule of Nichol and Dhariwal 2021. Settings are
those of Diffusion Policy, which RACTD's code base builds on: 100 steps, squared-cosine schedule,
the network predicts the noise, predictions of clean data are clipped.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps,   a_t = prod_i (1 - beta_i)    `alpha_bars`, `noised`
    L   = E |F(x_t, t, cond) - eps|^2                                          `loss`
    q(x_s | x_t, x_0) is normal, s < t                                         `posterior`
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps(x_t, x_0)                          `ddim`

Noise preserves variance here and times are step numbers, unlike everywhere else in the package:
`noise.clip` is the only field of the noise section that a DDPM heeds.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from ractd_jax import diffusion, errors, train_state
from ractd_jax.types import Algorithm, Batch, Params

Trajectory = Float[Array, "batch horizon dim"]
Steps = Int[Array, " batch"]
Predictor = Callable[[Trajectory, Steps], Trajectory]  # (x, t) -> eps


@dataclasses.dataclass(frozen=True)
class Ddpm:
    """How a DDPM learns and samples.

    Attributes:
        steps: of the schedule it is trained with.
        sampler: "ddpm", with noise, or "ddim", without.
        sample_steps: network calls per action, spread evenly over the schedule.
        schedule: see `SCHEDULES`.
    """

    steps: int = 100
    sampler: str = "ddpm"
    sample_steps: int = 100
    schedule: str = "cosine"

    def __post_init__(self):
        errors.choose("ddpm.method.sampler", self.sampler, SAMPLERS)
        errors.choose("ddpm.method.schedule", self.schedule, SCHEDULES)
        if not 1 <= self.sample_steps <= self.steps:
            raise errors.UserError(
                f"ddpm.method.sample_steps = {self.sample_steps}: between 1 and "
                f"ddpm.method.steps = {self.steps} is possible"
            )


# ---- schedule ----------------------------------------------------------------------------------


def cosine(steps: int) -> Float[Array, " steps_1"]:
    """Return a_t where 1 - beta_t = cos^2(t) / cos^2(t - 1), beta at most 0.999.

    Nichol and Dhariwal 2021, Eq. 17.
    """
    angle = (jnp.arange(steps + 1) / steps + 0.008) / 1.008 * jnp.pi / 2
    kept = jnp.cos(angle[1:]) ** 2 / jnp.cos(angle[:-1]) ** 2
    return jnp.cumprod(jnp.concatenate([jnp.ones(1), jnp.maximum(kept, 0.001)]))


def vp(steps: int) -> Float[Array, " steps_1"]:
    """Return a_t of the variance-preserving SDE whose beta rises linearly from 0.1 to 10.

    Its integral is exact, so few steps leave as little of the data as many (Xiao et al. 2022).
    """
    u = jnp.arange(steps + 1) / steps
    return jnp.exp(-0.1 * u - 0.5 * (10 - 0.1) * u**2)


SCHEDULES = {"cosine": cosine, "vp": vp}


def alpha_bars(steps: int, schedule: str = "cosine") -> Float[Array, " steps_1"]:
    """Return a_0 = 1, a_1, ..., a_steps: the share of the data's variance left after each step."""
    return SCHEDULES[schedule](steps)


def visited(ddpm: Ddpm) -> Int[Array, " sample_steps_1"]:
    """Return the steps that sampling goes through, from `steps`, where x is noise, down to 0."""
    return jnp.round(jnp.linspace(ddpm.steps, 0, ddpm.sample_steps + 1)).astype(jnp.int32)


def noised(a: Float[Array, " batch"], x_0: Trajectory, eps: Trajectory) -> Trajectory:
    """Return sqrt(a) x_0 + sqrt(1 - a) eps."""
    a = diffusion.expand(a)
    return jnp.sqrt(a) * x_0 + jnp.sqrt(1 - a) * eps


# ---- loss --------------------------------------------------------------------------------------


def loss(
    predictor: Predictor, ddpm: Ddpm, x_0: Trajectory, key: PRNGKeyArray
) -> Float[Array, " batch"]:
    """Return the squared error of the predicted noise at a random step (Ho et al. 2020, Eq. 14)."""
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, ddpm.steps + 1)
    eps = jax.random.normal(key_eps, x_0.shape)
    a = alpha_bars(ddpm.steps, ddpm.schedule)[t]
    error = predictor(noised(a, x_0, eps), t) - eps
    return jnp.mean(error**2, axis=(1, 2))


# ---- samplers: (x_t, x_0, a_t, a_s) -> (mean of x_s, its standard deviation) ---------------------


def posterior(
    x: Trajectory, x_0: Trajectory, a: Float[Array, ""], a_next: Float[Array, ""]
) -> tuple[Trajectory, Float[Array, ""]]:
    """Return mean and standard deviation of q(x_s | x_t, x_0) (Ho et al. 2020, Eqs. 6 and 7).

    Steps may be skipped: what matters of t and s is how much variance they leave.
    """
    kept = a / a_next
    mean = jnp.sqrt(a_next) * (1 - kept) * x_0 + jnp.sqrt(kept) * (1 - a_next) * x
    return mean / (1 - a), jnp.sqrt((1 - kept) * (1 - a_next) / (1 - a))


def ddim(
    x: Trajectory, x_0: Trajectory, a: Float[Array, ""], a_next: Float[Array, ""]
) -> tuple[Trajectory, None]:
    """Return x_s with the very noise that x_t holds besides x_0 (Song et al. 2021, Eq. 12).

    The noise is worked out from x_0 after clipping, so that the two always add up to x_t.
    """
    eps = (x - jnp.sqrt(a) * x_0) / jnp.sqrt(1 - a)
    return jnp.sqrt(a_next) * x_0 + jnp.sqrt(1 - a_next) * eps, None


SAMPLERS = {"ddpm": posterior, "ddim": ddim}


def sample(
    predictor: Predictor,
    ddpm: Ddpm,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
    *,
    clip: bool,
) -> Trajectory:
    """Draw one trajectory a key with `sample_steps` network calls.

    Args:
        predictor: of the noise.
        ddpm: schedule and sampler.
        keys: one for each row.
        shape: (horizon, dim) of a trajectory.
        clip: clip every prediction of x_0 to [-1, 1].
    """
    steps, sampler = visited(ddpm), SAMPLERS[ddpm.sampler]
    a = alpha_bars(ddpm.steps, ddpm.schedule)[steps]

    def draw(t):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

    def step(x, now):
        t, t_next, a, a_next = now
        eps = predictor(x, jnp.full(x.shape[0], t))
        x_0 = (x - jnp.sqrt(1 - a) * eps) / jnp.sqrt(a)
        x, deviation = sampler(x, jnp.clip(x_0, -1, 1) if clip else x_0, a, a_next)
        return x if deviation is None else x + deviation * draw(t_next), None

    pairs = steps[:-1], steps[1:], a[:-1], a[1:]
    return jax.lax.scan(step, draw(steps[0]), pairs)[0]


# ---- the algorithm -----------------------------------------------------------------------------


def make_ddpm(
    net,
    noise: diffusion.Noise,
    ddpm: Ddpm,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the DDPM.

    Args:
        net: a network of `networks`; its `times` are the numbers of the steps.
        noise: of which `clip` says whether samples stay in [-1, 1].
        ddpm: schedule and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
    """

    def predict(params: Params, x, t, cond, **kwargs):
        return net.apply({"params": params}, x, t[:, None].astype(x.dtype), cond, **kwargs)

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            def predictor(x, t):
                rngs = {"dropout": key_dropout}
                return predict(params, x, t, batch.cond, train=True, rngs=rngs)

            return jnp.mean(loss(predictor, ddpm, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        def predictor(x, t):
            return predict(params, x, t, cond)

        return sample(predictor, ddpm, keys, shape, clip=noise.clip)

    return Algorithm(init, update, act)
