"""What the networks are built of: activations, embeddings, linear layers, convolutions, blocks.

Initial weights follow PyTorch's defaults, with which the published models were trained.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from ractd_jax.nn.cpu import matmul
from ractd_jax.nn.cpu.conv1d import conv1d, conv1d_transpose

# What a denoising network is called with, see `networks`.
Noisy = Float[Array, "batch horizon dim"]
Times = Float[Array, "batch n_times"]
Cond = Float[Array, "batch cond"]


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


class _Linear(nn.Module):
    features: int
    bias: bool = True
    parts: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*rows fan_in"]) -> tuple[Float[Array, "*rows _"], ...]:
        init = _torch_uniform(x.shape[-1])
        y = matmul.product(x, matmul.kernel(self, init, (x.shape[-1], self.features)))
        parts = jnp.split(y, self.parts, axis=-1)
        if self.bias:
            bias = self.param("bias", init, (self.features,)).reshape(*(1,) * (y.ndim - 1), -1)
            shares = jnp.split(bias, self.parts, axis=-1)
            parts = [part + share for part, share in zip(parts, shares, strict=True)]
        return tuple(parts)


class Dense(nn.Module):
    """A linear layer with PyTorch's initial weights."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*rows fan_in"]) -> Float[Array, "*rows features"]:
        return _Linear(self.features, self.bias, name="linear")(x)[0]


class Film(nn.Module):
    """The scale and the shift that a condition asks for, of every feature: a linear layer's halves.

    Each half gets its share of the bias. Where XLA finds both halves of one sum in the loop that
    scales and shifts, it works that loop out number by number: eight times as long on a CPU.
    """

    features: int

    @nn.compact
    def __call__(
        self, cond: Float[Array, "batch cond"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch features"]]:
        return _Linear(2 * self.features, parts=2, name="linear")(cond)


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
        kernel = matmul.kernel(self, init, (self.width, c_in, self.features))
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
    centred -= _of_groups(_along(centred) / x.shape[1], groups)
    factor = jax.lax.rsqrt(_of_groups(_along(centred**2) / x.shape[1], groups) + 1e-5)
    y = centred * factor
    return (y * scale[None, None] + bias[None, None]).astype(x.dtype), (y, factor, scale)


def _group_norm_backward(groups, saved, dz):
    y, factor, scale = saved
    like, dz = dz.dtype, dz.astype(jnp.float32)
    sums, along = _along(dz), _along(dz * y)  # (batch, c)
    shift, slope = (_of_groups(scale[None] * part / y.shape[1], groups) for part in (sums, along))
    dx = factor * (scale[None, None] * dz - shift - slope * y)
    of_weights = (jnp.sum(part, axis=0).astype(scale.dtype) for part in (along, sums))
    return dx.astype(like), *of_weights


def _of_groups(x: Array, groups: int) -> Array:
    """Return the mean of its group for every channel of x (batch, c): (batch, 1, c)."""
    size = x.shape[-1] // groups
    member = jnp.repeat(jnp.eye(groups), size, axis=1)
    means = jnp.matmul(x, member.T / size, precision="highest")
    # A product too: means that are repeated in the loop they are for make it twice as long.
    return jnp.matmul(means, member, precision="highest")[:, None]


def _along(x: Array) -> Array:
    """Return the sums over the length; one that is short is written out, faster on a CPU."""
    return sum(x[:, i] for i in range(x.shape[1])) if x.shape[1] <= 16 else jnp.sum(x, axis=1)


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


def random_bits(key: Key[Array, ""], shape: Sequence[int]) -> UInt32[Array, "..."]:
    """Return 32 random bits for each number of an array: a hash of its place and the key.

    Murmur3's last step, twice, each time with half of the key. `jax.random.bits` costs a CPU as
    much as the product before it, and dropout asks for less than that can give.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)
    place = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return _mix(_mix(place ^ words[0]) ^ words[1])


def _mix(h: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    h = (h ^ h >> 16) * jnp.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) * jnp.uint32(0xC2B2AE35)
    return h ^ h >> 16


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
