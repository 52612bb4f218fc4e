"""What the networks are built of: activations, embeddings, linear layers, convolutions, blocks.

Initial weights follow PyTorch's defaults, with which the published models were trained.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What a denoising network is called with, see `networks`.
Noisy = Float[Array, "batch horizon dim"]
Times = Float[Array, "batch n_times"]
Cond = Float[Array, "batch cond"]


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
