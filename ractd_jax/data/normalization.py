"""Maps every dimension of the data onto [-1, 1] by its smallest and largest value, and back.

RACTD normalises so (as its base, Diffusion Policy, Chi et al. 2023, does); the noise levels of the
diffusion model assume data of about that size. `standardize` is what methods of single actions do.
Works on numpy and on JAX arrays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

CONSTANT = 1e-7  # a dimension with a smaller range is only shifted, to 0


class Limits(NamedTuple):
    """The affine map x -> scale x + offset.

    Attributes:
        scale: 2 / (max - min).
        offset: -1 - scale min.
    """

    scale: Float[Array | np.ndarray, "*dim"]
    offset: Float[Array | np.ndarray, "*dim"]


def fit(x: Float[np.ndarray, "n *dim"]) -> Limits:
    """Return the map that takes each dimension's smallest value to -1 and its largest to 1."""
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    constant = high - low < CONSTANT
    scale = np.where(constant, 1.0, 2.0 / np.where(constant, 2.0, high - low))
    offset = np.where(constant, -low, -1.0 - scale * low)
    return Limits(scale.astype(np.float32), offset.astype(np.float32))


def standardize(x: Float[np.ndarray, "n *dim"]) -> Limits:
    """Return the map that gives each dimension mean 0 and standard deviation 1."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(std < CONSTANT, 1.0, std)
    return Limits(scale.astype(np.float32), (-mean * scale).astype(np.float32))


def normalize(
    x: Float[Array | np.ndarray, "*shape"], limits: Limits
) -> Float[Array | np.ndarray, "*shape"]:
    """Return scale x + offset, along the last axis of `x`."""
    scale, offset = _align(limits, x.ndim)
    return x * scale + offset


def unnormalize(
    x: Float[Array | np.ndarray, "*shape"], limits: Limits
) -> Float[Array | np.ndarray, "*shape"]:
    """Return (x - offset) / scale, the inverse of `normalize`."""
    scale, offset = _align(limits, x.ndim)
    return (x - offset) / scale


def gap(a: Limits, b: Limits) -> float:
    """Return how far two maps lie apart at most, over the values that `a` maps into [-1, 1]."""
    ends = (np.full(np.shape(a.scale), end, np.float32) for end in (-1.0, 1.0))
    return max(float(np.abs(normalize(unnormalize(x, a), b) - x).max()) for x in ends)


def _align(limits: Limits, ndim: int) -> Limits:
    """Give vectors the leading axes that strict rank promotion asks for; scalars need none."""
    return Limits(*(v.reshape((1,) * (ndim - v.ndim) + v.shape) if v.ndim else v for v in limits))
