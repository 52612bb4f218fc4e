"""From columns of numbers to episodes: checks that they can be a task's data, one line a fault.

Every source ends here, so that a file, a Minari dataset and an installed `d4rl` are held to the
same rules: D4RL's schema (Fu et al. 2020), the task's sizes, finite numbers, actions within limits.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Float32

from ractd_jax import errors, tasks
from ractd_jax.data import episodes

REQUIRED = ("observations", "actions", "rewards", "terminals")
ACTION_SLACK = 1e-3  # of half the range: rounding that is clipped; more means other units

Wrong = Callable[[str], errors.UserError]  # makes the error of what is wrong with the data


def check(
    columns: Mapping[str, np.ndarray], task: tasks.TaskSpec, where: str
) -> episodes.Transitions:
    """Return the complete episodes of some columns.

    Args:
        columns: `observations` (n, obs), `actions` (n, act), `rewards`, `terminals` and perhaps
            `timeouts` (n,) or (n, 1); others are ignored. Missing `timeouts` follow from the time
            limit of the task, if it has one.
        task: what sizes and action limits are checked against; a custom task's unknown sizes (0)
            and limits (none) allow any.
        where: the file or dataset, for the message.

    Raises:
        UserError: the columns cannot be the task's data; names the column and the row.

    Example:
        >>> columns = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1))}
        >>> columns |= {"rewards": np.ones(4), "terminals": np.array([0, 1, 0, 1])}
        >>> episodes.lengths(check(columns, tasks.TaskSpec("custom"), "a robot's log")).tolist()
        [2, 2]
    """

    def wrong(what: str) -> errors.UserError:
        kind = "usable" if task.name == tasks.CUSTOM else f"{task.name}"
        return errors.UserError(f"{where} is not {kind} data: {what}")

    for name in REQUIRED:
        if name not in columns:
            names = ", ".join(sorted(columns)) or "nothing"
            raise wrong(f"it has no {name!r}, only {names}")
    n = len(np.atleast_1d(columns["observations"]))
    sizes = {"observations": task.obs_dim, "actions": task.act_dim}
    checked = {
        name: _checked(np.asarray(columns[name]), n, sizes.get(name), name, wrong)
        for name in episodes.Transitions._fields
        if name in columns
    }
    terminals = checked["terminals"].astype(bool)
    if "timeouts" in checked:
        timeouts = checked["timeouts"].astype(bool)
    else:
        timeouts = _derive_timeouts(terminals, task.max_episode_steps)
    actions = _within_limits(checked["actions"], task, wrong)
    recorded = episodes.complete(
        episodes.Transitions(
            checked["observations"], actions, checked["rewards"], terminals, timeouts
        )
    )
    if not len(recorded.rewards):
        hint = ""
        if task.name == tasks.CUSTOM:
            hint = "; without a column 'timeouts', --config.task.max_episode_steps=<k> ends them"
        raise wrong(f"no episode is complete, no row of its {n} is a terminal or a timeout{hint}")
    return recorded


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


def _checked(
    column: np.ndarray, n: int, size: int | None, name: str, wrong: Wrong
) -> Float32[np.ndarray, "..."]:
    """Return a column in float32, if its shape and all its numbers can be right."""
    column = _column(column, n, size, name, wrong)
    bad = ~np.isfinite(column).all(axis=tuple(range(1, column.ndim)))
    if bad.any():
        raise wrong(f"{name} is NaN or infinite in {bad.sum()} rows, first in {bad.argmax()}")
    if name in ("terminals", "timeouts") and not np.isin(column, (0, 1)).all():
        row = int(np.argmin(np.isin(column, (0, 1))))
        raise wrong(f"{name} says yes or no with 1 or 0, and in row {row} {column[row]:g}")
    return column


def _column(
    column: np.ndarray, n: int, size: int | None, name: str, wrong: Wrong
) -> Float32[np.ndarray, "..."]:
    """Return a column in float32; `size` is None for a number a row, 0 for any number of them."""
    if size is None and column.shape[1:] == (1,):
        column = column[:, 0]
    fits = column.shape == (n,) if size is None else column.shape == (n, size)
    if size == 0:
        fits = column.ndim == 2 and len(column) == n and column.shape[1] > 0
    if not fits:
        shape = f"({n},)" if size is None else f"({n}, {size or 'numbers a step'})"
        raise wrong(f"{name} is {column.shape}, expected {shape}")
    if column.dtype.kind not in "biuf":
        raise wrong(f"{name} holds {column.dtype}, not numbers")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is reported
        return column.astype(np.float32)


def _custom_limits(
    actions: Float[np.ndarray, "n act"], task: tasks.TaskSpec
) -> tuple[Float[np.ndarray, " act"], Float[np.ndarray, " act"]]:
    """Return a custom task's action limits: each as named, or else as recorded."""
    size = actions.shape[1:]
    low = task.action_low or actions.min(axis=0)
    high = task.action_high or actions.max(axis=0)
    return np.broadcast_to(low, size), np.broadcast_to(high, size)


def _within_limits(
    actions: Float32[np.ndarray, "n act"], task: tasks.TaskSpec, wrong: Wrong
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


def _derive_timeouts(terminals: Bool[np.ndarray, " n"], limit: int) -> Bool[np.ndarray, " n"]:
    """Return where the time limit ended an episode, in a file that has only its terminals."""
    if not limit:
        return np.zeros_like(terminals)
    rows = np.arange(len(terminals))
    start = np.maximum.accumulate(np.where(np.roll(terminals, 1), rows, 0))
    return ((rows - start) % limit == limit - 1) & ~terminals
