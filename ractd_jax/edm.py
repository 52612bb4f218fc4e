"""The EDM teacher: denoiser, loss, and samplers of its probability-flow ODE.

RACTD section 2.2; Karras et al. 2022.

    D(x, t) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), cond)                 `denoise`
    L = E[ w(t) d(D(x_0 + t eps, t), x_0) ]                            (Eq. 4)       `loss`
    dx/dt = (x - D(x, t)) / t                                           `slope`, `euler`, `heun`

Losses and samplers take a denoiser `(x, t) -> x_0`, never a network, so they serve any model.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ractd_jax import diffusion, errors, networks, reward, train_state
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.types import (
    Algorithm,
    Batch,
    Cond,
    Denoiser,
    Levels,
    Network,
    Params,
    Trajectory,
    Transition,
    ValueFunction,
    Values,
)


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
        reward_clip: see `reward.reward_loss`.
        reward_scale: see `reward.reward_loss`.

    Raises:
        FieldError: an option is unknown, or a number is out of range.
    """

    distance: str = "huber"
    levels: str = "log_normal"
    solver: str = "heun"
    sample_bins: int = 80
    reward_weight: float = 0.0
    reward_clip: bool = True
    reward_scale: str = "gradient"

    def __post_init__(self):
        errors.choose_field("distance", self.distance, diffusion.DISTANCES)
        errors.choose_field("levels", self.levels, diffusion.LEVELS)
        errors.choose_field("solver", self.solver, SOLVERS)
        errors.choose_field("reward_scale", self.reward_scale, reward.SCALES)
        errors.at_least("sample_bins", self.sample_bins, 2)
        errors.at_least("reward_weight", self.reward_weight, 0)


# ---- D and its loss ------------------------------------------------------------------------------


def denoise(
    net: Network,
    params: Params,
    noise: diffusion.Noise,
    x: Trajectory,
    t: Levels,
    cond: Cond,
    **kwargs: Any,
) -> Trajectory:
    """Return D(x, t): the clean trajectory the model sees in x at noise level t.

    Args:
        net: a network of `networks`.
        params: its weights.
        noise: scalings.
        x: noisy trajectories.
        t: noise level of each.
        cond: conditions.
        **kwargs: `train` and `rngs` for the network's dropout.

    Example:
        >>> net, x, cond = networks.ResidualMLP(hidden=8), jnp.ones((5, 16, 3)), jnp.ones((5, 11))
        >>> params = net.init(jax.random.key(0), x, jnp.ones((5, 1)), cond)["params"]
        >>> denoise(net, params, diffusion.Noise(), x, jnp.full(5, 80.0), cond).shape
        (5, 16, 3)
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
) -> tuple[Values, Trajectory]:
    """Return the denoising loss of each example at a random noise level, and what it denoised.

    RACTD Eq. 4.

    Args:
        denoiser: D.
        noise: levels and weight of the loss.
        teacher: distance, and which levels are drawn.
        x_0: clean trajectories.
        key: of levels and noise.

    Example:
        >>> x_0 = jnp.zeros((5, 16, 3))
        >>> losses, x = loss(lambda x, t: x, diffusion.Noise(), Teacher(), x_0, jax.random.key(0))
        >>> losses.shape, x.shape
        ((5,), (5, 16, 3))
    """
    key_t, key_eps = jax.random.split(key)
    t = diffusion.LEVELS[teacher.levels](noise, key_t, x_0.shape[0])
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x = denoiser(x_t, t)
    return diffusion.karras_weight(noise, t) * diffusion.distance(teacher.distance, x, x_0), x


# ---- solvers -------------------------------------------------------------------------------------


def slope(denoiser: Denoiser, x: Trajectory, t: Levels) -> Trajectory:
    """Return dx/dt of the probability-flow ODE (EDM Eq. 3 with D for the score).

    Example:
        >>> slope(lambda x, t: 0 * x, jnp.full((1, 1, 1), 6.0), jnp.array([2.0])).item()
        3.0
    """
    return (x - denoiser(x, t)) / diffusion.expand(t)


def euler(denoiser: Denoiser, x: Trajectory, t: Levels, u: Levels, zero: float = 0.0) -> Trajectory:
    """Step from level t to level u with Euler's method; the identity where u = t.

    `zero` is for solvers that correct their steps.

    Example:
        >>> x, t, u = jnp.full((1, 1, 1), 6.0), jnp.array([2.0]), jnp.array([1.0])
        >>> euler(lambda x, t: 0 * x, x, t, u).item()
        3.0
    """
    del zero
    return x + diffusion.expand(u - t) * slope(denoiser, x, t)


def heun(denoiser: Denoiser, x: Trajectory, t: Levels, u: Levels, zero: float = 0.0) -> Trajectory:
    """Step from level t to level u with Heun's method (EDM Algorithm 1); the identity where u = t.

    A step to level `zero` or below is Euler's, as in the algorithm.

    Example:
        >>> x, t, u = jnp.full((1, 1, 1), 6.0), jnp.array([2.0]), jnp.array([1.0])
        >>> heun(lambda x, t: 0 * x, x, t, u).item()
        3.0
    """
    d = slope(denoiser, x, t)
    d_next = slope(diffusion.named(denoiser, "corrector"), x + diffusion.expand(u - t) * d, u)
    d_mean = jnp.where(diffusion.expand(u) > zero, (d + d_next) / 2, d)
    return x + diffusion.expand(u - t) * d_mean


class Solver(NamedTuple):
    """A way to step from one noise level to the next.

    Attributes:
        step: `(denoiser, x, t, u, zero) -> x at level u`.
        calls: how often a step calls the denoiser.
    """

    step: Callable[..., Trajectory]
    calls: int


SOLVERS: dict[str, Solver] = {"euler": Solver(euler, calls=1), "heun": Solver(heun, calls=2)}


def solve(
    denoiser: Denoiser,
    x: Trajectory,
    levels: Float[Array, "steps_1 batch"],
    solver: str = "heun",
    zero: float = 0.0,
) -> Trajectory:
    """Follow the ODE through `levels`, one row of noise levels after the other.

    Args:
        denoiser: D.
        x: trajectories at the first row of levels.
        levels: of each trajectory, one more row than there are steps.
        solver: one of `SOLVERS`.
        zero: a step to this level or below is Euler's.

    Example:
        >>> levels = jnp.array([[4.0], [2.0], [1.0]])
        >>> solve(lambda x, t: 0 * x, jnp.full((1, 1, 1), 8.0), levels, "euler").item()
        2.0
    """

    def step(x, level_pair):
        return SOLVERS[solver].step(denoiser, x, *level_pair, zero), None

    return jax.lax.scan(step, x, (levels[:-1], levels[1:]))[0]


def calls(teacher: Teacher) -> int:
    """Return the network calls of one trajectory.

    Example:
        >>> calls(Teacher(solver="heun", sample_bins=80))
        158
    """
    return (teacher.sample_bins - 1) * SOLVERS[teacher.solver].calls


# ---- the algorithm -------------------------------------------------------------------------------


def make_teacher(
    net: Network,
    noise: diffusion.Noise,
    teacher: Teacher,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
    critic: ValueFunction | None = None,
) -> Algorithm:
    """Make the teacher.

    Args:
        net: a network of `networks`.
        noise: noise levels and scalings.
        teacher: loss and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        critic: `(reward_params, x, cond, key) -> (batch,)` for a reward-aware teacher, whose
            `init(key, frozen)` takes {"reward": params}.

    Raises:
        FieldError: the reward has a weight, and there is no critic.

    Example:
        >>> net, optimiser = networks.ResidualMLP(hidden=8), train_state.Optimiser(steps=10)
        >>> teacher, noise = Teacher(sample_bins=3), diffusion.Noise()
        >>> algorithm = make_teacher(net, noise, teacher, optimiser, shape=(16, 3), cond_dim=11)
        >>> state = algorithm.init(jax.random.key(0))
        >>> keys = jax.random.split(jax.random.key(1), 5)
        >>> algorithm.act(state.params, jnp.ones((5, 11)), keys).shape
        (5, 16, 3)
    """
    errors.at_least("sample_bins", teacher.sample_bins, 3 if noise.sigma_last else 2)
    if teacher.reward_weight and critic is None:
        raise errors.FieldError(
            "reward_weight", f"{{field}} is {teacher.reward_weight}: without a critic it takes 0"
        )

    def init(key, frozen=None):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        params = net.init(key, x, jnp.zeros((1, 1)), cond)["params"]
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout, *keys_critic = jax.random.split(
            key, 3 if teacher.reward_weight else 2
        )

        def loss_fn(params):
            def denoiser(x, t):
                rngs = {"dropout": key_dropout}
                return denoise(net, params, noise, x, t, batch.cond, train=True, rngs=rngs)

            losses, x = loss(denoiser, noise, teacher, batch.x, key_loss)
            edm_loss = jnp.mean(losses)
            if not teacher.reward_weight or critic is None:
                return edm_loss, {"loss": edm_loss}

            value = reward.bind(critic, state.frozen["reward"], batch.cond, keys_critic[0])
            clip, scale = teacher.reward_clip, teacher.reward_scale
            reward_loss, values = reward.reward_loss(value, x, clip=clip, scale=scale)
            total = edm_loss + teacher.reward_weight * reward_loss
            return total, {"loss": total, "edm": edm_loss, "return": jnp.mean(values)}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        def denoiser(x, t):
            return diffusion.clip(noise, denoise(net, params, noise, x, t, cond))

        grid = dataclasses.replace(noise, bins=teacher.sample_bins)
        levels = diffusion.sigmas(grid, jnp.arange(teacher.sample_bins))
        levels = jnp.broadcast_to(levels[:, None], (teacher.sample_bins, cond.shape[0]))
        x = diffusion.initial(noise, keys, shape)
        return solve(denoiser, x, levels, teacher.solver, diffusion.zero(noise))

    return Algorithm(init, update, act)


# ---- the stage -----------------------------------------------------------------------------------

NETWORKS: dict[str, type] = {"unet": networks.ConditionalUnet1D, "mlp": networks.ResidualMLP}


def network_of(context: Context) -> Network:
    """Return the denoising network of a stage, which computes in `training.precision`."""
    net, precision = context.section.network, context.config.training.precision
    return net if precision == "float32" else networks.InPrecision(net, precision)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the teacher of a configuration."""
    return make_teacher(
        network_of(context),
        context.noise,
        context.section.method,
        optimiser,
        **context.sizes,
        critic=reward.critic_of(context),
    )


def _needs(config: Config, stage: str) -> Mapping[str, str]:
    return {"reward": config.critic} if config.stages[stage].method.reward_weight else {}


TEACHER = Method(
    name="teacher",
    help="train the EDM teacher",
    make=make,
    fields=Teacher,
    network=NETWORKS,
    reads=Reads.WINDOWS,
    label="teacher",
    colour="#3d74b8",
    order=70,
    needs=_needs,
    uses_history=True,
    sampling_fields=("solver", "sample_bins"),
    calls=calls,
    heeds_precision=True,
    trained_by_all=True,
)
METHODS = (TEACHER,)
