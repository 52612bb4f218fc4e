"""Affine maps of observations, actions and returns to the scale that models learn on, and back.

    minmax       each dimension to [-1, 1] by its smallest and largest value: RACTD, as its base,
                 Diffusion Policy (Chi et al. 2023). The noise levels assume data of about this size
    quantile     each dimension's 1 % and 99 % quantiles to -1 and 1, values beyond 3 cut off: one
                 glitch of a sensor cannot squeeze all other rows
    standard     each dimension to mean 0 and standard deviation 1: Consistency-IDQL
    none         left as they are: EDA, FQL, Diffusion-QL

These are `config.NORMALIZATIONS`, for observations. Actions are mapped to [-1, 1] where they leave
it, whatever the word, for these are the bounds of policies. Works on numpy and on JAX arrays.

Models compute in float32, of which a position of 5,412,345.2 m keeps steps of half a metre. So a
dimension that varies little, far from 0, is counted from an origin near its values, which is
subtracted in float64 before anything is cast (`center`). Of all other dimensions the origin is 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from ractd_jax import errors

CONSTANT = 1e-7  # a dimension with a smaller range is only shifted, to 0
RESOLUTION = 1e-4  # of a dimension's range: float32 has to be finer there, or an origin is needed
TAIL = 0.01  # share of the rows beyond each of the two quantiles
BOUND = 3.0  # of values normalised by quantiles
UNBOUNDED = float(np.finfo(np.float32).max)  # of all others: finite, as all saved numbers are


class Affine(NamedTuple):
    """The map x -> scale (x - origin) + offset of one array, dimension by dimension, and a cut.

    The origin has more digits than float32: it is the sum of two numbers. `affine` makes whole
    maps, as models are saved with.

    Attributes:
        scale: of each dimension.
        offset: of each dimension.
        origin: what is subtracted first.
        remainder: the origin's lower digits.
        bound: results beyond it are cut off, on either side.
    """

    scale: Float[Array | np.ndarray, "*dim"]
    offset: Float[Array | np.ndarray, "*dim"]
    origin: Float[Array | np.ndarray, "*dim"] | np.float32 = np.float32(0)
    remainder: Float[Array | np.ndarray, "*dim"] | np.float32 = np.float32(0)
    bound: Float[Array | np.ndarray, "*dim"] | np.float32 = np.float32(UNBOUNDED)


class Normalizer(NamedTuple):
    """How a training set was normalised; saved with every model.

    Attributes:
        observations: map of each dimension.
        actions: map of each dimension.
        returns: map of the return-to-go, a number.
    """

    observations: Affine
    actions: Affine
    returns: Affine


def affine(
    scale: Float[np.ndarray, "*dim"],
    offset: Float[np.ndarray, "*dim"],
    origin: Float64[np.ndarray, "*dim"] | float = 0.0,
    bound: Float[np.ndarray, "*dim"] | float = UNBOUNDED,
) -> Affine:
    """Return a map whose parts all have the shape of `scale`, in float32.

    Example:
        >>> [part.shape for part in affine(np.ones(3), np.zeros(3))]
        [(3,), (3,), (3,), (3,), (3,)]
    """
    first = np.asarray(origin, np.float32)
    parts = scale, offset, first, origin - first.astype(np.float64), bound
    return Affine(*(np.broadcast_to(p, np.shape(scale)).astype(np.float32) for p in parts))


# ---- maps fitted to data -------------------------------------------------------------------------


def far_from_zero(
    low: Float64[np.ndarray, "*dim"], high: Float64[np.ndarray, "*dim"]
) -> Bool[np.ndarray, "*dim"]:
    """Return where float32 has too few steps between two values, because both are far from 0.

    Example:
        >>> far_from_zero(np.array([0.0, 5412344.0]), np.array([2.0, 5412346.0])).tolist()
        [False, True]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.maximum(np.abs(low), np.abs(high)).astype(np.float32)
        steps = np.spacing(size).astype(np.float64)
    return np.asarray((high - low >= CONSTANT) & (steps > RESOLUTION * (high - low)))


def spacing(values: Float[np.ndarray, " n"]) -> float:
    """Return the steps of float32 at the largest of some values.

    Example:
        >>> spacing(np.array([5412345.2]))
        0.5
    """
    return float(np.spacing(np.float32(np.abs(values).max())))


def minmax(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that takes each dimension's smallest value to -1 and its largest to 1.

    Example:
        >>> fitted = minmax(np.array([[0.0], [4.0]], np.float32))
        >>> normalize(np.array([[1.0]], np.float32), fitted).tolist()
        [[-0.5]]
    """
    low, high = _ends(x)
    return _between(low, high, _middle(low, high), UNBOUNDED)


def quantile(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that takes each dimension's 1 % quantile to -1 and its 99 % quantile to 1.

    A dimension that has no range between them, as a gripper that rarely opens, is mapped by
    `minmax`.

    Example:
        >>> x = np.append(np.linspace(0, 1, 999), -9999.0)[:, None]
        >>> fitted = quantile(x)
        >>> normalize(x[-1:], fitted).tolist(), bool(abs(normalize(x[500:501], fitted)) < 0.1)
        ([[-3.0]], True)
    """
    low, high = np.quantile(x, (TAIL, 1 - TAIL), axis=0).astype(np.float64)
    ends = _ends(x)
    narrow = high - low < CONSTANT
    low, high = np.where(narrow, ends[0], low), np.where(narrow, ends[1], high)
    return _between(low, high, _middle(low, high), np.where(narrow, UNBOUNDED, BOUND))


def standard(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that gives each dimension mean 0 and standard deviation 1."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(std < CONSTANT, 1.0, std)
    middle = _middle(*_ends(x))
    return affine(scale, -(mean - middle) * scale, middle)


def unchanged(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that changes nothing, but for the origin of dimensions far from 0."""
    middle = _middle(*_ends(x))
    return affine(np.ones_like(x[0]), np.zeros_like(x[0]), middle)


def bounded(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return `unchanged`, or `minmax` of values that leave [-1, 1]."""
    return unchanged(x) if np.abs(x).max() <= 1 else minmax(x)


def _ends(
    x: Float[np.ndarray, "n *dim"],
) -> tuple[Float64[np.ndarray, "*dim"], Float64[np.ndarray, "*dim"]]:
    """Return the smallest and the largest value of each dimension."""
    return np.asarray(x.min(axis=0), np.float64), np.asarray(x.max(axis=0), np.float64)


def _middle(
    low: Float64[np.ndarray, "*dim"], high: Float64[np.ndarray, "*dim"]
) -> Float64[np.ndarray, "*dim"]:
    """Return the middle of each dimension that is far from 0, and 0 of all others."""
    return np.where(far_from_zero(low, high), low + (high - low) / 2, 0.0)


def _between(
    low: Float64[np.ndarray, "*dim"],
    high: Float64[np.ndarray, "*dim"],
    origin: Float64[np.ndarray, "*dim"],
    bound: Float64[np.ndarray, "*dim"] | float,
) -> Affine:
    """Return the map that takes `low` to -1 and `high` to 1."""
    constant = high - low < CONSTANT
    scale = np.where(constant, 1.0, 2.0 / np.where(constant, 2.0, high - low))
    low = low - origin
    return affine(scale, np.where(constant, -low, -1.0 - scale * low), origin, bound)


_MAPS: dict[str, tuple[Callable, Callable]] = {  # of observations, of actions
    "minmax": (minmax, minmax),
    "quantile": (quantile, minmax),
    "standard": (standard, bounded),
    "none": (unchanged, bounded),
}


def fit(
    normalization: str,
    observations: Float[np.ndarray, "n obs"],
    actions: Float[np.ndarray, "n act"],
) -> Normalizer:
    """Return the normalizer of a training set; it leaves returns as they are.

    Args:
        normalization: of observations, one of `config.NORMALIZATIONS`.
        observations: of all rows.
        actions: of all rows.

    Raises:
        FieldError: there is no such normalisation.
    """
    errors.choose_field("normalization", normalization, _MAPS)
    fit_observations, fit_actions = _MAPS[normalization]
    returns = affine(np.ones(()), np.zeros(()))
    return Normalizer(fit_observations(observations), fit_actions(actions), returns)


def identity(obs_dim: int, act_dim: int) -> Normalizer:
    """Return the normalizer that changes nothing, of the same shapes as any other.

    Example:
        >>> identity(11, 3).actions.scale.shape
        (3,)
    """
    shapes = (obs_dim,), (act_dim,), ()
    maps = (affine(np.ones(shape), np.zeros(shape)) for shape in shapes)
    return Normalizer(*(Affine(*map(jnp.asarray, parts)) for parts in maps))


# ---- maps applied --------------------------------------------------------------------------------


def origin(affine: Affine) -> Float64[np.ndarray, "*dim"]:
    """Return what a map subtracts first, with all its digits."""
    first, remainder = (np.asarray(part, np.float64) for part in affine[2:4])
    return np.asarray(first + remainder)


def center(x: np.ndarray, origin: Float64[np.ndarray, "*dim"]) -> Float32[np.ndarray, "*shape"]:
    """Return x - origin in float32, subtracted in float64, along the last axis of `x`.

    Args:
        x: values as they were recorded or measured, in any precision.
        origin: of their map, see `origin`; `without_origin` of the map takes the result.

    Example:
        >>> fitted = minmax(np.array([[5412344.0], [5412346.0]]))
        >>> center(np.array([5412345.25]), origin(fitted)).tolist()
        [0.25]
    """
    if not origin.any():
        return np.asarray(x, np.float32)
    return (np.asarray(x, np.float64) - origin).astype(np.float32)


def split_origin(normalizer: Normalizer) -> tuple[Float64[np.ndarray, "*dim"], Normalizer]:
    """Return the origin of observations, and the normalizer of those that `center` has seen.

    So policies subtract in float64 what their compiled programs could only have in float32.
    """
    centered = without_origin(normalizer.observations)
    return origin(normalizer.observations), normalizer._replace(observations=centered)


def without_origin(affine: Affine) -> Affine:
    """Return the map of values that are counted from the origin already."""
    zero = 0 * affine.origin
    return affine._replace(origin=zero, remainder=zero)


def normalize(
    x: Float[Array | np.ndarray, "*shape"], affine: Affine
) -> Float[Array | np.ndarray, "*shape"]:
    """Return scale (x - origin) + offset, cut off at the bound, along the last axis of `x`.

    Numpy arrays are counted from the origin in float64, and the result is float32.
    """
    a = _align(affine, x.ndim)
    if isinstance(x, np.ndarray) and isinstance(affine.origin, np.ndarray | np.generic):
        y = center(x, origin(affine)) * a.scale + a.offset
        return y if (a.bound >= UNBOUNDED).all() else np.clip(y, -a.bound, a.bound)
    y = (x - a.origin - a.remainder) * a.scale + a.offset
    return jnp.clip(y, -a.bound, a.bound)


def unnormalize(
    x: Float[Array | np.ndarray, "*shape"], affine: Affine
) -> Float[Array | np.ndarray, "*shape"]:
    """Return (x - offset) / scale + origin, the inverse of `normalize` within its bound.

    Numpy arrays come back in float64 where there is an origin.
    """
    a = _align(affine, x.ndim)
    y = (x - a.offset) / a.scale
    if isinstance(x, np.ndarray) and isinstance(affine.origin, np.ndarray | np.generic):
        first = origin(affine)
        return y + first if first.any() else y
    return y + a.origin + a.remainder


def convert(x: Float[Array, "*shape"], before: Affine, after: Affine) -> Float[Array, "*shape"]:
    """Return values normalised by one map as another would have normalised them.

    Only the difference of the origins is added, so that none of the digits is lost.
    """
    a, b = _align(before, x.ndim), _align(after, x.ndim)
    y = (x - a.offset) / a.scale + (a.origin - b.origin) + (a.remainder - b.remainder)
    return jnp.clip(y * b.scale + b.offset, -b.bound, b.bound)


def gap(a: Affine, b: Affine) -> float:
    """Return the largest difference of two maps, over the values that `a` maps into [-1, 1].

    Example:
        >>> one = np.ones(1, np.float32)
        >>> gap(Affine(one, 0 * one), Affine(2 * one, 0 * one))
        1.0
    """
    ends = (np.full(np.shape(a.scale), end, np.float32) for end in (-1.0, 1.0))
    return max(float(np.abs(normalize(unnormalize(x, a), b) - x).max()) for x in ends)


def _align(affine: Affine, ndim: int) -> Affine:
    """Give vectors the leading axes that strict rank promotion asks for; scalars need none."""
    parts: list[Any] = [
        v.reshape((1,) * (ndim - v.ndim) + v.shape) if v.ndim else v for v in affine
    ]
    return Affine(*parts)
