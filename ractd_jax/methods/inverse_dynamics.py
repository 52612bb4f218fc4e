"""Inverse dynamics: the action that leads from one state to the next, learned from the data.

RACTD's paper (section 4.2) turns planned states into actions by a "reverse dynamics model"; its
released code has a controller in that place, `envs.waypoint_controller.push`. This is the learned
one.

    a = I(s, k (s' - s))                                                            `predict`
    L = E |I - a|                                                                   `loss`

One step changes a state by little, and the change is what the action shows in: it is a separate
input, k times as large. The absolute error asks for the median, so that the few rows which no
state explains do not pull at the others: pushes against a wall, and D4RL's repeated observations.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors, networks, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.nn import shapes
from ractd_jax.types import Algorithm, Batch, Cond, Params, Values


@dataclasses.dataclass(frozen=True)
class Layers:
    """The hidden layers of the network.

    Attributes:
        hidden: width of each hidden layer.

    Raises:
        FieldError: there is no layer, or a width is below 1.
    """

    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self):
        shapes.check_fields(self)


@dataclasses.dataclass(frozen=True)
class Inverse:
    """How inverse dynamics are learned.

    Attributes:
        gain: k, what the change of a normalised state is multiplied by.

    Raises:
        FieldError: the gain is not above 0.
    """

    gain: float = 20.0

    def __post_init__(self):
        errors.above("gain", self.gain, 0)


def predict(net: Any, params: Params, inverse: Inverse, pair: Cond) -> Float[Array, "batch act"]:
    """Return the actions between two states.

    Args:
        net: a `networks.InverseMLP`.
        params: its weights.
        inverse: the gain.
        pair: the state and the next one, side by side.

    Example:
        >>> net, state = networks.InverseMLP(2, (8,)), jnp.zeros((1, 4))
        >>> params = net.init(jax.random.key(0), state, state)["params"]
        >>> predict(net, params, Inverse(), jnp.zeros((5, 8))).shape
        (5, 2)
    """
    state, after = jnp.split(pair, 2, axis=-1)
    return net.apply({"params": params}, state, inverse.gain * (after - state))


def loss(prediction: Float[Array, "batch act"], action: Float[Array, "batch act"]) -> Values:
    """Return the absolute error of each action.

    Example:
        >>> loss(jnp.array([[0.5, -1.0]]), jnp.array([[0.0, 1.0]])).tolist()
        [1.25]
    """
    return jnp.mean(jnp.abs(prediction - action), axis=-1)


def make_inverse(
    net: Any,
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


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the inverse dynamics of a configuration."""
    net = networks.InverseMLP(context.shape[1], context.section.network.hidden)
    return make_inverse(net, context.section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="inverse",
        help="learn inverse dynamics, which turn planned states into actions (mazes alone)",
        make=make,
        fields=Inverse,
        network={"mlp": Layers},
        reads=Reads.PAIRS,
        label="inverse dynamics",
        colour="#594816",
        order=-10,
        deterministic=True,
        row=False,  # it acts between two states, and is no planner
        tasks=("planner",),
    ),
)
