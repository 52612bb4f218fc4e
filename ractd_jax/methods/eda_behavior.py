"""EDA's behaviour model: a diffusion model of the data's actions that knows its own density.

Chen et al. 2024, "Aligning Diffusion Behaviors with Q-functions". A scalar network f is the log
density of noisy actions, up to a constant that depends on s and t alone, so that its slope is the
score. Times and noise are those of `vp_schedule`, the sampler is `dpm_solver`.

    eps(x_t, t | s) = -sigma_t df(x_t, t | s) / dx_t                             `predict_noise`
    L_mu = E[ |eps(x_t, t | s) - eps|^2 ]                                        `behavior_loss`

`eda` aligns it with a critic.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

from ractd_jax import diffusion, errors, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import dpm_solver, vp_schedule
from ractd_jax.nn import denoising_mlp
from ractd_jax.types import (
    Algorithm,
    Batch,
    Cond,
    Levels,
    Network,
    Params,
    Trajectory,
    Transition,
    Values,
)

Density = Callable[[Trajectory, Levels], Values]  # (x_t, t) -> f
SAMPLING_FIELDS = ("nfe", "spacing", "clip")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How actions are drawn, from the behaviour model and from the policy.

    Attributes:
        nfe: network calls per action, each of them forward and backward.
        spacing: of the times, see `dpm_solver.grid`.
        clip: clip every prediction of clean actions to [-1, 1].

    Raises:
        FieldError: there is no network call, or the word is unknown.
    """

    nfe: int = 15
    spacing: str = "uniform"
    clip: bool = False

    def __post_init__(self):
        errors.at_least("nfe", self.nfe, 1)
        errors.choose_field("spacing", self.spacing, dpm_solver.SPACINGS)


def predict_noise(f: Density, x: Trajectory, t: Levels) -> Trajectory:
    """Return -sigma_t df/dx, the noise that a model of density f sees in x (Eq. 6).

    Args:
        f: log-density.
        x: noisy trajectories.
        t: time of each.

    Example:
        >>> x, t = jnp.ones((5, 1, 3)), jnp.full(5, 0.5)
        >>> predict_noise(lambda x, t: -jnp.sum(x**2, axis=(1, 2)), x, t).shape
        (5, 1, 3)
    """
    slope = jax.grad(lambda x: jnp.sum(f(x, t)))(x)  # rows do not see each other
    return -diffusion.expand(vp_schedule.sigma(t)) * slope


def noisy(t: Levels, x_0: Trajectory, eps: Trajectory) -> Trajectory:
    """Return x_t = alpha_t x_0 + sigma_t eps.

    Args:
        t: time of each trajectory.
        x_0: clean trajectories.
        eps: noise of deviation 1.
    """
    alpha = jnp.exp(vp_schedule.log_alpha(t))
    return vp_schedule.add_noise(alpha, vp_schedule.sigma(t), x_0, eps)


def behavior_loss(f: Density, x_0: Trajectory, key: PRNGKeyArray) -> Values:
    """Return the squared error of the predicted noise, summed, at a random time of each example.

    Its gradient in the weights is of second order; on CPUs all ways to order the two derivatives
    take equally long (docs/eda.md), so this is the plainest.

    Args:
        f: log-density.
        x_0: clean trajectories.
        key: of times and noise.
    """
    key_t, key_eps = jax.random.split(key)
    t = jax.random.uniform(key_t, x_0.shape[:1], minval=vp_schedule.T_MIN, maxval=1.0)
    eps = jax.random.normal(key_eps, x_0.shape)
    error = predict_noise(f, noisy(t, x_0, eps), t) - eps
    return jnp.sum(error**2, axis=(1, 2))


def density(net: Network, params: Params, cond: Cond, **kwargs: Any) -> Density:
    """Return f(., . | cond); `kwargs` are `train` and `rngs` for the network's dropout."""
    return lambda x, t: net.apply({"params": params}, x, t[:, None], cond, **kwargs)


def draw(
    f: Density, sampling: Sampling, keys: Key[Array, " batch"], shape: tuple[int, int]
) -> Trajectory:
    """Draw one trajectory of shape (horizon, dim) for each key.

    Args:
        f: density of noisy trajectories.
        sampling: how.
        keys: one for each row.
        shape: (horizon, dim).

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> draw(lambda x, t: -jnp.sum(x**2, axis=(1, 2)), Sampling(nfe=2), keys, (1, 3)).shape
        (5, 1, 3)
    """

    def predictor(x, t):
        x_0 = dpm_solver.clean(t, x, predict_noise(f, x, jnp.full(x.shape[0], t)))
        return jnp.clip(x_0, -1, 1) if sampling.clip else x_0

    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return dpm_solver.solve(predictor, noise, dpm_solver.grid(sampling.nfe, sampling.spacing))


def make_behavior(
    net: Network,
    sampling: Sampling,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the behaviour model, which acts as the data do.

    Args:
        net: network of f, a `denoising_mlp.Bottleneck`.
        sampling: how it acts.
        optimiser: how to train.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            f = density(net, params, batch.cond, train=True, rngs={"dropout": key_dropout})
            return jnp.mean(behavior_loss(f, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        return draw(density(net, params, cond), sampling, keys, shape)

    return Algorithm(init, update, act)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the behaviour model of a configuration."""
    section = context.section
    return make_behavior(section.network, section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="eda_behavior",
        help="train EDA's behaviour model, whose log-density is one forward pass",
        make=make,
        fields=Sampling,
        network={"bottleneck": denoising_mlp.Bottleneck},
        reads=Reads.TRANSITIONS,
        label="EDA's behaviour model",
        colour="#c0a67c",
        order=20,
        sampling_fields=SAMPLING_FIELDS,
        calls=lambda fields: fields.nfe,
        tasks=("policy",),
    ),
)
