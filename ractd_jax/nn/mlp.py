"""The networks of the methods that generate single actions: critics, values, policies.

Denoising networks keep the face of `networks`: F(x, times, cond) with x (batch, 1, dim).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax.nn.layers import Cond, Dense, Noisy, Times, mish, sinusoidal

FEATURES_SEED = 0  # of the frequencies of `fourier`, which are not trained

ACTIVATIONS = {"mish": mish, "relu": nn.relu, "gelu": nn.gelu}


class MLP(nn.Module):
    """Linear layers, each followed by an activation and, if asked for, a layer normalisation.

    Attributes:
        hidden: width of each hidden layer.
        out: numbers it returns.
        activation: see `ACTIVATIONS`.
        layer_norm: "" for none, "before" or "after" the activation.
    """

    hidden: Sequence[int]
    out: int
    activation: str = "mish"
    layer_norm: str = "before"

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch out"]:
        for i, features in enumerate(self.hidden):
            x = Dense(features, name=f"dense{i}")(x)
            if self.layer_norm == "before":
                x = nn.LayerNorm(name=f"norm{i}")(x)
            x = ACTIVATIONS[self.activation](x)
            if self.layer_norm == "after":
                x = nn.LayerNorm(name=f"norm{i}")(x)
        return Dense(self.out, name="output")(x)


def init_twins(net: MLP, key, *inputs: Float[Array, "batch _"], members: int = 2):
    """Return the weights of independent networks, stacked along a first axis."""
    x = jnp.concatenate(inputs, axis=-1)
    return jax.vmap(lambda k: net.init(k, x)["params"])(jax.random.split(key, members))


def twins(net: MLP, params, *inputs: Float[Array, "batch _"]) -> Float[Array, "ens batch"]:
    """Return the number that each of several networks gives for the same inputs."""
    x = jnp.concatenate(inputs, axis=-1)
    return jax.vmap(lambda p: net.apply({"params": p}, x)[:, 0])(params)


class GaussianPolicy(nn.Module):
    """A diagonal Gaussian whose mean lies in (-1, 1) and whose spread is the same everywhere."""

    hidden: Sequence[int]
    dim: int
    activation: str = "relu"

    @nn.compact
    def __call__(
        self, cond: Float[Array, "batch cond"]
    ) -> tuple[Float[Array, "batch dim"], Float[Array, " dim"]]:
        """Return mean and logarithm of the standard deviation."""
        h = MLP(self.hidden, self.dim, self.activation, "", name="mean")(cond)
        log_std = self.param("log_std", nn.initializers.zeros, (self.dim,))
        return jnp.tanh(h), jnp.clip(log_std, -5.0, 2.0)


def fourier(t: Float[Array, "..."], features: int, scale: float) -> Float[Array, "... {features}"]:
    """Embed a scalar as sines, then cosines, of fixed frequencies drawn from N(0, scale^2).

    The frequencies are the same in every run and model: random ones could not be told apart from
    weights, and a student starts from its teacher's.
    """
    draw = jax.random.normal(jax.random.key(FEATURES_SEED), (features // 2,))
    angles = jnp.multiply.outer(t, 2 * jnp.pi * scale * draw)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class StepMLP(nn.Module):
    """Diffusion-QL's denoising network: an MLP over action, embedded step and observation.

    Attributes:
        hidden: width of each hidden layer.
        embed_dim: size of the embedding of a step.
        activation: see `ACTIVATIONS`.
    """

    hidden: Sequence[int] = (256, 256, 256)
    embed_dim: int = 16
    activation: str = "mish"

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond) -> Noisy:
        """Return F(x, times, cond)."""
        e = Dense(2 * self.embed_dim, name="embed0")(sinusoidal(times[:, 0], self.embed_dim))
        e = Dense(self.embed_dim, name="embed1")(mish(e))
        h = jnp.concatenate([x[:, 0], e, cond], axis=-1)
        return MLP(self.hidden, x.shape[-1], self.activation, "", name="mlp")(h)[:, None]


class FourierMLP(nn.Module):
    """The denoiser of IDQL: a residual MLP that sees the noise level through Fourier features.

    Source: Hansen-Estruch et al. 2023, with CleanDiffuser's time embedding, whose frequencies are
    drawn once and never trained. About 1.6 M weights at its defaults.

    Attributes:
        hidden: width of the residual stream; its blocks are four times as wide inside.
        blocks: number of residual blocks.
        embed_dim: size of the embedding of one noise level.
        scale: standard deviation of the frequencies.
        dropout: dropout at the entry of each block.
    """

    hidden: int = 256
    blocks: int = 3
    embed_dim: int = 64
    scale: float = 16.0
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        batch, horizon, dim = x.shape
        # `times` are 250 ln t; this network was published with ln(t) / 4.
        # Its sines are float32 whatever the trunk computes in.
        e = fourier(times / 1000, self.embed_dim, self.scale).astype(cond.dtype)
        e = mish(Dense(2 * self.embed_dim, name="time0")(e))
        e = Dense(self.embed_dim, name="time1")(e).reshape(batch, -1)
        h = jnp.concatenate([x.reshape(batch, horizon * dim), e, cond], axis=-1)
        h = Dense(self.hidden, name="input")(h)
        for i in range(self.blocks):
            r = nn.Dropout(self.dropout, deterministic=not train)(h)
            r = nn.LayerNorm(epsilon=1e-5, name=f"block{i}_norm")(r)
            r = mish(Dense(4 * self.hidden, name=f"block{i}_dense0")(r))
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        return Dense(horizon * dim, name="output")(h).reshape(batch, horizon, dim)


# ---- EDA's network -------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A scalar f(x, t | s), of which only the slope in x is trained: EDA's bottleneck.

    Chen et al. 2024, as published: inputs embedded side by side, residual blocks of two layers,
    and as many outputs as x has numbers, which are summed, without a bias, as nothing would train
    it. Everything is smooth in x.

    Attributes:
        hidden: width; an eighth of it is the time's, half of it the trajectory's.
        blocks: residual blocks.
        widening: by how much each block is wider inside.
        embed_dim: features of the time.
        scale: of their frequencies.
        dropout: in front of each block.
    """

    hidden: int = 256
    blocks: int = 3
    widening: int = 4
    embed_dim: int = 32
    scale: float = 30.0
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Noisy, times: Times, cond: Cond, *, train: bool = False
    ) -> Float[Array, " batch"]:
        """Return f(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        x = x.reshape(x.shape[0], -1)
        eighth = self.hidden // 8
        t = fourier(times[:, 0], self.embed_dim, self.scale)
        t = nn.silu(Dense(self.embed_dim, name="embedding")(t))
        parts = [
            Dense(4 * eighth, name="x")(x),
            Dense(eighth, name="time")(t),
            Dense(3 * eighth, name="cond")(cond),
        ]
        h = Dense(self.hidden, name="input")(jnp.concatenate(parts, axis=-1))
        for i in range(self.blocks):
            r = nn.Dropout(self.dropout, deterministic=not train)(h)
            r = nn.LayerNorm(name=f"block{i}_norm")(r)
            r = nn.silu(Dense(self.widening * self.hidden, name=f"block{i}_dense0")(r))
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        return jnp.sum(Dense(x.shape[-1], bias=False, name="output")(nn.silu(h)), axis=-1)
