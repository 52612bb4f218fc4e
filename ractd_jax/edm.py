"""The EDM teacher: denoiser, loss, and samplers of its probability-flow ODE.

RACTD section 2.2; Karras et al. 2022.

    D(x, t) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), cond)                 `denoise`
    L = E[ w(t) d(D(x_0 + t eps, t), x_0) ]                            (Eq. 4)       `loss`
    dx/dt = (x - D(x, t)) / t                                                       `euler`, `heun`

Losses and samplers take a denoiser `(x, t) -> x_0`, never a network, so they serve any model.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ractd_jax import diffusion, errors, reward, train_state
from ractd_jax.types import Algorithm, Batch, Params, Transition

Trajectory = Float[Array, "batch horizon dim"]
Levels = Float[Array, " batch"]
Denoiser = Callable[[Trajectory, Levels], Trajectory]


@dataclasses.dataclass(frozen=True)
class Teacher:
    """How a teacher learns and samples.

    Attributes:
        distance: distance between clean trajectories, see `diffusion.distance`.
        levels: noise levels it is trained at, see `diffusion.LEVELS`.
        solver: "heun" or "euler".
        sample_bins: levels of the sampling grid; Heun calls the network 2 (bins - 1) times.
        reward_weight: of the reward of what it denoises, 0 for the unconditioned teacher of RACTD;
            above, the reward-aware one it is compared with (Tables 4 and 10).
        reward_clip: see `reward.maximise`.
        reward_scale: see `reward.maximise`.
    """

    distance: str = "huber"
    levels: str = "mixed"
    solver: str = "heun"
    sample_bins: int = 80
    reward_weight: float = 0.0
    reward_clip: bool = True
    reward_scale: str = "gradient"

    def __post_init__(self):
        errors.choose("teacher.method.reward_scale", self.reward_scale, reward.SCALES)
        errors.choose("teacher.method.distance", self.distance, diffusion.DISTANCES)
        errors.choose("teacher.method.levels", self.levels, diffusion.LEVELS)
        errors.choose("teacher.method.solver", self.solver, SOLVERS)
        if self.sample_bins < 2:
            raise errors.UserError(
                f"teacher.method.sample_bins is {self.sample_bins}: at least 2, between which to go"
            )


def denoise(net, params: Params, noise: diffusion.Noise, x, t, cond, **kwargs) -> Trajectory:
    """Return D(x, t): the clean trajectory the model sees in x at noise level t.

    Args:
        net: a network of `networks`.
        params: its weights.
        noise: scalings.
        x: noisy trajectories (batch, horizon, dim).
        t: noise level of each (batch,).
        cond: conditions (batch, cond).
        **kwargs: `train` and `rngs` for the network's dropout.
    """
    c_skip, c_out, c_in = map(diffusion.expand, diffusion.scalings(noise, t))
    times = diffusion.c_noise(t)[:, None]
    return c_skip * x + c_out * net.apply({"params": params}, c_in * x, times, cond, **kwargs)


def loss(
    denoiser: Denoiser,
    noise: diffusion.Noise,
    teacher: Teacher,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> tuple[Levels, Trajectory]:
    """Return the denoising loss of each example at a random noise level, and what it denoised.

    RACTD Eq. 4.
    """
    key_t, key_eps = jax.random.split(key)
    t = diffusion.LEVELS[teacher.levels](noise, key_t, x_0.shape[0])
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x = denoiser(x_t, t)
    return diffusion.karras_weight(noise, t) * diffusion.distance(teacher.distance, x, x_0), x


# ---- solvers -----------------------------------------------------------------------------------


def slope(denoiser: Denoiser, x: Trajectory, t: Levels) -> Trajectory:
    """Return dx/dt of the probability-flow ODE."""
    return (x - denoiser(x, t)) / diffusion.expand(t)


def euler(denoiser: Denoiser, x: Trajectory, t: Levels, u: Levels) -> Trajectory:
    """Step from level t to level u with Euler's method; the identity where u = t."""
    return x + diffusion.expand(u - t) * slope(denoiser, x, t)


def heun(denoiser: Denoiser, x: Trajectory, t: Levels, u: Levels) -> Trajectory:
    """Step from level t to level u with Heun's method; the identity where u = t."""
    d = slope(denoiser, x, t)
    d_next = slope(denoiser, x + diffusion.expand(u - t) * d, u)
    return x + diffusion.expand(u - t) * (d + d_next) / 2


SOLVERS = {"euler": euler, "heun": heun}


def solve(
    denoiser: Denoiser, x: Trajectory, levels: Float[Array, "steps_1 batch"], solver: str = "heun"
) -> Trajectory:
    """Follow the ODE through `levels`, one row of noise levels after the other."""

    def step(x, level_pair):
        return SOLVERS[solver](denoiser, x, *level_pair), None

    return jax.lax.scan(step, x, (levels[:-1], levels[1:]))[0]


# ---- the algorithm -----------------------------------------------------------------------------


def make_teacher(
    net,
    noise: diffusion.Noise,
    teacher: Teacher,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
    judge: Callable | None = None,
) -> Algorithm:
    """Make the teacher.

    Args:
        net: a network of `networks`.
        noise: noise levels and scalings.
        teacher: loss and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        judge: `(reward_params, x, cond, key) -> (batch,)` for a reward-aware teacher, whose
            `init(key, frozen)` takes {"reward": params}.
    """

    def init(key, frozen=None):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        params = net.init(key, x, jnp.zeros((1, 1)), cond)["params"]
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout, *key_judge = jax.random.split(key, 3 if teacher.reward_weight else 2)

        def loss_fn(params):
            def denoiser(x, t):
                rngs = {"dropout": key_dropout}
                return denoise(net, params, noise, x, t, batch.cond, train=True, rngs=rngs)

            losses, x = loss(denoiser, noise, teacher, batch.x, key_loss)
            if not teacher.reward_weight:
                return jnp.mean(losses), {"loss": jnp.mean(losses)}

            def judge_here(x):
                return judge(state.frozen["reward"], x, batch.cond, key_judge[0])

            clip, scale = teacher.reward_clip, teacher.reward_scale
            worth, returns = reward.maximise(judge_here, x, clip=clip, scale=scale)
            total = jnp.mean(losses) + teacher.reward_weight * worth
            return total, {"loss": total, "edm": jnp.mean(losses), "return": jnp.mean(returns)}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        def denoiser(x, t):
            x_0 = denoise(net, params, noise, x, t, cond)
            return jnp.clip(x_0, -1, 1) if noise.clip else x_0

        grid = dataclasses.replace(noise, bins=teacher.sample_bins)
        levels = diffusion.sigmas(grid, jnp.arange(teacher.sample_bins))
        levels = jnp.broadcast_to(levels[:, None], (teacher.sample_bins, cond.shape[0]))
        return solve(denoiser, diffusion.initial(noise, keys, shape), levels, teacher.solver)

    return Algorithm(init, update, act)
