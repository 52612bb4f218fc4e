"""From columns of numbers to episodes: checks that they can be a task's data, one line a fault.

Every source ends here, so that a file, a Minari dataset and an installed `d4rl` are held to the
same rules: D4RL's schema (Fu et al. 2020), the task's sizes, finite numbers, actions within limits.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Int

from ractd_jax import errors, tasks
from ractd_jax.data import ends, episodes, normalization

REQUIRED = ("observations", "actions", "rewards", "terminals")
NUMBERS = ("rewards", "terminals", "timeouts", *ends.EPISODE, *ends.STEP)  # one a row
ACTION_SLACK = 1e-3  # of half the range: rounding that is clipped; more means other units


def check(
    columns: Mapping[str, np.ndarray], task: tasks.TaskSpec, where: str
) -> episodes.Transitions:
    """Return the complete episodes of some columns.

    Args:
        columns: `observations` (n, obs), `actions` (n, act), `rewards`, `terminals` and perhaps
            `timeouts` (n,) or (n, 1), and signs of an episode's end (`ends.SIGNS`); others are
            ignored. Rows after the last end are dropped, whatever they hold.
        task: what sizes and action limits are checked against; a custom task's unknown sizes (0)
            and limits (none) allow any.
        where: the file or dataset, for the message.

    Returns:
        The episodes, in float32; observations in float64 where they lie so far from 0 that float32
        would lose them.

    Raises:
        UserError: the columns cannot be the task's data; names the column and the row.

    Example:
        >>> columns = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1))}
        >>> columns |= {"rewards": np.ones(4), "terminals": np.array([0, 1, 0, 1])}
        >>> columns["timeouts"] = np.zeros(4)
        >>> episodes.lengths(check(columns, tasks.TaskSpec("custom"), "a robot's log")).tolist()
        [2, 2]
    """
    wrong = fault(task, where)
    columns = {name: np.asarray(column) for name, column in columns.items()}
    check_shapes({name: (c.shape, c.dtype) for name, c in columns.items()}, task, where)
    n = len(columns["observations"])
    known = {
        name: column[:, 0] if name in NUMBERS and column.ndim == 2 else column
        for name, column in columns.items()
        if column.ndim and len(column) == n  # a file's notes may be single values
    }
    terminals, timeouts = ends.find(known, task, wrong)
    last = np.flatnonzero(terminals | timeouts)
    if not len(last):
        hint = ""
        if task.name == tasks.CUSTOM:
            hint = (
                "; without a column 'timeouts', 'episode' or 'step', "
                "--config.task.max_episode_steps=<k> ends them"
            )
        raise wrong(f"no episode is complete, no row of its {n} is a terminal or a timeout{hint}")
    stop = last[-1] + 1
    observations = _observations(known["observations"][:stop], wrong)
    actions = _finite(known["actions"][:stop], "actions", wrong)
    _check_precision(known["actions"][:stop], wrong)
    return episodes.Transitions(
        observations,
        _within_limits(actions, task, wrong),
        _finite(known["rewards"][:stop], "rewards", wrong),
        terminals[:stop],
        timeouts[:stop],
    )


def fault(task: tasks.TaskSpec, where: str) -> ends.Wrong:
    """Return what makes the error of a fault in some data, `(what is wrong) -> UserError`.

    Example:
        >>> str(fault(tasks.TaskSpec("custom"), "a.hdf5")("it is empty"))
        'a.hdf5 is not usable data: it is empty'
    """

    def wrong(what: str) -> errors.UserError:
        kind = "usable" if task.name == tasks.CUSTOM else f"{task.name}"
        return errors.UserError(f"{where} is not {kind} data: {what}")

    return wrong


def check_shapes(
    shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]], task: tasks.TaskSpec, where: str
) -> None:
    """Refuse columns whose names, shapes or types cannot be a task's, before they are read.

    Args:
        shapes: of each column, and its type.
        task: see `check`.
        where: see `check`.

    Raises:
        UserError: a column is missing, or has another shape or type.
    """
    wrong = fault(task, where)
    for name in REQUIRED:
        if name not in shapes:
            names = ", ".join(sorted(shapes)) or "nothing"
            raise wrong(f"it has no {name!r}, only {names}")
    n = shapes["observations"][0][0] if shapes["observations"][0] else 1
    sizes = {"observations": task.obs_dim, "actions": task.act_dim}
    for name in episodes.Transitions._fields:
        if name in shapes:
            _check_shape(*shapes[name], n, sizes.get(name), name, wrong)


def measure(task: tasks.TaskSpec, recorded: episodes.Transitions) -> tasks.TaskSpec:
    """Return a custom task with its unknown sizes and action limits taken from its data.

    A limit that is not named is the smallest or largest recorded action of each dimension, so that
    a policy never asks a robot for more than was recorded.

    Args:
        task: whose sizes may be 0 and limits ().
        recorded: its complete episodes.

    Example:
        >>> actions = np.array([[-2.0], [0.5]], np.float32)
        >>> recorded = episodes.Transitions(
        ...     np.zeros((2, 3), np.float32), actions, np.zeros(2, np.float32),
        ...     np.array([False, True]), np.zeros(2, bool),
        ... )
        >>> measured = measure(tasks.TaskSpec("custom"), recorded)
        >>> measured.obs_dim, measured.max_episode_steps, measured.action_low, measured.action_high
        (3, 2, (-2.0,), (0.5,))
    """
    low, high = _custom_limits(recorded.actions, task)
    return dataclasses.replace(
        task,
        obs_dim=recorded.observations.shape[1],
        act_dim=recorded.actions.shape[1],
        max_episode_steps=int(task.max_episode_steps or episodes.lengths(recorded).max()),
        action_low=tuple(float(value) for value in low),
        action_high=tuple(float(value) for value in high),
    )


def _check_shape(
    shape: tuple[int, ...], dtype: np.dtype, n: int, size: int | None, name: str, wrong: ends.Wrong
) -> None:
    """Refuse a column; `size` is None for a number a row, 0 for any number of them."""
    fits = shape in ((n,), (n, 1)) if size is None else shape == (n, size)
    if size == 0:
        fits = len(shape) == 2 and shape[0] == n and shape[1] > 0
    if not fits:
        expected = f"({n},)" if size is None else f"({n}, {size or 'numbers a step'})"
        images = "; images cannot be learnt from" if len(shape) > 2 else ""
        raise wrong(f"{name} is {shape}, expected {expected}{images}")
    if dtype.kind not in "biuf":
        raise wrong(f"{name} holds {dtype}, not numbers")


def _finite(
    column: np.ndarray, name: str, wrong: ends.Wrong, dtype: type = np.float32
) -> Float[np.ndarray, "..."]:
    """Return a column in another precision, if all its numbers are numbers there."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is reported
        column = column.astype(dtype)
    bad = ~np.isfinite(column).all(axis=tuple(range(1, column.ndim)))
    if bad.any():
        raise wrong(f"{name} is NaN or infinite in {bad.sum()} rows, first in {bad.argmax()}")
    return column


def _observations(column: np.ndarray, wrong: ends.Wrong) -> Float[np.ndarray, "n obs"]:
    """Return observations in float32, or in float64 where a dimension needs its digits."""
    single = _finite(column, "observations", wrong)
    return column.astype(np.float64) if len(_lost_in_float32(column)) else single


def _check_precision(actions: np.ndarray, wrong: ends.Wrong) -> None:
    """Refuse actions whose digits are lost in float32, in which a policy gives them."""
    lost = _lost_in_float32(actions)
    if len(lost):
        values = actions[:, lost[0]]
        steps = normalization.spacing(values)
        raise wrong(
            f"actions: dimension {lost[0]} lies between {values.min():.9g} and "
            f"{values.max():.9g}, where float32 has steps of {steps:.2g}: record it from a start "
            "that is near, such as its first value"
        )


def _lost_in_float32(column: np.ndarray) -> Int[np.ndarray, " lost"]:
    """Return the dimensions of a column of more digits that lie far from 0 for their range."""
    if column.dtype.itemsize <= 4 or not len(column):
        return np.zeros(0, int)
    low, high = column.min(axis=0).astype(np.float64), column.max(axis=0).astype(np.float64)
    return np.flatnonzero(normalization.far_from_zero(low, high))


def _custom_limits(
    actions: Float[np.ndarray, "n act"], task: tasks.TaskSpec
) -> tuple[Float[np.ndarray, " act"], Float[np.ndarray, " act"]]:
    """Return a custom task's action limits: each as named, or else as recorded."""
    size = actions.shape[1:]
    low = task.action_low or actions.min(axis=0)
    high = task.action_high or actions.max(axis=0)
    return np.broadcast_to(low, size), np.broadcast_to(high, size)


def _within_limits(
    actions: Float32[np.ndarray, "n act"], task: tasks.TaskSpec, wrong: ends.Wrong
) -> Float32[np.ndarray, "n act"]:
    """Clip rounding beyond the limits; more than rounding is other units, and an error."""
    custom = task.name == tasks.CUSTOM
    if not len(actions) or (custom and not (task.action_low or task.action_high)):
        return actions
    for name in ("action_low", "action_high"):
        numbers = len(getattr(task, name))
        if numbers not in (0, 1, actions.shape[1]):
            raise wrong(f"task.{name} has {numbers} numbers, its actions have {actions.shape[1]}")
    limits = _custom_limits(actions, task) if custom else task.action_limits()
    low, high = (np.broadcast_to(limit, actions.shape[1:]) for limit in limits)
    # A recorded limit may lie on the named one, where an action never changes, or beyond it.
    half = np.where((high > low) & np.isfinite(high - low), (high - low) / 2, 1.0)
    excess = np.maximum(low - actions, actions - high) / half
    if excess.max(initial=0.0) > ACTION_SLACK:
        row = excess.max(axis=1).argmax()
        raise wrong(
            f"actions leave [{_show(low)}, {_show(high)}], furthest in row {row}: "
            f"{actions[row].tolist()}"
        )
    return np.clip(actions, low, high).astype(np.float32)


def _show(limit: Float[np.ndarray, " act"]) -> str:
    """Write a limit as one number where all its numbers are the same.

    Example:
        >>> _show(np.array([1.0, 1.0])), _show(np.array([1.0, 2.5]))
        ('1', '[1.0, 2.5]')
    """
    same = len(set(limit.tolist())) <= 1 and len(limit)
    return f"{limit[0]:g}" if same else str([float(f"{v:g}") for v in limit])
