"""Linear layers and convolutions, with PyTorch's default first weights.

The published models were trained from those.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ractd_jax.nn.cpu import matmul
from ractd_jax.nn.cpu.conv1d import conv1d, conv1d_transpose

# What a denoising network is called with, see `networks`.
Noisy = Float[Array, "batch horizon dim"]
Times = Float[Array, "batch n_times"]
Cond = Float[Array, "batch cond"]


def _torch_uniform(fan_in: int) -> Callable[..., Array]:
    """Initialise as PyTorch does by default: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class _Linear(nn.Module):
    """A linear layer whose outputs come in equal parts, each with its share of the bias."""

    features: int
    bias: bool = True
    parts: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*rows fan_in"]) -> tuple[Float[Array, "*rows _"], ...]:
        init = _torch_uniform(x.shape[-1])
        y = matmul.linear(x, matmul.kernel(self, init, (x.shape[-1], self.features)))
        parts = jnp.split(y, self.parts, axis=-1)
        if self.bias:
            bias = self.param("bias", init, (self.features,)).reshape(*(1,) * (y.ndim - 1), -1)
            shares = jnp.split(bias, self.parts, axis=-1)
            parts = [part + share for part, share in zip(parts, shares, strict=True)]
        return tuple(parts)


class Dense(nn.Module):
    """A linear layer with PyTorch's default first weights.

    Attributes:
        features: numbers it returns.
        bias: add a bias.

    Example:
        >>> layer = Dense(3)
        >>> params = layer.init(jax.random.key(0), jnp.zeros((2, 5)))
        >>> layer.apply(params, jnp.zeros((2, 5))).shape
        (2, 3)
    """

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*rows fan_in"]) -> Float[Array, "*rows features"]:
        """Return x @ kernel + bias."""
        return _Linear(self.features, self.bias, name="linear")(x)[0]


class Film(nn.Module):
    """Scale and shift of every feature, linear in a condition.

    They are the halves of one linear layer, and each half gets its bias by itself: with one sum for
    both, XLA runs the loop that scales and shifts number by number, eight times as long on a CPU.

    Source: Perez et al. 2018, arXiv:1709.07871.

    Attributes:
        features: to be scaled and shifted.
    """

    features: int

    @nn.compact
    def __call__(
        self, cond: Float[Array, "batch cond"]
    ) -> tuple[Float[Array, "batch features"], Float[Array, "batch features"]]:
        """Return scale and shift."""
        scale, shift = _Linear(2 * self.features, parts=2, name="linear")(cond)
        return scale, shift


class Conv1d(nn.Module):
    """`conv1d` (or `conv1d_transpose`) with a bias.

    Attributes:
        features: channels it returns.
        width: of the kernel: odd; 4 for the transposed convolution.
        stride: step between outputs.
        transpose: the transposed convolution, which doubles the length.
    """

    features: int
    width: int
    stride: int = 1
    transpose: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch length c_in"]) -> Float[Array, "batch _ features"]:
        """Return the convolution of x."""
        c_in = x.shape[-1]
        # PyTorch counts the fan-in of a transposed convolution over its outputs.
        init = _torch_uniform(self.width * (self.features if self.transpose else c_in))
        kernel = matmul.kernel(self, init, (self.width, c_in, self.features))
        bias = self.param("bias", init, (self.features,))
        y = conv1d_transpose(x, kernel) if self.transpose else conv1d(x, kernel, stride=self.stride)
        return y + bias[None, None]
