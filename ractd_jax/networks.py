"""The networks: conditional 1-D U-Net, residual MLP, return model; and all others by this path.

Every denoising network is called as F(x, times, cond):

    x      (batch, horizon, dim)   the noisy trajectory, already scaled by c_in
    times  (batch, n_times)        c_noise of the noise level t; a student also gets that of s
    cond   (batch, cond)           the observation(s) the trajectory is conditioned on

so the number of columns of `times` is all that distinguishes a teacher from a student (RACTD,
App. A). Networks are Flax modules; only this file and the room `nn` import `flax.linen`. Their
fields have the published values as defaults, and a field that cannot work raises an
`errors.FieldError`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from ractd_jax.nn import shapes
from ractd_jax.nn.activations import mish
from ractd_jax.nn.blocks import Condition, ConvBlock, FilmResidualBlock
from ractd_jax.nn.denoising_mlp import Bottleneck, FourierMLP, StepMLP
from ractd_jax.nn.layers import Cond, Conv1d, Dense, Film, Noisy, Times
from ractd_jax.nn.mlp import MLP, GaussianPolicy, InverseMLP, init_twins, twins
from ractd_jax.nn.precision import InPrecision, cast_weights, in_precision
from ractd_jax.nn.value_unet import ValueUnet1D

__all__ = [
    "LAST_LAYERS",
    "MLP",
    "Bottleneck",
    "ConditionalUnet1D",
    "FourierMLP",
    "GaussianPolicy",
    "InPrecision",
    "InverseMLP",
    "ResidualMLP",
    "ReturnMLP",
    "StepMLP",
    "ValueUnet1D",
    "cast_weights",
    "check",
    "in_precision",
    "init_twins",
    "twins",
]

LAST_LAYERS = ("output", "final_conv")  # what a denoising network calls the layer that answers

# ---- denoising networks --------------------------------------------------------------------------


class ConditionalUnet1D(nn.Module):
    """The published network: a U-Net along the horizon.

    Source: Chi et al. 2023, arXiv:2303.04137; sizes of RACTD, Tables 6 and 7.

    Attributes:
        down_dims: channels of each resolution; the horizon is a multiple of 2^(levels - 1).
        embed_dim: size of the embedding of one noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation.
        dropout: dropout in the down and up blocks.
        mid_dropout: dropout in the two middle blocks. The published code never passes its setting
            to them, so that they run at 0.2 in teacher and student alike.

    Example:
        The published teacher on Hopper has 248 million parameters; nothing is allocated here.

        >>> import jax
        >>> net = ConditionalUnet1D()
        >>> inputs = jnp.zeros((1, 16, 3)), jnp.zeros((1, 1)), jnp.zeros((1, 11))
        >>> params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
        >>> sum(array.size for array in jax.tree.leaves(params))
        248046211
    """

    down_dims: Sequence[int] = (512, 1024, 2048)
    embed_dim: int = 128
    width: int = 5
    groups: int = 8
    dropout: float = 0.0
    mid_dropout: float = 0.0

    def __post_init__(self):
        shapes.check_fields(self)
        shapes.check_width(self.width)
        shapes.check_groups(self.down_dims, self.groups)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        dim, dims = x.shape[-1], tuple(self.down_dims)
        c = Condition(self.embed_dim, name="condition")(times, cond)

        def residual(h: Array, features: int, name: str, dropout: float) -> Array:
            block = FilmResidualBlock(features, self.width, self.groups, dropout, name=name)
            return block(h, c, train=train)

        skips = []
        for i, features in enumerate(dims):
            x = residual(x, features, f"down{i}_block0", self.dropout)
            x = residual(x, features, f"down{i}_block1", self.dropout)
            skips.append(x)
            if i < len(dims) - 1:
                x = Conv1d(features, 3, stride=2, name=f"down{i}_sample")(x)
        for j in range(2):
            x = residual(x, dims[-1], f"mid_block{j}", self.mid_dropout)
        for i, features in enumerate(reversed(dims[:-1])):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = residual(x, features, f"up{i}_block0", self.dropout)
            x = residual(x, features, f"up{i}_block1", self.dropout)
            x = Conv1d(features, 4, transpose=True, name=f"up{i}_sample")(x)
        x = ConvBlock(dims[0], self.width, self.groups, name="final_block")(x)
        return Conv1d(dim, 1, name="final_conv")(x)


class ResidualMLP(nn.Module):
    """A residual MLP over the flattened trajectory, for small machines.

    `frequencies` is for long plans. A plan of some hundred steps has more numbers than the hidden
    layers have units, so the hidden layers cannot remove the noise of every number. But plans are
    smooth: their cosine transform along the horizon fills the lowest few frequencies, and as it is
    orthogonal, white noise stays white. So the hidden layers see the lowest frequencies alone. A
    skip connection scales every frequency by a factor that depends on the noise level and the
    condition, the skip gain, which removes the noise of the others.

    Attributes:
        hidden: width of the residual stream.
        blocks: number of residual blocks, each FiLM-conditioned.
        embed_dim: size of the embedding of one noise level.
        dropout: dropout inside the blocks.
        frequencies: frequencies that the hidden layers see, at most the horizon; 0: no transform
            and no skip connection.

    Example:
        >>> import jax
        >>> net = ResidualMLP(hidden=16, blocks=1, embed_dim=8)
        >>> inputs = jnp.ones((2, 4, 3)), jnp.zeros((2, 1)), jnp.ones((2, 5))
        >>> variables = net.init(jax.random.key(0), *inputs)
        >>> net.apply(variables, *inputs).shape
        (2, 4, 3)
    """

    hidden: int = 256
    blocks: int = 3
    embed_dim: int = 32
    dropout: float = 0.0
    frequencies: int = 0

    def __post_init__(self):
        shapes.check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        batch, horizon, dim = x.shape
        c = Condition(self.embed_dim, name="condition")(times, cond)
        seen = min(self.frequencies, horizon) or horizon
        transform = None
        if self.frequencies:
            transform = jnp.asarray(_cosines(horizon), x.dtype)
            x = jnp.einsum("kh,bhd->bkd", transform, x)
        h = x[:, :seen].reshape(batch, seen * dim)
        h = mish(Dense(self.hidden, name="input")(jnp.concatenate([h, cond], axis=-1)))
        for i in range(self.blocks):
            scale, shift = Film(self.hidden, name=f"block{i}_film")(c)
            r = nn.LayerNorm(name=f"block{i}_norm")(h) * (1 + scale) + shift
            r = mish(Dense(self.hidden, name=f"block{i}_dense0")(r))
            r = nn.Dropout(self.dropout, deterministic=not train)(r)
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        out = Dense(seen * dim, name="output")(mish(h)).reshape(batch, seen, dim)
        if transform is not None:
            skip_gain = Dense(horizon * dim, name="skip_gain")(mish(c))
            skip_gain = skip_gain.reshape(batch, horizon, dim)
            out = skip_gain * x + jnp.pad(out, ((0, 0), (0, horizon - seen), (0, 0)))
            return jnp.einsum("kh,bkd->bhd", transform, out)
        return out


def _cosines(n: int) -> Float[np.ndarray, "{n} {n}"]:
    """Return the orthogonal matrix of the cosine transform (type II): frequency x step.

    A matrix in the place of `jax.scipy.fft.dct`: for plans of some hundred steps the product takes
    no longer on a CPU, and accelerators compute it in bfloat16 too.
    """
    return np.asarray(scipy.fft.dct(np.eye(n), axis=0, norm="ortho"))


# ---- return model --------------------------------------------------------------------------------


class ReturnMLP(nn.Module):
    """The return model R(x): residual blocks of two linear layers.

    Source: RACTD, Table 8. The published code has no level of 32.

    Attributes:
        dims: width of each level; a level is two residual blocks.
        layer_norm: normalise the hidden units, so that the model extrapolates less far from its
            data (the shortcuts stay linear, so it is no bound; not in the published model).

    Example:
        >>> import jax
        >>> net = ReturnMLP(dims=(8, 16))
        >>> x = jnp.ones((2, 5))
        >>> net.apply(net.init(jax.random.key(0), x), x).shape
        (2,)
    """

    dims: Sequence[int] = (32, 64, 128, 256)
    layer_norm: bool = False

    def __post_init__(self):
        shapes.check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, " batch"]:
        """Return the predicted (normalised) return-to-go of each row."""
        for i, features in enumerate(self.dims):
            for j in range(2):
                h = Dense(features, name=f"level{i}_block{j}_dense0")(x)
                if self.layer_norm:
                    h = nn.LayerNorm(name=f"level{i}_block{j}_norm")(h)
                h = Dense(features, name=f"level{i}_block{j}_dense1")(mish(h))
                if x.shape[-1] != features:
                    x = Dense(features, name=f"level{i}_block{j}_shortcut")(x)
                x = h + x
        return Dense(1, name="output")(x)[..., 0]


# ---- sizes ---------------------------------------------------------------------------------------


def check(net: Any, horizon: int) -> None:
    """Check that a network works, for trajectories of a horizon.

    Args:
        net: a network of this file, one `in_precision`, or another dataclass that describes a
            network by fields of the same names.
        horizon: steps of a trajectory.

    Raises:
        FieldError: a field cannot work. It is named as the dataclass names it; add the section with
            `FieldError.within`.

    Example:
        >>> check(ConditionalUnet1D(down_dims=(64, 128, 256)), horizon=16)
        >>> check(ConditionalUnet1D(down_dims=(64, 128, 256)), horizon=15)
        Traceback (most recent call last):
        ractd_jax.errors.FieldError: down_dims has 3 levels, which halve 15 steps 2 times: this \
needs a multiple of 4: 12 or 16, or fewer down_dims
    """
    if isinstance(net, InPrecision):
        net = net.net
    shapes.check_fields(net)
    if isinstance(net, ConditionalUnet1D):
        shapes.check_horizon(len(net.down_dims), horizon)
