"""Windows of episodes on the accelerator: a training set of normalised rows, and batches of them.

In Gym-MuJoCo an example is `horizon` actions, conditioned on the observation at the first of them,
in Kitchen on those before it too, and valued by the return-to-go from there (RACTD section 3). In
Maze2d an example is `horizon` states, conditioned on the first and the last (section 4.2). Whole
datasets fit in memory (2 million steps of Hopper: 120 MB), so the samplers draw and gather rows in
the compiled update.

    sample_windows         actions, given observations                       policies
    sample_plans           states, given the first and the last              planners
    sample_state_action    actions and states side by side                   Diffuser
    sample_pairs           an action, given the states before and after it   inverse dynamics
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from ractd_jax import errors, types
from ractd_jax.data import episodes
from ractd_jax.data.normalization import Normalizer, fit, minmax, normalize


class Dataset(NamedTuple):
    """Normalised rows of all episodes, and where windows may start.

    Attributes:
        observations: normalised, by default to [-1, 1].
        actions: in [-1, 1].
        returns: discounted return-to-go of each row, in [-1, 1].
        starts: the first row of each window.
        segment_ends: of each row, the last row of its segment, in which a target was reached; of
            its episode where no targets are known.
        episode_starts: of each row, the first row of its episode.
        rest: the action 0 and then the observation 0, normalised.
    """

    observations: Float[Array, "n obs"]
    actions: Float[Array, "n act"]
    returns: Float[Array, " n"]
    starts: Int32[Array, " window"]
    segment_ends: Int32[Array, " n"]
    episode_starts: Int32[Array, " n"]
    rest: Float[Array, " act_obs"]


def build(
    recorded: episodes.Transitions,
    *,
    horizon: int,
    discount: float,
    termination_penalty: float,
    drop_last: bool,
    normalization: str = "minmax",
    normalizer: Normalizer | None = None,
    reached: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Dataset, Normalizer]:
    """Make a training set.

    The normalizer is fitted to every row, so that models with windows of different lengths (the
    return model's are single steps) agree on it. The published code fits it to the episodes that
    are long enough for a window.

    Args:
        recorded: episodes, as `sources.load` returns them.
        horizon: steps of a window.
        discount: of the return-to-go.
        termination_penalty: added to the last reward before a terminal.
        drop_last: leave out the last window of each episode, see `episodes.window_starts`.
        normalization: of observations, one of `config.NORMALIZATIONS`.
        normalizer: the one to apply; None fits one.
        reached: rows in which a target was reached, besides the last ones of episodes.

    Returns:
        The training set, and the normalizer that was applied.

    Raises:
        UserError: every episode is too short for a window.
    """
    recorded = episodes.complete(recorded)
    lengths = episodes.lengths(recorded)
    starts = episodes.window_starts(lengths, horizon, drop_last)
    if not len(starts):
        raise errors.UserError(
            f"horizon {horizon} does not fit: the longest episode has {lengths.max(initial=0)} "
            "steps; lower it (data.horizon, or the stage's method.horizon)"
        )
    observations, actions = recorded.observations, recorded.actions
    returns = episodes.returns_to_go(recorded, discount, termination_penalty)
    if normalizer is None:
        normalizer = fit(normalization, observations, actions)
        normalizer = normalizer._replace(actions=minmax(actions), returns=minmax(returns))
    rest = [
        np.asarray(normalize(np.zeros_like(actions[0]), normalizer.actions)),
        np.asarray(normalize(np.zeros_like(observations[0]), normalizer.observations)),
    ]
    ended = recorded.terminals | recorded.timeouts
    last = np.flatnonzero(ended if reached is None else ended | reached)
    segment_ends = last[np.searchsorted(last, np.arange(len(ended)))]
    episode_starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    dataset = Dataset(
        jnp.asarray(normalize(observations, normalizer.observations)),
        jnp.asarray(normalize(actions, normalizer.actions)),
        jnp.asarray(normalize(returns, normalizer.returns)),
        jnp.asarray(starts),
        jnp.asarray(segment_ends.astype(np.int32)),
        jnp.asarray(episode_starts.astype(np.int32)),
        jnp.asarray(np.concatenate(rest)),
    )
    return dataset, normalizer


# ---- batches -------------------------------------------------------------------------------------


def sample_windows(
    dataset: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int, history: int = 1
) -> types.Batch:
    """Draw windows of actions uniformly, with replacement; to be called inside `jit`.

    Args:
        dataset: from `build` with the same `horizon`.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        history: observations that a window is conditioned on: the one at its first action, last,
            and those before it. Before its start an episode's first observation is repeated.
    """
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    first = dataset.starts[index]
    rows = first[:, None] + jnp.arange(horizon)[None, :]
    cond = _observed(dataset, first, history)
    return types.Batch(dataset.actions[rows], cond, dataset.returns[first])


def sample_plans(
    dataset: Dataset,
    key: Key[Array, ""],
    *,
    batch_size: int,
    horizon: int,
    goal_relabel: float = 0.0,
) -> types.Batch:
    """Draw windows of states, conditioned on their first and last; otherwise `sample_windows`.

    The windows of a return model are single states (`horizon` 1), each with its own return-to-go.

    Args:
        dataset: from `build` with the same `horizon`; an observation is positions, then velocities.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        goal_relabel: share of windows that end at the target of their segment, see `_relabelled`.
    """
    rows, resting = _relabelled(dataset, key, batch_size, horizon, goal_relabel)
    _, states = _with_rest(dataset, rows, resting)
    cond = jnp.concatenate([states[:, 0], states[:, -1]], axis=-1)
    return types.Batch(states, cond, dataset.returns[rows[:, 0]])


def sample_state_action(
    dataset: Dataset,
    key: Key[Array, ""],
    *,
    batch_size: int,
    horizon: int,
    ends: int,
    goal_relabel: float = 0.0,
) -> types.Batch:
    """Draw windows of actions and states side by side, otherwise `sample_windows`.

    Args:
        dataset: from `build` with the same `horizon`.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        ends: 1 for the first state as the condition, 2 for the first and the last.
        goal_relabel: share of windows that end at the target of their segment, see `_relabelled`.
    """
    rows, resting = _relabelled(dataset, key, batch_size, horizon, goal_relabel)
    actions, states = _with_rest(dataset, rows, resting)
    cond = jnp.concatenate([states[:, 0], states[:, -1]][:ends], axis=-1)
    x = jnp.concatenate([actions, states], axis=-1)
    return types.Batch(x, cond, dataset.returns[rows[:, 0]])


def sample_pairs(
    dataset: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int
) -> types.Batch:
    """Draw single actions, conditioned on the states before and after; `horizon` is then 2."""
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    first = dataset.starts[index]
    pair = dataset.observations[first[:, None] + jnp.arange(horizon)[None, :]]
    cond = pair.reshape(batch_size, -1)
    return types.Batch(dataset.actions[first][:, None], cond, dataset.returns[first])


def _observed(
    dataset: Dataset, rows: Int32[Array, " batch"], history: int
) -> Float[Array, "batch history_obs"]:
    """Return the observations up to each row, oldest first; `policies.Policy` does the same."""
    back = jnp.arange(history - 1, -1, -1, dtype=jnp.int32)
    rows = jnp.maximum(rows[:, None] - back[None, :], dataset.episode_starts[rows][:, None])
    return dataset.observations[rows].reshape(len(rows), -1)


def _relabelled(
    dataset: Dataset, key: Key[Array, ""], batch_size: int, horizon: int, goal_relabel: float
) -> tuple[Int32[Array, "batch horizon"], Bool[Array, "batch horizon"]]:
    """Draw windows; return their rows, and the steps in which the ball rests at the last row.

    A share `goal_relabel` of them starts at any row, follows it to the target of its segment, and
    rests there: the target becomes the goal, as in hindsight relabelling (Andrychowicz et al.
    2017). Without them a planner sees no window that reaches its goal before the window's end, and
    every path between two near places is a detour.
    """
    key_kind, key_row = jax.random.split(jax.random.fold_in(key, 1))  # `key` draws all windows
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    row = jax.random.randint(key_row, (batch_size,), 0, len(dataset.observations))
    relabel = jax.random.bernoulli(key_kind, goal_relabel, (batch_size,))
    first = jnp.where(relabel, row, dataset.starts[index])
    to_target = jnp.minimum(dataset.segment_ends[first] - first, horizon - 1)
    length = jnp.where(relabel, to_target, horizon - 1)
    steps = jnp.arange(horizon, dtype=jnp.int32)[None, :]
    return first[:, None] + jnp.minimum(steps, length[:, None]), steps > length[:, None]


def _with_rest(
    dataset: Dataset, rows: Int32[Array, "batch horizon"], resting: Bool[Array, "batch horizon"]
) -> tuple[Float[Array, "batch horizon act"], Float[Array, "batch horizon obs"]]:
    """Return actions and states of the rows; where they rest, action and velocity are 0."""
    actions, states = dataset.actions[rows], dataset.observations[rows]
    velocity = jnp.arange(states.shape[-1]) >= states.shape[-1] // 2
    action_size = actions.shape[-1]
    rest_action, rest_state = dataset.rest[:action_size], dataset.rest[action_size:]
    resting = resting[..., None]
    actions = jnp.where(resting, rest_action[None, None], actions)
    return actions, jnp.where(resting & velocity[None, None], rest_state[None, None], states)
