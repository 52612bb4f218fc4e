"""Multilayer perceptrons: critics, policies of one action, inverse dynamics."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ractd_jax.nn import shapes
from ractd_jax.nn.activations import ACTIVATIONS, mish
from ractd_jax.nn.layers import Dense
from ractd_jax.types import Params


class MLP(nn.Module):
    """Linear layers, each followed by an activation and, if asked for, a layer normalisation.

    Attributes:
        hidden: width of each hidden layer; () for a linear map.
        out: numbers it returns.
        activation: see `ACTIVATIONS`.
        layer_norm: "" for none, "before" or "after" the activation.

    Example:
        >>> net = MLP(hidden=(8, 8), out=2)
        >>> x = jnp.ones((3, 5))
        >>> net.apply(net.init(jax.random.key(0), x), x).shape
        (3, 2)
    """

    hidden: Sequence[int] = (256, 256)
    out: int = 1
    activation: str = "mish"
    layer_norm: str = "before"

    def __post_init__(self):
        shapes.check_fields(self, may_be_empty=("hidden",))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch out"]:
        """Return the last layer's output for each row."""
        for i, features in enumerate(self.hidden):
            x = Dense(features, name=f"dense{i}")(x)
            if self.layer_norm == "before":
                x = nn.LayerNorm(name=f"norm{i}")(x)
            x = ACTIVATIONS[self.activation](x)
            if self.layer_norm == "after":
                x = nn.LayerNorm(name=f"norm{i}")(x)
        return Dense(self.out, name="output")(x)


def init_twins(
    net: MLP, key: Key[Array, ""], *inputs: Float[Array, "batch _"], members: int = 2
) -> Params:
    """Return the first weights of independent networks, stacked along a first axis.

    Args:
        net: the network that all of them are.
        key: random key.
        *inputs: arrays whose rows, side by side, are what the networks see.
        members: how many networks; two for twin critics.
    """
    x = jnp.concatenate(inputs, axis=-1)
    return jax.vmap(lambda k: net.init(k, x)["params"])(jax.random.split(key, members))


def twins(net: MLP, params: Params, *inputs: Float[Array, "batch _"]) -> Float[Array, "ens batch"]:
    """Return the number that each of several networks gives for the same inputs.

    Args:
        net: the network that all of them are.
        params: as `init_twins` gives them.
        *inputs: arrays whose rows, side by side, are what the networks see.

    Example:
        >>> net, obs, action = MLP(hidden=(8,)), jnp.ones((3, 5)), jnp.ones((3, 2))
        >>> params = init_twins(net, jax.random.key(0), obs, action)
        >>> twins(net, params, obs, action).shape
        (2, 3)
    """
    x = jnp.concatenate(inputs, axis=-1)
    return jax.vmap(lambda p: jnp.asarray(net.apply({"params": p}, x))[:, 0])(params)


class GaussianPolicy(nn.Module):
    """A diagonal Gaussian whose mean lies in (-1, 1) and whose spread is the same everywhere.

    Attributes:
        hidden: width of each hidden layer of the mean; () for a linear map.
        dim: size of an action.
        activation: see `ACTIVATIONS`.
    """

    hidden: Sequence[int]
    dim: int
    activation: str = "relu"

    def __post_init__(self):
        shapes.check_fields(self, may_be_empty=("hidden",))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, cond: Float[Array, "batch cond"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, " dim"]]:
        """Return mean and logarithm of the standard deviation."""
        h = MLP(self.hidden, self.dim, self.activation, "", name="mean")(cond)
        log_std = self.param("log_std", nn.initializers.zeros, (self.dim,))
        return jnp.tanh(h), jnp.clip(log_std, -5.0, 2.0)


class InverseMLP(nn.Module):
    """Inverse dynamics, the action that makes a change of state: a linear map plus a small MLP.

    Away from walls a maze's dynamics are linear but for the clipping of speeds, so the linear map
    alone is nearly right and the hidden layers learn the rest.

    Attributes:
        act_dim: size of an action.
        hidden: width of each hidden layer; () for the linear map alone.

    Example:
        >>> net = InverseMLP(act_dim=2, hidden=(8,))
        >>> state, change = jnp.ones((3, 4)), jnp.ones((3, 4))
        >>> net.apply(net.init(jax.random.key(0), state, change), state, change).shape
        (3, 2)
    """

    act_dim: int
    hidden: Sequence[int] = (64, 64)

    def __post_init__(self):
        shapes.check_fields(self, may_be_empty=("hidden",))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, state: Float[Array, "batch dim"], change: Float[Array, "batch dim"]
    ) -> Float[Array, "batch act"]:
        """Return the action that leads from each state to state + change."""
        x = jnp.concatenate([state, change], axis=-1)
        linear = Dense(self.act_dim, name="linear")(x)
        for i, features in enumerate(self.hidden):
            x = mish(Dense(features, name=f"dense{i}")(x))
        return linear + Dense(self.act_dim, name="output")(x)
