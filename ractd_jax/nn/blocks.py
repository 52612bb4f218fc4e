"""Blocks of the U-Nets, and the embedding of what a denoising network is conditioned on."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax.nn.activations import mish
from ractd_jax.nn.dropout import Dropout, random_bits
from ractd_jax.nn.embeddings import sinusoidal
from ractd_jax.nn.group_norm import GroupNorm
from ractd_jax.nn.layers import Conv1d, Dense, Film


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish.

    Attributes:
        features: channels it returns.
        width: kernel width.
        groups: groups of the normalisation.
    """

    features: int
    width: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c_in"]) -> Float[Array, "batch length _"]:
        """Return the block's output for x."""
        x = Conv1d(self.features, self.width, name="conv")(x)
        return mish(GroupNorm(self.groups, name="norm")(x))


class FilmResidualBlock(nn.Module):
    """Two convolution blocks with a shortcut; the condition scales and shifts in between (FiLM).

    Attributes:
        features: channels it returns.
        width: kernel width.
        groups: groups of the normalisations.
        dropout: rate of the dropout after each block.
    """

    features: int
    width: int
    groups: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length c_in"], cond: Float[Array, "batch cond"], *, train: bool
    ) -> Float[Array, "batch length features"]:
        """Return the block's output; `train` switches dropout on (needs the rng "dropout")."""
        low = high = None
        if train and self.dropout:  # one half of the random bits for each dropout
            bits = random_bits(self.make_rng("dropout"), (*x.shape[:2], self.features))
            low, high = bits & 0xFFFF, bits >> 16
        h = ConvBlock(self.features, self.width, self.groups, name="block0")(x)
        h = Dropout(self.dropout)(h, low)
        scale, shift = Film(self.features, name="film")(mish(cond))
        h = scale[:, None] * h + shift[:, None]
        h = ConvBlock(self.features, self.width, self.groups, name="block1")(h)
        if x.shape[-1] != self.features:
            x = Conv1d(self.features, 1, name="shortcut")(x)
        return Dropout(self.dropout)(h + x, high)


class Condition(nn.Module):
    """Embed every column of `times` with one shared MLP and append the observation.

    Attributes:
        embed_dim: size of the embedding of one noise level.
    """

    embed_dim: int

    @nn.compact
    def __call__(
        self, times: Float[Array, "batch n_times"], cond: Float[Array, "batch cond"]
    ) -> Float[Array, "batch _"]:
        """Return (batch, n_times * embed_dim + cond)."""
        # Sines of numbers up to a thousand need float32, whatever the network computes in.
        e = sinusoidal(times, self.embed_dim).astype(cond.dtype)
        e = Dense(4 * self.embed_dim, name="dense0")(e)
        e = Dense(self.embed_dim, name="dense1")(mish(e))
        return jnp.concatenate([e.reshape(e.shape[0], -1), cond], axis=-1)
