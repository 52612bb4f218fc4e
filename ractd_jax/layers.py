"""What the networks are built of: activations, embeddings, linear layers, convolutions, blocks.

Initial weights follow PyTorch's defaults, with which the published models were trained.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

# What a denoising network is called with, see `networks`.
Noisy = Float[Array, "batch horizon dim"]
Times = Float[Array, "batch n_times"]
Cond = Float[Array, "batch cond"]

BANDED = 128  # examples from which a banded matrix, larger than the kernel, is worth making


@jax.custom_vjp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x tanh(softplus(x)) (Misra, 2019).

    With e = e^x, tanh(ln(1 + e)) = n / (n + 2), where n = e (e + 2): one exponential in the place
    of three functions. On a CPU the textbook form takes as long as the matrix product before it.
    """
    e = _exp(x)
    return x / (1 + 2 / (e * (e + 2)))  # n stands there once, so that XLA makes this one loop


def _exp(x: Array) -> Array:
    return jnp.exp(jnp.minimum(x, 10.0))  # from there on the factor of x is 1 in float32


def _mish_backward(x, dy):
    # The barrier hides that e^x was known before: keeping it takes longer than working it out.
    x = jax.lax.optimization_barrier(jnp.minimum(x, 10.0))
    e = _exp(x)
    numerator = 4 * (x + 1) + e * (4 * x + 6 + e * (e + 4))
    return (dy * e * numerator / (e * (e + 2) + 2) ** 2,)


mish.defvjp(lambda x: (mish(x), x), _mish_backward)


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


def _columns(x: Array, width: int, stride: int = 1, pad: int = 0) -> Array:
    """Lay `width` neighbours in x (batch, length, c) side by side: (batch, _, width * c).

    Rows lie one after the other in memory, so each window is one slice of a flattened example.
    """
    batch, length, c = x.shape
    if width == 1:
        return x[:, ::stride]
    flat = jnp.pad(x, ((0, 0), (pad, pad), (0, 0))).reshape(batch, -1)
    starts = range(0, length + 2 * pad - width + 1, stride)
    return jnp.stack([flat[:, i * c : (i + width) * c] for i in starts], axis=1)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """Convolve with stride 1 as one product, whose gradients are products over one set of columns.

    With dy's shifted copies beside each other, dx is their product with the kernel turned round and
    dK that of x with them. What automatic differentiation makes of the forward product instead,
    slices padded and added up, takes a third of an update on a CPU.
    """
    width, c_in, c_out = kernel.shape
    return _columns(x, width, pad=width // 2) @ kernel.reshape(width * c_in, c_out)


def _product_forward(x, kernel):
    return _product(x, kernel), (x, kernel)


def _product_backward(saved, dy):
    x, kernel = saved
    width, c_in, c_out = kernel.shape
    columns = _columns(dy, width, pad=width // 2)
    turned = kernel[::-1].swapaxes(1, 2).reshape(width * c_out, c_in)
    dk = jnp.einsum("blc,blk->ck", x, columns).reshape(c_in, width, c_out)
    return columns @ turned, dk[:, ::-1].swapaxes(0, 1)


_product.defvjp(_product_forward, _product_backward)


def _banded(kernel: Array, length: int) -> Array:
    """Return the matrix (length c_in, length c_out) by which a convolution of stride 1 multiplies.

    Block (i, o) is the tap through which output o sees input i, zero where there is none.
    """
    width, c_in, c_out = kernel.shape
    around = length - 1 - width // 2
    taps = jnp.pad(kernel[::-1], ((around, around), (0, 0), (0, 0))).swapaxes(0, 1)
    rows = [taps[:, length - 1 - i : 2 * length - 1 - i] for i in range(length)]
    return jnp.concatenate([row.reshape(c_in, length * c_out) for row in rows])


@jax.custom_vjp
def _banded_product(x: Array, kernel: Array) -> Array:
    """Convolve with stride 1 by the banded matrix; the gradient of a tap is a sum over a band."""
    batch, length, _ = x.shape
    return (x.reshape(batch, -1) @ _banded(kernel, length)).reshape(batch, length, -1)


def _banded_forward(x, kernel):
    return _banded_product(x, kernel), (x, kernel)


def _banded_backward(saved, dy):
    x, kernel = saved
    (batch, length, c_in), (width, _, c_out) = x.shape, kernel.shape
    flat = dy.reshape(batch, -1)
    dx = (flat @ _banded(kernel, length).T).reshape(x.shape)
    blocks = (x.reshape(batch, -1).T @ flat).reshape(length, c_in, length, c_out)

    def band(tap):  # what output o sees through it is input o + before
        before = tap - width // 2
        return sum(
            blocks[o + before, :, o] for o in range(max(0, -before), length - max(0, before))
        )

    return dx, jnp.stack([band(tap) for tap in range(width)])


_banded_product.defvjp(_banded_forward, _banded_backward)


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
        kernel: weights, of odd width; their layout does not depend on how it is computed.
        stride: step between outputs.
        as_product: compute it as one matrix product, which on CPUs is many times faster than XLA's
            convolution: over the shifted copies of x or, where most of them would be padding and
            the batch is worth it, by the banded matrix. None decides by the default backend.
    """
    width, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if as_product is None:
        as_product = jax.default_backend() == "cpu"
    if not as_product:
        pads = [(width // 2, width // 2)]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,), pads, dimension_numbers=("NWC", "WIO", "NWC")
        )
    if stride > 1:
        columns = _columns(x, width, stride, width // 2)
        return columns @ kernel.reshape(width * c_in, c_out)
    if width // 2 < length < width and batch >= BANDED:
        return _banded_product(x, kernel)
    return _product(x, kernel)


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
        pairs = _columns(x, 2, pad=1)  # (x[m-1], x[m]), m = 0..L
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def group_norm(
    x: Float[Array, "batch length c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    groups: int,
) -> Float[Array, "batch length c"]:
    """Give each group of channels of each example mean 0 and variance 1, then scale and shift.

    All sums go along the length first, where the channels lie beside each other, and the gradients
    share theirs. On a CPU automatic differentiation of the plain form sums one and a half times as
    often, each time slower.
    """
    return _group_norm(x, scale, bias, groups)[0]


def _group_norm(x, scale, bias, groups):
    # Statistics in float32 whatever the trunk computes in.
    centred = x.astype(jnp.float32)
    centred -= _of_groups(jnp.mean(centred, axis=1), groups)
    factor = jax.lax.rsqrt(_of_groups(jnp.mean(centred**2, axis=1), groups) + 1e-5)
    y = centred * factor
    return (y * scale[None, None] + bias[None, None]).astype(x.dtype), (y, factor, scale)


def _group_norm_backward(groups, saved, dz):
    y, factor, scale = saved
    like, dz = dz.dtype, dz.astype(jnp.float32)
    sums, along = jnp.sum(dz, axis=1), jnp.sum(dz * y, axis=1)  # (batch, c)
    shift, slope = (_of_groups(scale[None] * part / y.shape[1], groups) for part in (sums, along))
    dx = factor * (scale[None, None] * dz - shift - slope * y)
    of_weights = (jnp.sum(part, axis=0).astype(scale.dtype) for part in (along, sums))
    return dx.astype(like), *of_weights


def _of_groups(x: Array, groups: int) -> Array:
    """Return the mean of its group for every channel of x (batch, c): (batch, 1, c)."""
    means = jnp.mean(x.reshape(len(x), groups, -1), axis=-1)
    return jnp.repeat(means, x.shape[-1] // groups, axis=-1)[:, None]


group_norm.defvjp(_group_norm, _group_norm_backward)


class GroupNorm(nn.Module):
    """`group_norm` with its weights."""

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c"]) -> Float[Array, "batch length c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return group_norm(x, scale, bias, self.groups)


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    features: int
    width: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c_in"]) -> Float[Array, "batch length _"]:
        x = Conv1d(self.features, self.width, name="conv")(x)
        return mish(GroupNorm(self.groups, name="norm")(x))


class Dropout(nn.Module):
    """Zero each number with probability `rate` (to the nearest 2^-16), scale up the others."""

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "*shape"], bits: UInt32[Array, "*shape"] | None
    ) -> Float[Array, "*shape"]:
        """Return x; with 16 random bits for each of its numbers, dropped out."""
        if bits is None:
            return x
        return jnp.where(bits >= round(self.rate * 2**16), x / (1 - self.rate), 0)


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
        low = high = None
        if train and self.dropout:  # random numbers take as long as a product: halves serve twice
            shape = (*x.shape[:2], self.features)
            bits = jax.random.bits(self.make_rng("dropout"), shape, jnp.uint32)
            low, high = bits & 0xFFFF, bits >> 16
        h = ConvBlock(self.features, self.width, self.groups, name="block0")(x)
        h = Dropout(self.dropout)(h, low)
        scale, shift = jnp.split(Dense(2 * self.features, name="film")(mish(cond)), 2, axis=-1)
        h = scale[:, None] * h + shift[:, None]
        h = ConvBlock(self.features, self.width, self.groups, name="block1")(h)
        if x.shape[-1] != self.features:
            x = Conv1d(self.features, 1, name="shortcut")(x)
        return Dropout(self.dropout)(h + x, high)


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
