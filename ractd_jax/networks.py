"""The networks: conditional 1-D U-Net, residual-MLP denoiser, return model.

Every denoising network has the same face, F(x, times, cond):

    x      (batch, horizon, dim)   the noisy trajectory, already scaled by c_in
    times  (batch, n_times)        c_noise of the noise level t; a student also gets that of s
    cond   (batch, cond)           the observation(s) the trajectory is conditioned on

so the number of columns of `times` is all that tells a teacher from a student (RACTD, App. A).
This is the only file that knows Flax. Initial weights follow PyTorch's defaults, with which the
published models were trained.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# ---- building blocks -------------------------------------------------------------------------


@jax.custom_jvp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x tanh(softplus(x)) (Misra, 2019)."""
    return x * _gate(x)[0]


def _gate(x: Array) -> tuple[Array, Array]:
    """Return (tanh(softplus(x)), e^x), by one exponential in the place of three functions.

    With e = e^x, tanh(ln(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1). On a CPU the textbook form
    takes as long as the matrix product before it. From x = 20 on the gate is 1 in float32.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2)
    return n / (n + 2), e


@mish.defjvp
def _mish_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    gate, e = _gate(x)
    return x * gate, dx * (gate + x * (1 - gate**2) * e / (1 + e))


def sinusoidal(x: Float[Array, "..."], dim: int) -> Float[Array, "... {dim}"]:
    """Embed a scalar as sines, then cosines, of `dim`/2 frequencies from 1 down to 1/10000."""
    frequencies = jnp.exp(-jnp.arange(dim // 2) * (jnp.log(10_000.0) / (dim // 2 - 1)))
    angles = jnp.multiply.outer(x, frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _torch_uniform(fan_in: int):
    """Initialise as PyTorch does by default: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Dense(nn.Module):
    """A linear layer with PyTorch's initial weights."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... fan_in"]) -> Float[Array, "... features"]:
        init = _torch_uniform(x.shape[-1])
        fields = {"kernel_init": init, "bias_init": init, "name": "linear"}
        return nn.Dense(self.features, self.bias, **fields)(x)


def _columns(x: Array, width: int, stride: int) -> Array:
    """Lay the `width` shifted copies of x (batch, length, c) side by side: (..., width * c)."""
    last = x.shape[1] - width
    return jnp.concatenate([x[:, j : j + last + 1 : stride] for j in range(width)], axis=-1)


def conv1d(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "width c_in c_out"],
    *,
    stride: int = 1,
    as_product: bool | None = None,
) -> Float[Array, "batch length_out c_out"]:
    """Convolve along the second axis with zero padding width // 2 on both sides.

    Args:
        x: input.
        kernel: weights; the layout does not depend on how the convolution is computed.
        stride: step between outputs.
        as_product: compute it as one matrix product over the shifted copies of x, which on CPUs
            is many times faster than XLA's convolution; None decides by the default backend.
    """
    width, c_in, c_out = kernel.shape
    pad = width // 2
    if as_product is None:
        as_product = jax.default_backend() == "cpu"
    if as_product:
        padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0)))
        return _columns(padded, width, stride) @ kernel.reshape(width * c_in, c_out)
    return jax.lax.conv_general_dilated(
        x, kernel, (stride,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def conv1d_transpose(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "4 c_in c_out"],
    *,
    as_product: bool | None = None,
) -> Float[Array, "batch 2*length c_out"]:
    """Double the length: transposed convolution of width 4, stride 2, padding 1.

    Output 2m sees x[m] through tap 1 and x[m-1] through tap 3; output 2m+1 sees x[m] through
    tap 2 and x[m+1] through tap 0. That is two matrix products whose results interleave.
    """
    batch, length, _ = x.shape
    c_out = kernel.shape[-1]
    if as_product is None:
        as_product = jax.default_backend() == "cpu"
    if as_product:
        pairs = _columns(jnp.pad(x, ((0, 0), (1, 1), (0, 0))), 2, 1)  # (x[m-1], x[m]), m = 0..L
        even = pairs[:, :-1] @ jnp.concatenate([kernel[3], kernel[1]])
        odd = pairs[:, 1:] @ jnp.concatenate([kernel[2], kernel[0]])
        return jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, c_out)
    return jax.lax.conv_general_dilated(
        x, kernel[::-1], (1,), [(2, 2)], lhs_dilation=(2,), dimension_numbers=("NWC", "WIO", "NWC")
    )


class Conv1d(nn.Module):
    """`conv1d` (or `conv1d_transpose`) with a bias."""

    features: int
    width: int
    stride: int = 1
    transpose: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c_in"]) -> Float[Array, "batch _ features"]:
        c_in = x.shape[-1]
        # PyTorch counts the fan-in of a transposed convolution over its outputs.
        init = _torch_uniform(self.width * (self.features if self.transpose else c_in))
        kernel = self.param("kernel", init, (self.width, c_in, self.features))
        bias = self.param("bias", init, (self.features,))
        y = conv1d_transpose(x, kernel) if self.transpose else conv1d(x, kernel, stride=self.stride)
        return y + bias[None, None]


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    features: int
    width: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c_in"]) -> Float[Array, "batch length _"]:
        x = Conv1d(self.features, self.width, name="conv")(x)
        norm = nn.GroupNorm(self.groups, epsilon=1e-5, use_fast_variance=False, name="norm")
        return mish(norm(x))


class FilmResidualBlock(nn.Module):
    """Two convolution blocks with a shortcut; the condition scales and shifts in between (FiLM)."""

    features: int
    width: int
    groups: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length c_in"], cond: Float[Array, "batch cond"], *, train: bool
    ) -> Float[Array, "batch length features"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        h = drop(ConvBlock(self.features, self.width, self.groups, name="block0")(x))
        scale, shift = jnp.split(Dense(2 * self.features, name="film")(mish(cond)), 2, axis=-1)
        h = scale[:, None] * h + shift[:, None]
        h = ConvBlock(self.features, self.width, self.groups, name="block1")(h)
        if x.shape[-1] != self.features:
            x = Conv1d(self.features, 1, name="shortcut")(x)
        return drop(h + x)


class Condition(nn.Module):
    """Embed every column of `times` with one shared MLP and append the observation."""

    embed_dim: int

    @nn.compact
    def __call__(
        self, times: Float[Array, "batch n_times"], cond: Float[Array, "batch cond"]
    ) -> Float[Array, "batch _"]:
        # Sines of numbers up to a thousand: only they need float32, whatever the trunk computes in.
        e = sinusoidal(times, self.embed_dim).astype(cond.dtype)
        e = Dense(4 * self.embed_dim, name="dense0")(e)
        e = Dense(self.embed_dim, name="dense1")(mish(e))
        return jnp.concatenate([e.reshape(e.shape[0], -1), cond], axis=-1)


# ---- denoising networks ----------------------------------------------------------------------


class ConditionalUnet1D(nn.Module):
    """The published network: a U-Net along the horizon (Chi et al., 2023; RACTD Tables 6 and 7).

    Attributes:
        down_dims: channels of each resolution; the horizon must divide by 2^(levels - 1).
        embed_dim: size of the embedding of one noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation.
        dropout: dropout in the down and up blocks.
        mid_dropout: dropout in the two middle blocks. The published code never passes its setting
            to them, so that they run at 0.2 in teacher and student alike.
    """

    down_dims: Sequence[int]
    embed_dim: int = 128
    width: int = 5
    groups: int = 8
    dropout: float = 0.0
    mid_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch horizon dim"],
        times: Float[Array, "batch n_times"],
        cond: Float[Array, "batch cond"],
        *,
        train: bool = False,
    ) -> Float[Array, "batch horizon dim"]:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        dim, dims = x.shape[-1], tuple(self.down_dims)
        c = Condition(self.embed_dim, name="condition")(times, cond)

        def residual(h, features, name, dropout):
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


class ValueUnet1D(nn.Module):
    """The first half of a U-Net, and two linear layers: one number for a noisy plan.

    Diffuser's value (Janner et al. 2022), with the blocks of `ConditionalUnet1D`.

    Attributes:
        down_dims: channels of each resolution; each halves the horizon, as do two more blocks.
        embed_dim: size of the embedding of the noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation.
    """

    down_dims: Sequence[int]
    embed_dim: int = 32
    width: int = 5
    groups: int = 8

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch horizon dim"],
        times: Float[Array, "batch n_times"],
        cond: Float[Array, "batch cond"],
        *,
        train: bool = False,
    ) -> Float[Array, " batch"]:
        """Return V(x, times, cond)."""
        c = Condition(self.embed_dim, name="condition")(times, cond)
        last = self.down_dims[-1]
        levels = [(features, 2) for features in self.down_dims] + [(last // 2, 1), (last // 4, 1)]
        for i, (features, blocks) in enumerate(levels):
            for j in range(blocks):
                groups = min(self.groups, features)
                block = FilmResidualBlock(features, self.width, groups, 0.0, name=f"{i}_block{j}")
                x = block(x, c, train=train)
            x = Conv1d(features, 3, stride=2, name=f"{i}_sample")(x)
        x = jnp.concatenate([x.reshape(len(x), -1), c], axis=-1)
        x = mish(Dense(x.shape[-1] // 2, name="dense")(x))
        return Dense(1, name="output")(x)[..., 0]


class ResidualMLP(nn.Module):
    """A residual MLP over the flattened trajectory, for short horizons on small machines.

    Attributes:
        hidden: width of the residual stream.
        blocks: number of residual blocks, each FiLM-conditioned.
        embed_dim: size of the embedding of one noise level.
        dropout: dropout inside the blocks.
    """

    hidden: int = 256
    blocks: int = 3
    embed_dim: int = 32
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch horizon dim"],
        times: Float[Array, "batch n_times"],
        cond: Float[Array, "batch cond"],
        *,
        train: bool = False,
    ) -> Float[Array, "batch horizon dim"]:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        batch, horizon, dim = x.shape
        c = Condition(self.embed_dim, name="condition")(times, cond)
        x = jnp.concatenate([x.reshape(batch, horizon * dim), cond], axis=-1)
        h = mish(Dense(self.hidden, name="input")(x))
        for i in range(self.blocks):
            scale, shift = jnp.split(Dense(2 * self.hidden, name=f"block{i}_film")(c), 2, axis=-1)
            r = nn.LayerNorm(name=f"block{i}_norm")(h) * (1 + scale) + shift
            r = mish(Dense(self.hidden, name=f"block{i}_dense0")(r))
            r = nn.Dropout(self.dropout, deterministic=not train)(r)
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        return Dense(horizon * dim, name="output")(mish(h)).reshape(batch, horizon, dim)


PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class InPrecision:
    """A denoising network that computes in another type of number; all around it is float32.

    First weights, gradients and the optimiser's own weights stay float32, and so do noise levels
    and the embedding's sines. Weights that come in that type already are taken as they are.

    Attributes:
        net: the network.
        dtype: "bfloat16".
    """

    net: nn.Module
    dtype: str

    @property
    def embed_dim(self) -> int:
        return self.net.embed_dim

    def init(self, *args, **kwargs) -> Any:
        """Return first weights, in float32."""
        return self.net.init(*args, **kwargs)

    def apply(self, variables, x, times, cond, **kwargs) -> Float[Array, "batch horizon dim"]:
        """Return F(x, times, cond) in float32."""
        variables, x, cond = jax.tree.map(lambda a: a.astype(self.dtype), (variables, x, cond))
        return self.net.apply(variables, x, times, cond, **kwargs).astype(jnp.float32)


# ---- return model ----------------------------------------------------------------------------


class ReturnMLP(nn.Module):
    """The return model R(x): residual blocks of two linear layers (RACTD Table 8).

    Attributes:
        dims: width of each level; a level is two residual blocks.
        layer_norm: normalise the hidden units, which tames what the model says far from its data
            (the shortcuts stay linear, so it is no bound; not in the published model).
    """

    dims: Sequence[int] = (64, 128, 256)
    layer_norm: bool = False

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


# ---- inverse dynamics ------------------------------------------------------------------------


class InverseMLP(nn.Module):
    """I(s, change): a linear map plus a small MLP.

    Away from walls the map is linear but for the clipping of speeds, so the linear path alone is
    nearly right and the hidden layers learn the rest.

    Attributes:
        act_dim: size of an action.
        hidden: width of each hidden layer.
    """

    act_dim: int
    hidden: Sequence[int] = (64, 64)

    @nn.compact
    def __call__(
        self, state: Float[Array, "batch dim"], change: Float[Array, "batch dim"]
    ) -> Float[Array, "batch act"]:
        x = jnp.concatenate([state, change], axis=-1)
        linear = Dense(self.act_dim, name="linear")(x)
        for i, features in enumerate(self.hidden):
            x = mish(Dense(features, name=f"dense{i}")(x))
        return linear + Dense(self.act_dim, name="output")(x)
