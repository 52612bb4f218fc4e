"""Where episodes end: by the columns that say so, or by other signs of it, which have to agree.

    terminals, timeouts   the ends themselves
    episode, step         a number for each episode, a counter that begins anew with each
    next_observations     they do not continue in the next row where an episode ends
    max_episode_steps     of the task, counted from the last end

A file without `timeouts` needs one of the other signs. Two episodes that nobody parted would be
learnt as one, with a step between them that no robot took.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from ractd_jax import errors, tasks

EPISODE = ("episode", "episode_id", "episode_ids", "episode_index", "trajectory", "traj_id")
STEP = ("step", "steps", "step_index", "timestep", "timesteps", "frame_index")
NEXT = "next_observations"
SIGNS = (*EPISODE, *STEP, NEXT)

Wrong = Callable[[str], errors.UserError]  # makes the error of what is wrong with the data


class Ends(NamedTuple):
    """Where episodes end.

    Attributes:
        terminals: the policy failed, or succeeded.
        timeouts: any other end.
    """

    terminals: Bool[np.ndarray, " n"]
    timeouts: Bool[np.ndarray, " n"]


def find(columns: Mapping[str, np.ndarray], task: tasks.TaskSpec, wrong: Wrong) -> Ends:
    """Return the ends of all episodes in some columns.

    Args:
        columns: `observations`, `terminals`, perhaps `timeouts` and any of `SIGNS`, each with a
            number for each row.
        task: its time limit, 0 for none.
        wrong: makes the error.

    Raises:
        UserError: nothing says where episodes end, or two signs contradict each other.

    Example:
        >>> columns = {"observations": np.zeros((4, 2)), "terminals": np.zeros(4, bool)}
        >>> columns["episode"] = np.array([7, 7, 8, 8])
        >>> find(columns, tasks.TaskSpec("custom"), errors.UserError).timeouts.tolist()
        [False, True, False, True]
    """
    n = len(columns["observations"])
    terminals = _flags(columns["terminals"], "terminals", wrong)
    timeouts = None
    if "timeouts" in columns:
        timeouts = _flags(columns["timeouts"], "timeouts", wrong)
    custom = task.name == tasks.CUSTOM
    signs = _signs(columns, follow=custom or timeouts is None)
    if timeouts is not None and (terminals | timeouts).any():
        named = terminals | timeouts
        _compare("terminals or timeouts", named, signs, int(np.flatnonzero(named)[-1]), wrong)
    elif signs:
        first, ends = next(iter(signs.items()))
        _compare(first, ends, {k: v for k, v in signs.items() if k != first}, n - 1, wrong)
        inside = np.flatnonzero(terminals & ~ends)
        if len(inside) and first != NEXT:
            raise wrong(
                f"row {inside[0]} is a terminal, but {first!r} goes on in row {inside[0] + 1}: "
                "mend the wrong one of these columns, or leave it out"
            )
        timeouts = ends & ~terminals
    elif task.max_episode_steps:
        timeouts = _by_limit(terminals, task.max_episode_steps)
        _check_tail(columns, terminals, wrong)
    elif timeouts is None and terminals.any():
        raise wrong(
            "nothing says where episodes end that end in no terminal: add a column 'timeouts' "
            "(zeros if there are none), 'episode' or 'step', or "
            "--config.task.max_episode_steps=<k> ends them"
        )
    else:
        timeouts = np.zeros(n, bool)
    if custom and task.max_episode_steps:
        _check_limit(terminals | timeouts, task.max_episode_steps, wrong)
    return Ends(terminals, timeouts)


def _flags(column: np.ndarray, name: str, wrong: Wrong) -> Bool[np.ndarray, " n"]:
    """Return a column of yes and no; a buffer's tail of NaN says no."""
    known = np.isin(column, (0, 1))
    if column.dtype.kind == "f":
        filled = np.flatnonzero(~np.isnan(column))
        known[filled[-1] + 1 if len(filled) else len(column) :] = True
    if not known.all():
        row = int(np.argmin(known))
        raise wrong(f"{name} says yes or no with 1 or 0, and in row {row} {column[row]:g}")
    return column == 1


def _signs(columns: Mapping[str, np.ndarray], *, follow: bool) -> dict[str, Bool[np.ndarray, " n"]]:
    """Return the rows that end an episode, by each column that is a sign of it."""
    signs = {}
    for names, ends_of in ((EPISODE, _by_number), (STEP, _by_counter)):
        for name in names:
            ends = ends_of(columns[name]) if name in columns else None
            if ends is not None:
                signs[name] = ends
    if follow and NEXT in columns:
        ends = _by_next(columns["observations"], columns[NEXT])
        if ends is not None:
            signs[NEXT] = ends
    return signs


def _by_number(column: np.ndarray) -> Bool[np.ndarray, " n"] | None:
    """Return the last row of each episode's number; None if the column is no such thing."""
    last = np.append(column[1:] != column[:-1], True)
    # In an episode's rows the number is the same, and it never comes again.
    if last.sum() > len(np.unique(column)) or last.sum() > max(1, len(column) // 2):
        return None
    return last


def _by_counter(column: np.ndarray) -> Bool[np.ndarray, " n"] | None:
    """Return the rows before a counter begins anew; None if the column is no such counter."""
    if column.dtype.kind not in "iuf":
        return None
    change = np.diff(column.astype(np.float64))
    back = change != 1
    begins = column[1:][back]
    if back.all() or not back.any() or (begins != begins.min()).any() or column[0] < begins[0]:
        return None
    return np.append(back, True)


def _by_next(observations: np.ndarray, following: np.ndarray) -> Bool[np.ndarray, " n"] | None:
    """Return the rows whose next observation is not the next row's; None if that tells nothing."""
    if following.shape != observations.shape or len(observations) < 2:
        return None
    with np.errstate(invalid="ignore"):
        apart = ~np.isclose(following[:-1], observations[1:], rtol=1e-5, atol=1e-6).all(axis=1)
    return np.append(apart, True) if 0 < apart.mean() <= 0.5 else None


def _compare(
    name: str,
    ends: Bool[np.ndarray, " n"],
    signs: Mapping[str, Bool[np.ndarray, " n"]],
    last: int,
    wrong: Wrong,
) -> None:
    """Refuse signs that name other ends than some column does, up to its last one."""
    for sign, other in signs.items():
        apart = ends[: last + 1] != other[: last + 1]
        apart[last] = False  # where recording stopped, a counter does not begin anew
        if sign == NEXT:  # some write what the next row holds, though another episode begins there
            apart &= ~ends[: last + 1]
        if apart.any():
            row = int(apart.argmax())
            yes, no = (name, sign) if ends[row] else (sign, name)
            raise wrong(
                f"an episode ends in row {row} by {yes}, but not by {no}, and "
                f"{apart.sum() - 1:,} more rows differ so: mend the wrong one of these columns, or "
                "leave it out"
            )


def _by_limit(terminals: Bool[np.ndarray, " n"], limit: int) -> Bool[np.ndarray, " n"]:
    """Return where the time limit ended an episode, in a file that has only its terminals."""
    rows = np.arange(len(terminals))
    start = np.maximum.accumulate(np.where(np.roll(terminals, 1), rows, 0))
    return ((rows - start) % limit == limit - 1) & ~terminals


def _check_tail(
    columns: Mapping[str, np.ndarray], terminals: Bool[np.ndarray, " n"], wrong: Wrong
) -> None:
    """Refuse rows of zeros at the end, of which a time limit would make episodes."""
    observations, actions = columns["observations"], columns["actions"]
    n = len(terminals)
    if len(actions) != n or n < 2:
        return
    written = [(column != 0).reshape(n, -1).any(axis=1) for column in (observations, actions)]
    filled = np.flatnonzero(terminals | np.any(written, axis=0))
    empty = n - 1 - (filled[-1] if np.any(written) else n - 1)
    if empty > 1:
        raise wrong(
            f"its last {empty:,} rows, from row {n - empty} on, are zeros, as of a buffer that was "
            "never filled: cut them off, or add a column 'timeouts'"
        )


def _check_limit(ends: Bool[np.ndarray, " n"], limit: int, wrong: Wrong) -> None:
    """Refuse an episode that is longer than a time limit that was named."""
    last = np.flatnonzero(ends)
    lengths = np.diff(last, prepend=-1)
    if len(lengths) and lengths.max() > limit:
        episode = int(lengths.argmax())
        first = last[episode] - lengths[episode] + 1
        raise wrong(
            f"the episode of the rows {first} to {last[episode]} has {lengths[episode]:,} steps, "
            f"and task.max_episode_steps is {limit:,}: name the time limit it was recorded with, "
            "or mend its ends"
        )
