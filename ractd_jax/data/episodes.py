"""Episodes in one long run of rows, and the windows that a trajectory model is trained on.

    row          0   1   2   3   4   5   6   7   8   9  10
    terminals    .   .   .   .   X   .   .   .   .   .   .     the policy failed
    timeouts     .   .   .   .   .   .   .   .   X   .   .     the time limit ended it
                 |---- episode ----| |-- episode --| |tail|    `complete` drops the tail

    windows of   [0   1   2]            [5   6   7]
    horizon 3        [1   2   3]            [6   7   8]        starts 0 1 2 5 6
                         [2   3   4]

`returns_to_go` gives the discounted sum of the rewards from each row to its episode's end, with a
penalty for a terminal but not for a timeout (RACTD, Duan et al. 2025, experimental details). An
episode ends with its first row that is a terminal or a timeout. Everything here is numpy.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32


class Transitions(NamedTuple):
    """Episodes end to end, in the order they were recorded.

    Attributes:
        observations: before each action; in float64 where float32 would lose them (`validation`).
        actions: in the task's own units.
        rewards: of each action.
        terminals: the episode ended here because the policy failed (or succeeded).
        timeouts: the episode ended here because of its time limit.
    """

    observations: Float[np.ndarray, "n obs"]
    actions: Float32[np.ndarray, "n act"]
    rewards: Float32[np.ndarray, " n"]
    terminals: Bool[np.ndarray, " n"]
    timeouts: Bool[np.ndarray, " n"]


def _last_rows(transitions: Transitions) -> Int[np.ndarray, " episode"]:
    return np.flatnonzero(transitions.terminals | transitions.timeouts)


def complete(transitions: Transitions) -> Transitions:
    """Drop the rows after the last finished episode."""
    last = _last_rows(transitions)
    end = last[-1] + 1 if len(last) else 0
    return Transitions(*(column[:end] for column in transitions))


def lengths(transitions: Transitions) -> Int[np.ndarray, " episode"]:
    """Return the number of rows of each finished episode."""
    return np.diff(_last_rows(transitions), prepend=-1)


def returns(transitions: Transitions) -> Float64[np.ndarray, " episode"]:
    """Return the plain sum of rewards of each finished episode, as D4RL scores them."""
    totals = np.cumsum(transitions.rewards, dtype=np.float64)
    return np.diff(totals[_last_rows(transitions)], prepend=0.0)


def best(transitions: Transitions, share: float) -> Bool[np.ndarray, " n"]:
    """Return which rows lie in the best episodes, by return, that hold a share of all rows.

    Episodes are taken from the best on, until there are enough rows, and with the last of them all
    of the same return: of demonstrations that succeed or fail it takes every success.

    Args:
        transitions: complete episodes.
        share: of the rows, above 0 and at most 1.

    Example:
        >>> zeros, last = np.zeros((4, 1), np.float32), np.array([False, True, False, True])
        >>> rewards = np.array([1, 1, 2, 2], np.float32)
        >>> best(Transitions(zeros, zeros, rewards, last, last & False), 0.5).tolist()
        [False, False, True, True]
    """
    length, totals = lengths(transitions), returns(transitions)
    order = np.argsort(-totals, kind="stable")
    enough = np.searchsorted(np.cumsum(length[order]), share * length.sum())
    return np.repeat(totals >= totals[order[min(enough, len(order) - 1)]], length)


def returns_to_go(
    transitions: Transitions, discount: float, termination_penalty: float
) -> Float32[np.ndarray, " n"]:
    """Return R_i = sum over j >= i within the episode of discount^(j - i) r_j.

    Sums over 2 w rows follow from those over w rows, so no loop over rows is needed:
    R_2w(i) = R_w(i) + discount^w R_w(i + w), where row i + w is still in row i's episode.

    Args:
        transitions: complete episodes.
        discount: in [0, 1].
        termination_penalty: added to the last reward of each episode that ends in a terminal
            (-100 in the paper; 0 for none).

    Example:
        >>> zeros, last = np.zeros((3, 1), np.float32), np.array([False, False, True])
        >>> episode = Transitions(zeros, zeros, np.ones(3, np.float32), last, last & False)
        >>> returns_to_go(episode, 0.5, -8.0).tolist()
        [-0.25, -2.5, -7.0]
    """
    length = lengths(transitions)
    remaining = np.repeat(np.cumsum(length) - 1, length) - np.arange(length.sum())
    total = transitions.rewards.astype(np.float64)
    total[transitions.terminals] += termination_penalty
    window = 1
    while window < length.max(initial=0):
        total[:-window] += discount**window * (remaining[:-window] >= window) * total[window:]
        window *= 2
    return total.astype(np.float32)


def window_starts(
    lengths: Int[np.ndarray, " episode"], horizon: int, drop_last: bool
) -> Int32[np.ndarray, " window"]:
    """Return the first row of every window of `horizon` rows inside one episode.

    Args:
        lengths: rows of each episode.
        horizon: rows of a window.
        drop_last: leave out the last window of every episode, as the published code does. It
            loses an episode's final row, and episodes of just `horizon` rows.

    Example:
        >>> window_starts(np.array([5, 4]), 3, drop_last=False).tolist()
        [0, 1, 2, 5, 6]
    """
    count = np.maximum(lengths - horizon + (0 if drop_last else 1), 0)
    first_row = np.cumsum(lengths) - lengths
    first_window = np.cumsum(count) - count
    starts = np.arange(count.sum()) + np.repeat(first_row - first_window, count)
    return starts.astype(np.int32)
