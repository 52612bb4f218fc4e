"""Single steps on the accelerator, for methods that learn from (s, a, r, s').

A step is left out where nobody recorded what came after it: the last one before a time limit.
After a terminal there is nothing to come, so there the next observation does not matter.

    row          0   1   2   3   4   5   6   7   8
    terminals    .   .   .   .   X   .   .   .   .
    timeouts     .   .   .   .   .   .   .   .   X
    starts       0   1   2   3   4   5   6   7              mask 0 at row 4 alone
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Key

from ractd_jax import errors, types
from ractd_jax.config import REWARD_SCALES
from ractd_jax.data import episodes
from ractd_jax.data.normalization import Normalizer, fit, normalize


class StepDataset(NamedTuple):
    """Rows of all episodes, normalised, and which of them can be drawn.

    Attributes:
        observations: of every row.
        actions: of every row.
        rewards: scaled.
        masks: 0 where an episode ended in a terminal, 1 elsewhere.
        starts: the rows that can be drawn.
    """

    observations: Float[Array, "n obs"]
    actions: Float[Array, "n act"]
    rewards: Float[Array, " n"]
    masks: Float[Array, " n"]
    starts: Int32[Array, " step"]


def build(
    recorded: episodes.Transitions,
    *,
    normalization: str,
    reward_scale: str,
    normalizer: Normalizer | None = None,
) -> tuple[StepDataset, Normalizer]:
    """Make a training set of single steps.

    Args:
        recorded: episodes, as `sources.load` returns them.
        normalization: of observations, one of `config.NORMALIZATIONS`.
        reward_scale: "range" multiplies rewards by 1000 / (largest return - smallest), the scale
            that IQL is tuned for; "none" leaves them.
        normalizer: the one to apply; None fits one.

    Returns:
        The training set, and the normalizer that was applied.

    Raises:
        UserError: no step has a successor, or a word is unknown.
    """
    errors.choose_field("reward_scale", reward_scale, REWARD_SCALES)
    recorded = episodes.complete(recorded)
    starts = np.flatnonzero(recorded.terminals | ~recorded.timeouts)
    if not len(starts):
        raise errors.UserError("no episode has two steps, so there is nothing to learn from")
    if normalizer is None:
        normalizer = fit(normalization, recorded.observations, recorded.actions)
    scale = np.float32(_reward_scale(recorded) if reward_scale == "range" else 1.0)
    rewards: Float32[np.ndarray, " n"] = recorded.rewards * scale
    dataset = StepDataset(
        jnp.asarray(normalize(recorded.observations, normalizer.observations)),
        jnp.asarray(normalize(recorded.actions, normalizer.actions)),
        jnp.asarray(rewards),
        jnp.asarray(1 - recorded.terminals.astype(np.float32)),
        jnp.asarray(starts.astype(np.int32)),
    )
    return dataset, normalizer


def _reward_scale(recorded: episodes.Transitions) -> float:
    """Return 1000 / (largest return - smallest)."""
    returns = episodes.returns(recorded)
    return 1000.0 / max(float(returns.max() - returns.min()), 1e-6)


def take(dataset: StepDataset, rows: Int32[Array, " batch"]) -> types.Transition:
    """Return the transitions that start at some rows of `dataset.starts`."""
    masks = dataset.masks[rows]
    after = jnp.where(masks > 0, rows + 1, rows)
    return types.Transition(
        dataset.actions[rows][:, None],
        dataset.observations[rows],
        dataset.rewards[rows],
        dataset.observations[after],
        masks,
    )


def sample(
    dataset: StepDataset, key: Key[Array, ""], *, batch_size: int, horizon: int = 1
) -> types.Transition:
    """Draw steps uniformly, with replacement; to be called inside `jit`.

    Args:
        dataset: from `build`.
        key: a fresh key for each batch.
        batch_size: steps to draw.
        horizon: of the actions; 1, what other samplers are told as well.
    """
    del horizon
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    return take(dataset, dataset.starts[index])
