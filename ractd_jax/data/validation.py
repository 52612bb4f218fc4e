"""From columns of numbers to episodes: checks that they can be a task's data, in one line a fault.

Every source ends here, so that a file, a Minari dataset and an installed `d4rl` are held to the
same rules: D4RL's schema (Fu et al. 2020), the task's sizes, finite numbers, actions within limits.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from ractd_jax import errors, tasks
from ractd_jax.data import episodes

REQUIRED = ("observations", "actions", "rewards", "terminals")
ACTION_SLACK = 1e-3  # of half the range: rounding that is clipped; more means other units


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
    """

    def wrong(what: str) -> errors.UserError:
        kind = "usable" if task.name == tasks.CUSTOM else f"{task.name}"
        return errors.UserError(f"{where} is not {kind} data: {what}")

    for name in REQUIRED:
        if name not in columns:
            raise wrong(f"it has no {name!r}, only {', '.join(sorted(columns)) or 'nothing'}")
    found = {}
    n = len(np.atleast_1d(columns["observations"]))
    sizes = {"observations": task.obs_dim, "actions": task.act_dim}
    for name in episodes.Transitions._fields:
        if name in columns:
            column = _column(np.asarray(columns[name]), n, sizes.get(name), name, wrong)
            bad = ~np.isfinite(column).all(axis=tuple(range(1, column.ndim)))
            if bad.any():
                raise wrong(
                    f"{name} is NaN or infinite in {bad.sum()} rows, first in {bad.argmax()}"
                )
            if name in ("terminals", "timeouts") and not np.isin(column, (0, 1)).all():
                row = int(np.argmin(np.isin(column, (0, 1))))
                raise wrong(f"{name} says yes or no with 1 or 0, and in row {row} {column[row]:g}")
            found[name] = column

    terminals = found["terminals"].astype(bool)
    timeouts = found.get("timeouts")
    if timeouts is None:
        timeouts = _derive_timeouts(terminals, task.max_episode_steps)
    transitions = episodes.Transitions(
        found["observations"],
        _within_limits(found["actions"], task, wrong),
        found["rewards"],
        terminals,
        timeouts.astype(bool),
    )
    transitions = episodes.complete(transitions)
    if not len(transitions.rewards):
        hint = ""
        if task.name == tasks.CUSTOM:
            hint = "; without a column 'timeouts', --config.custom.max_episode_steps=<k> ends them"
        raise wrong(f"no episode is complete, no row of its {n} is a terminal or a timeout{hint}")
    return transitions


def measure(task: tasks.TaskSpec, transitions: episodes.Transitions) -> dict[str, Any]:
    """Return a custom task's sizes and action limits, the unknown ones taken from its data.

    A limit that is not named is the smallest or largest recorded action of each dimension, so that
    a policy never asks a robot for more than somebody did before.

    Returns:
        The section `custom` of a configuration, see configs/custom.py.
    """
    low, high = _custom_limits(transitions.actions, task)
    return {
        "obs_dim": transitions.observations.shape[1],
        "act_dim": transitions.actions.shape[1],
        "max_episode_steps": int(task.max_episode_steps or episodes.lengths(transitions).max()),
        "action_low": [float(v) for v in low],
        "action_high": [float(v) for v in high],
    }


def _column(column: np.ndarray, n: int, size: int | None, name: str, wrong) -> np.ndarray:
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


def _custom_limits(actions: np.ndarray, task: tasks.TaskSpec) -> tuple[np.ndarray, ...]:
    """Return a custom task's action limits, in one shape: each as named, or else as recorded."""
    return np.broadcast_arrays(
        task.action_low or actions.min(axis=0), task.action_high or actions.max(axis=0)
    )


def _within_limits(actions: np.ndarray, task: tasks.TaskSpec, wrong) -> np.ndarray:
    """Clip rounding beyond the limits; more than rounding is other units, and an error."""
    own = task.name == tasks.CUSTOM
    if not len(actions) or (own and not (task.action_low or task.action_high)):
        return actions
    for name in ("action_low", "action_high"):
        given = getattr(task, name)
        if given and len(given) not in (1, actions.shape[1]):
            raise wrong(
                f"custom.{name} has {len(given)} numbers, its actions have {actions.shape[1]}"
            )
    limits = _custom_limits(actions, task) if own else task.action_limits()
    low, high = (np.broadcast_to(limit, actions.shape[1:]) for limit in limits)
    if task.action_low and task.action_high and (low >= high).any():
        raise wrong(f"the lower action limits {_show(low)} are not below the upper {_show(high)}")
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


def _show(limit: np.ndarray) -> str:
    same = len(set(limit.tolist())) <= 1 and len(limit)
    return f"{limit[0]:g}" if same else str([float(f"{v:g}") for v in limit])


def _derive_timeouts(terminals: Bool[np.ndarray, " n"], limit: int) -> Bool[np.ndarray, " n"]:
    """Say where the time limit ended an episode, in a file that says only where a failure did."""
    if not limit:
        return np.zeros_like(terminals)
    rows = np.arange(len(terminals))
    start = np.maximum.accumulate(np.where(np.roll(terminals, 1), rows, 0))
    return ((rows - start) % limit == limit - 1) & ~terminals
