"""Affine maps of observations, actions and returns to the scale that models learn on, and back.

    minmax       each dimension to [-1, 1] by its smallest and largest value: RACTD, as its base,
                 Diffusion Policy (Chi et al. 2023). The noise levels assume data of about this size
    standard     each dimension to mean 0 and standard deviation 1: Consistency-IDQL
    none         left as they are: EDA, FQL, Diffusion-QL

These are `config.NORMALIZATIONS`, for observations. Actions are mapped to [-1, 1] where they leave
it, whatever the word, for these are the bounds of policies. Works on numpy and on JAX arrays.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ractd_jax import errors

CONSTANT = 1e-7  # a dimension with a smaller range is only shifted, to 0


class Affine(NamedTuple):
    """The map x -> scale x + offset of one array, dimension by dimension.

    Attributes:
        scale: of each dimension.
        offset: of each dimension.
    """

    scale: Float[Array | np.ndarray, "*dim"]
    offset: Float[Array | np.ndarray, "*dim"]


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


# ---- maps fitted to data -------------------------------------------------------------------------


def minmax(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that takes each dimension's smallest value to -1 and its largest to 1.

    Example:
        >>> affine = minmax(np.array([[0.0], [4.0]], np.float32))
        >>> normalize(np.array([[1.0]], np.float32), affine).tolist()
        [[-0.5]]
    """
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    constant = high - low < CONSTANT
    scale = np.where(constant, 1.0, 2.0 / np.where(constant, 2.0, high - low))
    offset = np.where(constant, -low, -1.0 - scale * low)
    return Affine(scale.astype(np.float32), offset.astype(np.float32))


def standard(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that gives each dimension mean 0 and standard deviation 1."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(std < CONSTANT, 1.0, std)
    return Affine(scale.astype(np.float32), (-mean * scale).astype(np.float32))


def unchanged(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return the map that changes nothing."""
    return Affine(np.ones_like(x[0]), np.zeros_like(x[0]))


def bounded(x: Float[np.ndarray, "n *dim"]) -> Affine:
    """Return `unchanged`, or `minmax` of values that leave [-1, 1]."""
    return unchanged(x) if np.abs(x).max() <= 1 else minmax(x)


_MAPS: dict[str, tuple[Callable, Callable]] = {  # of observations, of actions
    "minmax": (minmax, minmax),
    "standard": (standard, bounded),
    "none": (unchanged, bounded),
}


def fit(
    normalization: str,
    observations: Float[np.ndarray, "n obs"],
    actions: Float[np.ndarray, "n act"],
) -> Normalizer:
    """Return the normalizer of single steps; it leaves returns as they are.

    Args:
        normalization: of observations, one of `config.NORMALIZATIONS`.
        observations: of all rows.
        actions: of all rows.

    Raises:
        FieldError: there is no such normalisation.
    """
    errors.choose_field("normalization", normalization, _MAPS)
    fit_observations, fit_actions = _MAPS[normalization]
    returns = Affine(np.ones((), np.float32), np.zeros((), np.float32))
    return Normalizer(fit_observations(observations), fit_actions(actions), returns)


def identity(obs_dim: int, act_dim: int) -> Normalizer:
    """Return the normalizer that changes nothing, of the same shapes as any other.

    Example:
        >>> identity(11, 3).actions.scale.shape
        (3,)
    """
    shapes = (obs_dim,), (act_dim,), ()
    return Normalizer(*(Affine(jnp.ones(shape), jnp.zeros(shape)) for shape in shapes))


# ---- maps applied --------------------------------------------------------------------------------


def normalize(
    x: Float[Array | np.ndarray, "*shape"], affine: Affine
) -> Float[Array | np.ndarray, "*shape"]:
    """Return scale x + offset, along the last axis of `x`."""
    scale, offset = _align(affine, x.ndim)
    return x * scale + offset


def unnormalize(
    x: Float[Array | np.ndarray, "*shape"], affine: Affine
) -> Float[Array | np.ndarray, "*shape"]:
    """Return (x - offset) / scale, the inverse of `normalize`."""
    scale, offset = _align(affine, x.ndim)
    return (x - offset) / scale


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
    return Affine(*(v.reshape((1,) * (ndim - v.ndim) + v.shape) if v.ndim else v for v in affine))
