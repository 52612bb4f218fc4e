"""Plans of actions and states whose known states stay in their places.

What `diffuser` and the value that guides it share (Janner et al. 2022). A row of x is
(action, state); the condition is no input of the network:

    x <- x with the known states in their places                    `inpaint`
    (x_t, t) at a random step, what is known without noise          `noisy_plans`
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ractd_jax.methods import vp_schedule
from ractd_jax.methods.ddpm import Steps
from ractd_jax.types import Cond, Network, Params, Trajectory

Known = Callable[[Trajectory], Trajectory]  # puts the known states in their places


def inpaint(x: Trajectory, cond: Cond, act_dim: int) -> Trajectory:
    """Return x with the states of `cond` in their places: the first, then, if there, the last.

    Janner et al. 2022, section 3.2 and Algorithm 1.

    Args:
        x: rows of (action, state).
        cond: one state, or two side by side.
        act_dim: size of an action.

    Example:
        >>> inpaint(jnp.zeros((1, 2, 3)), jnp.array([[5.0, 6.0]]), act_dim=1)[0].tolist()
        [[0.0, 5.0, 6.0], [0.0, 0.0, 0.0]]
    """
    states = cond.reshape(len(cond), -1, x.shape[-1] - act_dim)
    for index, place in zip(range(states.shape[1]), (0, -1), strict=False):
        x = x.at[:, place, act_dim:].set(states[:, index])
    return x


def noisy_plans(
    steps: int, known: Known, x_0: Trajectory, key: PRNGKeyArray
) -> tuple[Trajectory, Steps]:
    """Return (x_t, t) at a random step of the cosine schedule, what is known without noise.

    Args:
        steps: of the schedule.
        known: in-painting.
        x_0: clean plans.
        key: of steps and noise.

    Example:
        >>> x, t = noisy_plans(20, lambda x: x, jnp.zeros((5, 32, 14)), jax.random.key(0))
        >>> x.shape, t.shape
        ((5, 32, 14), (5,))
    """
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, steps + 1)
    eps = jax.random.normal(key_eps, x_0.shape)
    a = vp_schedule.alpha_bars(steps)[t]
    return known(vp_schedule.add_noise(jnp.sqrt(a), jnp.sqrt(1 - a), x_0, eps)), t


def apply(net: Network, params: Params, x: Trajectory, t: Steps, **kwargs: Any) -> Array:
    """Return what a network gives for plans at steps t, with an empty condition.

    Args:
        net: a network of `networks`.
        params: its weights.
        x: noisy plans.
        t: their steps.
        **kwargs: `train` and `rngs` for the network's dropout.
    """
    return net.apply({"params": params}, x, t[:, None].astype(x.dtype), x[:, 0, :0], **kwargs)


def first_weights(net: Network, key: PRNGKeyArray, shape: tuple[int, int]) -> Params:
    """Return the first weights of a network for plans of shape (horizon, dim)."""
    return net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))["params"]
