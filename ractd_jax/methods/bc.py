"""Behaviour cloning: a network that gives the data's mean action in a state. The plain baseline.

Pomerleau 1991. One network call, no noise, no reward:

    L = E |pi(s) - a|^2                                                          `loss`

At its minimum pi(s) = E[a | s]: where the data does two things in a state, pi does neither. The
network is an MLP that ends in a tanh, so that actions stay in [-1, 1].

10 %-BC (Chen et al. 2021) is the same on the episodes of the largest returns, a tenth of the steps.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import iql
from ractd_jax.nn import mlp
from ractd_jax.types import Algorithm, Batch, Cond, Params, Transition, Values

Actions = Float[Array, "batch dim"]


@dataclasses.dataclass(frozen=True)
class Bc:
    """Behaviour cloning has no fields of its own."""


@dataclasses.dataclass(frozen=True)
class Layers(iql.Layers):
    """The hidden layers of the network.

    Attributes:
        hidden: width of each hidden layer.
        activation: after each, see `activations.ACTIVATIONS`.
        layer_norm: "" for none, "before" or "after" the activation.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: str = ""

    def policy(self, act_dim: int) -> mlp.MLP:
        """Return the network of pi, but for its tanh."""
        return mlp.MLP(self.hidden, act_dim, self.activation, self.layer_norm)


def predict(net: iql.PlainNetwork, params: Params, cond: Cond) -> Actions:
    """Return pi(s).

    Args:
        net: network of pi, but for its tanh.
        params: its weights.
        cond: observations.

    Example:
        >>> net, obs = Layers(hidden=(8,)).policy(3), jnp.ones((5, 11))
        >>> predict(net, net.init(jax.random.key(0), obs)["params"], obs).shape
        (5, 3)
    """
    return jnp.tanh(net.apply({"params": params}, cond))


def loss(prediction: Actions, action: Actions) -> Values:
    """Return the squared error of each action, its mean over the action's numbers.

    Example:
        >>> loss(jnp.array([[0.5, -0.5]]), jnp.array([[0.5, 0.5]])).tolist()
        [0.5]
    """
    return jnp.mean((prediction - action) ** 2, axis=-1)


def make_bc(
    net: iql.PlainNetwork,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the cloning policy, which acts the same whatever its keys.

    Args:
        net: network of pi, but for its tanh.
        optimiser: how to train.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.

    Example:
        >>> optimiser, net = train_state.Optimiser(steps=10), Layers(hidden=(8,)).policy(3)
        >>> algorithm = make_bc(net, optimiser, shape=(1, 3), cond_dim=11)
        >>> params = algorithm.init(jax.random.key(0)).params
        >>> keys = jax.random.split(jax.random.key(1), 5)
        >>> algorithm.act(params, jnp.zeros((5, 11)), keys).shape
        (5, 1, 3)
    """
    del shape  # of the answer, which the network knows

    def init(key):
        return train_state.create(net.init(key, jnp.zeros((1, cond_dim)))["params"], optimiser)

    def update(state, batch: Batch | Transition, key):
        del key  # nothing random here

        def loss_fn(params):
            return jnp.mean(loss(predict(net, params, batch.cond), batch.x[:, 0]))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        del keys
        return predict(net, params, cond)[:, None]

    return Algorithm(init, update, act)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the policy of a configuration."""
    net = context.section.network.policy(context.shape[1])
    return make_bc(net, optimiser, **context.sizes)


BC = Method(
    name="bc",
    help="clone the data's mean action with one network call: the plain baseline",
    make=make,
    fields=Bc,
    network={"mlp": Layers},
    reads=Reads.TRANSITIONS,
    label="BC",
    colour="#afaf59",
    order=5,
    deterministic=True,
    tasks=("policy",),
)
BC10 = dataclasses.replace(
    BC,
    name="bc10",
    help="clone the best tenth of the episodes with one network call",
    label="10 %-BC",
    colour="#6b6b1f",
    order=6,
)
METHODS = (BC, BC10)
