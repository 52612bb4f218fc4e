"""The training set on the accelerator: normalised rows, and the windows drawn from them.

A Gym-MuJoCo example is `horizon` actions, conditioned on the observation at the first of them, in
Kitchen on those before it too, and worth the return-to-go from there (RACTD section 3); a Maze2d
example is `horizon` states, conditioned on the first and the last (section 4.2). Whole datasets fit
in memory (2 million steps of Hopper: 120 MB), so `sample_windows` and `sample_plans` draw and
gather in the compiled update.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from ractd_jax import errors, tasks, types
from ractd_jax.data import episodes, normalization


class Dataset(NamedTuple):
    """Normalised rows of all episodes, and where windows may start.

    Attributes:
        observations: in [-1, 1].
        actions: in [-1, 1].
        returns: discounted return-to-go of each row, in [-1, 1].
        starts: the first row of each window.
        arrivals: the last row of the errand that each row belongs to (without any: its episode).
        firsts: the first row of the episode that each row belongs to.
        rest: an action, then an observation of zeros, normalised.
    """

    observations: Float[Array, "n obs"]
    actions: Float[Array, "n act"]
    returns: Float[Array, " n"]
    starts: Int32[Array, " window"]
    arrivals: Int32[Array, " n"]
    firsts: Int32[Array, " n"]
    rest: Float[Array, " act_obs"]


class Normalizer(NamedTuple):
    """The maps that `build` applied to each field."""

    observations: normalization.Limits
    actions: normalization.Limits
    returns: normalization.Limits


def build(
    transitions: episodes.Transitions,
    *,
    horizon: int,
    discount: float,
    termination_penalty: float,
    drop_last: bool,
    limits: Normalizer | None = None,
    arrived: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Dataset, Normalizer]:
    """Make a training set.

    The normaliser is fitted to every row, so that models with windows of different lengths (the
    return model's are single steps) agree on it. The published code fits it to the episodes that
    are long enough for a window.

    Args:
        transitions: episodes, as `sources.load` returns them.
        horizon: steps of a window.
        discount: of the return-to-go.
        termination_penalty: added to the last reward before a terminal.
        drop_last: see `episodes.window_starts`.
        limits: the normaliser to apply; None fits one.
        arrived: rows in which an errand ends, besides those in which an episode does.

    Raises:
        UserError: every episode is too short for a window.
    """
    transitions = episodes.complete(transitions)
    lengths = episodes.lengths(transitions)
    starts = episodes.window_starts(lengths, horizon, drop_last)
    if not len(starts):
        raise errors.UserError(
            f"horizon {horizon} does not fit: the longest episode has {lengths.max(initial=0)} "
            "steps; lower it (data.horizon, or the stage's method.horizon)"
        )
    returns = episodes.returns_to_go(transitions, discount, termination_penalty)
    fields = transitions.observations, transitions.actions, returns
    limits = limits or Normalizer(*(normalization.fit(field) for field in fields))
    arrays = (normalization.normalize(*pair) for pair in zip(fields, limits, strict=True))
    zeros = (np.zeros_like(column[0]) for column in (transitions.actions, transitions.observations))
    rest = np.concatenate(
        [*map(normalization.normalize, zeros, (limits.actions, limits.observations))]
    )
    ended = transitions.terminals | transitions.timeouts
    last = np.flatnonzero(ended if arrived is None else ended | arrived)
    arrivals = last[np.searchsorted(last, np.arange(len(ended)))].astype(np.int32)
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths).astype(np.int32)
    return Dataset(*map(jnp.asarray, (*arrays, starts, arrivals, firsts, rest))), limits


def identity(obs_dim: int, act_dim: int) -> Normalizer:
    """Return the normaliser that changes nothing: the shape of any other."""
    fields = (obs_dim,), (act_dim,), ()
    return Normalizer(*(normalization.Limits(jnp.ones(f), jnp.zeros(f)) for f in fields))


def sample_windows(
    dataset: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int, history: int = 1
) -> types.Batch:
    """Draw windows uniformly, with replacement; to be called inside `jit`.

    Args:
        dataset: from `build` with the same `horizon`.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        history: observations that a window is conditioned on, see `_seen`.
    """
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    first = dataset.starts[index]
    rows = first[:, None] + jnp.arange(horizon)[None, :]
    return types.Batch(
        dataset.actions[rows], _seen(dataset, first, history), dataset.returns[first]
    )


def _seen(
    dataset: Dataset, rows: Int32[Array, " batch"], history: int
) -> Float[Array, "batch history_obs"]:
    """Return the last observations up to each row, oldest first, that of the row itself last.

    Before its start an episode's first observation is repeated: `policy.Policy` does the same.
    """
    back = jnp.arange(history - 1, -1, -1, dtype=jnp.int32)
    rows = jnp.maximum(rows[:, None] - back[None, :], dataset.firsts[rows][:, None])
    return dataset.observations[rows].reshape(len(rows), -1)


def sample_plans(
    dataset: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int, errands: float = 0.0
) -> types.Batch:
    """Draw windows of states, conditioned on their first and last; otherwise `sample_windows`.

    The windows of a return model are single states (`horizon` 1), each worth its own return-to-go.

    Args:
        dataset: from `build` with the same `horizon`; an observation is positions, then velocities.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        errands: see `_ways`.
    """
    rows, resting = _ways(dataset, key, batch_size, horizon, errands)
    _, states = _at_rest(dataset, rows, resting)
    cond = jnp.concatenate([states[:, 0], states[:, -1]], axis=-1)
    return types.Batch(states, cond, dataset.returns[rows[:, 0]])


def _ways(
    dataset: Dataset, key: Key[Array, ""], batch_size: int, horizon: int, errands: float
) -> tuple[Int32[Array, "batch horizon"], Bool[Array, "batch horizon"]]:
    """Draw windows; return their rows, and in which of the steps the ball rests at the last row.

    A share `errands` of them begins at any row, follows it to where its errand ends, and rests
    there. Windows alone begin at least their own length before the end of an episode, so those from
    one place to another near by are detours, and none ends at a goal before its time.
    """
    key_kind, key_row = jax.random.split(jax.random.fold_in(key, 1))  # `key` draws all windows
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    row = jax.random.randint(key_row, (batch_size,), 0, len(dataset.observations))
    errand = jax.random.bernoulli(key_kind, errands, (batch_size,))
    first = jnp.where(errand, row, dataset.starts[index])
    end = jnp.where(errand, jnp.minimum(dataset.arrivals[first] - first, horizon - 1), horizon - 1)
    steps = jnp.arange(horizon, dtype=jnp.int32)[None, :]
    return first[:, None] + jnp.minimum(steps, end[:, None]), steps > end[:, None]


def _at_rest(
    dataset: Dataset, rows: Int32[Array, "batch horizon"], resting: Bool[Array, "batch horizon"]
) -> tuple[Float[Array, "batch horizon act"], Float[Array, "batch horizon obs"]]:
    """Return actions and states of the rows; at rest the state has no speed, the action is 0."""
    actions, states = dataset.actions[rows], dataset.observations[rows]
    velocity = jnp.arange(states.shape[-1]) >= states.shape[-1] // 2
    still, rest = dataset.rest[: actions.shape[-1]], dataset.rest[actions.shape[-1] :]
    resting = resting[..., None]
    actions = jnp.where(resting, still[None, None], actions)
    return actions, jnp.where(resting & velocity[None, None], rest[None, None], states)


def sample_pairs(
    dataset: Dataset, key: Key[Array, ""], *, batch_size: int, horizon: int
) -> types.Batch:
    """Draw single actions, conditioned on the states before and after; `horizon` is then 2."""
    index = jax.random.randint(key, (batch_size,), 0, len(dataset.starts))
    first = dataset.starts[index]
    pair = dataset.observations[first[:, None] + jnp.arange(horizon)[None, :]]
    cond = pair.reshape(batch_size, -1)
    return types.Batch(dataset.actions[first][:, None], cond, dataset.returns[first])


def sample_ways(
    dataset: Dataset,
    key: Key[Array, ""],
    *,
    batch_size: int,
    horizon: int,
    ends: int,
    errands: float = 0.0,
) -> types.Batch:
    """Draw windows of actions and states side by side, otherwise `sample_windows`.

    Args:
        dataset: from `build` with the same `horizon`.
        key: a fresh key for each batch.
        batch_size: windows to draw.
        horizon: steps of a window.
        ends: 1 for the first state as the condition, 2 for the first and the last.
        errands: see `_ways`.
    """
    rows, resting = _ways(dataset, key, batch_size, horizon, errands)
    actions, states = _at_rest(dataset, rows, resting)
    cond = jnp.concatenate([states[:, 0], states[:, -1]][:ends], axis=-1)
    x = jnp.concatenate([actions, states], axis=-1)
    return types.Batch(x, cond, dataset.returns[rows[:, 0]])


SAMPLE = {"policy": sample_windows, "planner": sample_plans}  # by the kind of the task


def summary(transitions: episodes.Transitions, task: tasks.TaskSpec) -> dict[str, int | float]:
    """Describe the complete episodes, in the numbers that D4RL's datasets are known by."""
    transitions = episodes.complete(transitions)
    returns = episodes.returns(transitions)
    return {
        "trajectories": len(returns),
        "steps": len(transitions.rewards),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_max": float(returns.max()),
        "return_min": float(returns.min()),
        "score_mean": float(task.score(returns.mean())),
    }
