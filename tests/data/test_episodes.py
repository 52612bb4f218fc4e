"""Windows stay inside an episode, and returns-to-go are what their definition says."""

import sys

import numpy as np
import pytest
from helpers import STRUCTURES, transitions_of
from hypothesis import given
from hypothesis import strategies as st

from ractd_jax.data import episodes


@given(STRUCTURES)
def test_complete_drops_the_tail_and_nothing_else(structure):
    finished, tail = structure
    transitions = transitions_of(structure)
    kept = episodes.complete(transitions)
    assert len(kept.rewards) == len(transitions.rewards) - tail
    assert episodes.lengths(kept).tolist() == [length for length, _ in finished]
    again = episodes.complete(kept)
    assert all(np.array_equal(a, b) for a, b in zip(again, kept, strict=True))


@given(STRUCTURES)
def test_returns_are_sums_per_episode(structure):
    transitions = transitions_of(structure)
    ends = np.cumsum([length for length, _ in structure[0]]).astype(int)
    expected = [part.sum(dtype=float) for part in np.split(transitions.rewards, ends)[:-1]]
    if structure[0]:
        np.testing.assert_allclose(episodes.returns(transitions), expected, atol=1e-5)
    else:
        assert len(episodes.returns(transitions)) == 0


@given(STRUCTURES, st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.sampled_from([0.0, -100.0]))
def test_returns_to_go_equal_their_definition(structure, discount, penalty):
    transitions = episodes.complete(transitions_of(structure))
    expected = []
    start = 0
    for length, terminal in structure[0]:
        rewards = transitions.rewards[start : start + length].astype(float)
        rewards[-1] += penalty if terminal else 0.0
        for i in range(length):
            expected.append(sum(discount ** (j - i) * rewards[j] for j in range(i, length)))
        start += length
    actual = episodes.returns_to_go(transitions, discount, penalty)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 1000])
def test_constant_reward_has_the_closed_form(length):
    transitions = transitions_of(
        ([(length, False), (length, False)], 0), lambda n: np.full(n, 3.0, np.float32)
    )
    remaining = length - np.arange(length)
    expected = 3.0 * (1 - 0.99**remaining) / (1 - 0.99)
    actual = episodes.returns_to_go(transitions, 0.99, -100.0)
    np.testing.assert_allclose(actual, np.tile(expected, 2), rtol=1e-6)


def test_penalty_falls_on_terminals_and_never_on_timeouts():
    transitions = transitions_of(([(3, True), (3, False)], 0))
    without = episodes.returns_to_go(transitions, 0.5, 0.0)
    with_penalty = episodes.returns_to_go(transitions, 0.5, -100.0)
    np.testing.assert_allclose(with_penalty - without, [-25, -50, -100, 0, 0, 0], atol=1e-4)


@given(STRUCTURES, st.integers(1, 13), st.booleans())
def test_windows_are_all_those_inside_an_episode(structure, horizon, drop_last):
    lengths = np.array([length for length, _ in structure[0]], int)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    inside = [
        row
        for row in range(len(owner) - horizon + 1)
        if owner[row] == owner[row + horizon - 1]
        and not (drop_last and (row + horizon == len(owner) or owner[row + horizon] != owner[row]))
    ]
    starts = episodes.window_starts(lengths, horizon, drop_last)
    assert starts.dtype == np.int32
    assert starts.tolist() == inside


def test_drop_last_is_the_published_off_by_one():
    lengths = np.array([16, 17, 20])
    assert len(episodes.window_starts(lengths, 16, drop_last=False)) == 1 + 2 + 5
    assert episodes.window_starts(lengths, 16, drop_last=True).tolist() == [16, 33, 34, 35, 36]


def test_a_thousand_times_as_many_episodes_are_no_more_lines_of_python():
    def lines(count):
        transitions, seen = transitions_of(([(20, True)] * count, 0)), []

        def trace(frame, event, argument):
            if frame.f_code.co_filename == episodes.__file__:  # not a garbage collection's
                seen.append(event)
                return trace
            return None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            episodes.returns_to_go(transitions, 0.99, -100.0)
        finally:
            sys.settrace(before)
        return len(seen)

    assert lines(2000) == lines(2) > 0
