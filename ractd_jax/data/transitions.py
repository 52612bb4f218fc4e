"""Single steps on the accelerator, for methods that learn from (s, a, r, s').

A step is left out where nobody recorded what came after it: the last one before a time limit.
After a terminal there is nothing to come, so there the next observation does not matter.

    row          0   1   2   3   4   5   6   7   8
    terminals    .   .   .   .   X   .   .   .   .
    timeouts     .   .   .   .   .   .   .   .   X
    starts       0   1   2   3   4   5   6   7              mask 0 at row 4 alone
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Key

from ractd_jax import errors, types
from ractd_jax.data import episodes, normalization, windows


class Dataset(NamedTuple):
    """Rows of all episodes, normalised, and which of them can be drawn.

    Attributes:
        observations: of every row.
        actions: of every row.
        rewards: scaled.
        masks: 0 where an episode failed, 1 elsewhere.
        starts: the rows that can be drawn.
    """

    observations: Float[Array, "n obs"]
    actions: Float[Array, "n act"]
    rewards: Float[Array, " n"]
    masks: Float[Array, " n"]
    starts: Int32[Array, " step"]


def _same(x: np.ndarray) -> normalization.Limits:
    """Return the map that changes nothing."""
    return normalization.Limits(np.ones_like(x[0]), np.zeros_like(x[0]))


def _bounded(x: np.ndarray) -> normalization.Limits:
    """Return the map that changes nothing; of an x that leaves [-1, 1], policies' bounds, `fit`."""
    return _same(x) if np.abs(x).max() <= 1 else normalization.fit(x)


# What is done to (observations, actions), by the word a configuration has for it.
FRAMES: dict[str, tuple[Callable, Callable]] = {
    "limits": (normalization.fit, normalization.fit),  # onto [-1, 1], as RACTD sees its data
    "gaussian": (normalization.standardize, _bounded),  # Consistency-IDQL
    "none": (_same, _bounded),  # EDA, FQL, Diffusion-QL
}


def _range(transitions: episodes.Transitions) -> float:
    """Return 1000 / (largest return - smallest), the scale of rewards that IQL is tuned for."""
    returns = episodes.returns(transitions)
    return 1000.0 / max(float(returns.max() - returns.min()), 1e-6)


# By what the rewards are multiplied.
SCALES: dict[str, Callable] = {"range": _range, "none": lambda transitions: 1.0}


def build(
    transitions: episodes.Transitions,
    *,
    frame: str,
    reward_scale: str,
    limits: windows.Normalizer | None = None,
) -> tuple[Dataset, windows.Normalizer]:
    """Make a training set of single steps.

    Args:
        transitions: episodes, as `sources.load` returns them.
        frame: how observations and actions are normalised, see `FRAMES`.
        reward_scale: how rewards are scaled, see `SCALES`.
        limits: the normaliser to apply; None fits the frame's.

    Raises:
        UserError: there is no step that anything came after.
    """
    frame = errors.choose("data.frame", frame, FRAMES)
    scale = SCALES[errors.choose("data.reward_scale", reward_scale, SCALES)]
    transitions = episodes.complete(transitions)
    starts = np.flatnonzero(transitions.terminals | ~transitions.timeouts)
    if not len(starts):
        raise errors.UserError("no episode has two steps, so there is nothing to learn from")
    fields = transitions.observations, transitions.actions
    if limits is None:
        maps = (fit(field) for fit, field in zip(FRAMES[frame], fields, strict=True))
        limits = windows.Normalizer(*maps, normalization.Limits(np.float32(1), np.float32(0)))
    rewards: Float32[np.ndarray, " n"] = transitions.rewards * np.float32(scale(transitions))
    arrays = [normalization.normalize(f, m) for f, m in zip(fields, limits[:2], strict=True)]
    arrays += [rewards, 1 - transitions.terminals.astype(np.float32), starts.astype(np.int32)]
    return Dataset(*map(jnp.asarray, arrays)), limits


def take(data: Dataset, rows: Int32[Array, " batch"]) -> types.Transition:
    """Return the transitions that start at some rows of `data.starts`."""
    masks = data.masks[rows]
    after = jnp.where(masks > 0, rows + 1, rows)
    return types.Transition(
        data.actions[rows][:, None],
        data.observations[rows],
        data.rewards[rows],
        data.observations[after],
        masks,
    )


def sample(
    data: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int = 1
) -> types.Transition:
    """Draw steps uniformly, with replacement; to be called inside `jit`.

    Args:
        data: from `build`.
        key: a fresh key for each batch.
        batch_size: steps to draw.
        horizon: of the actions; 1, what other samplers are told as well.
    """
    del horizon
    index = jax.random.randint(key, (batch_size,), 0, len(data.starts))
    return take(data, data.starts[index])
