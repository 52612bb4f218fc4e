"""Inverse dynamics: the action that leads from one state to the next, learned from the data.

RACTD's paper (section 4.2) turns planned states into actions by a "reverse dynamics model"; its
released code has the controller `envs.waypoints.push` in that place. This is the learned one.

    a = I(s, k (s' - s))                                                            `predict`
    L = E |I - a|                                                                   `loss`

One step changes a state by little, and the change is what the action shows in: it is a separate
input, k times as large. The absolute error asks for the median, so that the few rows which no
state explains do not pull at the others: pushes against a wall, and D4RL's repeated observations.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import train_state
from ractd_jax.types import Algorithm, Batch, Params


@dataclasses.dataclass(frozen=True)
class Inverse:
    """How inverse dynamics are learned.

    Attributes:
        gain: k, what the change of a normalised state is multiplied by.
    """

    gain: float = 20.0


def predict(
    net, params: Params, inverse: Inverse, pair: Float[Array, "batch cond"]
) -> Float[Array, "batch act"]:
    """Return the actions between two states.

    Args:
        net: a `networks.InverseMLP`.
        params: its weights.
        inverse: the gain.
        pair: the state and the next one, side by side.
    """
    state, after = jnp.split(pair, 2, axis=-1)
    return net.apply({"params": params}, state, inverse.gain * (after - state))


def loss(
    prediction: Float[Array, "batch act"], action: Float[Array, "batch act"]
) -> Float[Array, " batch"]:
    """Return the absolute error of each action."""
    return jnp.mean(jnp.abs(prediction - action), axis=-1)


def make_inverse(
    net,
    inverse: Inverse,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the inverse dynamics; `act` answers a pair of states, whatever its keys.

    Args:
        net: a `networks.InverseMLP`.
        inverse: the gain.
        optimiser: how to train.
        shape: (1, size of an action).
        cond_dim: size of two states.
    """
    del shape  # of the answer, which the network knows

    def init(key):
        half = jnp.zeros((1, cond_dim // 2))
        return train_state.create(net.init(key, half, half)["params"], optimiser)

    def update(state, batch: Batch, key):
        del key  # nothing random here

        def loss_fn(params):
            return jnp.mean(loss(predict(net, params, inverse, batch.cond), batch.x[:, 0]))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        del keys
        return predict(net, params, inverse, cond)[:, None]

    return Algorithm(init, update, act)
