"""Every fault of a dimension has its own note, and sound data have none."""

import re

import numpy as np
import pytest

from ractd_jax import tasks
from ractd_jax.data import dimensions, episodes

N = 1000
TASK = tasks.TaskSpec(tasks.CUSTOM, obs_dim=4, act_dim=2)


def recording(change=None, dtype=np.float32):
    """Return ten smooth episodes; `change(observations, actions)` spoils them."""
    rng = np.random.default_rng(0)
    observations = np.cumsum(rng.normal(size=(N, 4)), axis=0)
    actions = rng.uniform(-0.9, 0.9, (N, 2)).astype(np.float32)
    if change:
        change(observations, actions)
    ends = np.arange(N) % 100 == 99
    rewards = np.ones(N, np.float32)
    return episodes.Transitions(observations.astype(dtype), actions, rewards, ends & False, ends)


def notes(change=None, dtype=np.float32, names=None):
    described = dimensions.describe(recording(change, dtype), TASK, names)
    return [note for dimension in described for note in dimension.notes]


def test_sound_data_have_no_note():
    assert notes() == []


def sentinel(rows, *values):
    def change(x, _):
        x[rows, 2] = values

    return change


@pytest.mark.parametrize(
    ("change", "row", "count"),
    [
        (sentinel([123], -9999.0), 123, 1),
        (sentinel([7, 300, 301], 1e6), 7, 3),
        (sentinel([7, 300], -1e4, 2e4), 7, 2),
        (sentinel(np.arange(5, 1000, 15), 65535.0), 5, 67),
    ],
)
def test_a_glitch_is_told_with_its_row(change, row, count):
    (note,) = notes(change)
    assert note.startswith("observations: dimension 2 is ")
    assert f"in row {row} and far off in {count} of 1,000 rows" in note
    assert "normalization=quantile" in note


def test_one_note_has_the_name_of_the_file():
    labels = {"observations": ["x", "y", "yaw", "speed"]}
    (note,) = notes(sentinel([123], -9999.0), names=labels)
    assert "dimension 2 (yaw) is -9999 in row 123" in note


def jitter(x, _):
    x[:, 1] = 0.5 + 1e-6 * (np.arange(N) % 2)


def far(x, _):
    x[:, 1] = 5_412_345 + np.sin(np.arange(N))


def faint(x, _):
    x[:, 1] = 1e-9 * np.sin(np.arange(N))


def clipped(x, _):
    np.clip(x[:, 1], np.quantile(x[:, 1], 0.3), None, out=x[:, 1])


def wrapped(x, _):
    x[:, 1] = (np.arange(N) * 0.03 + np.pi) % (2 * np.pi) - np.pi


def saturated_actions(_, actions):
    actions[100:800, 1] = 1.0


@pytest.mark.parametrize(
    ("change", "dtype", "text"),
    [
        (jitter, np.float32, "dimension 1 varies by 1e-06 only around 0.5"),
        (far, np.float64, "dimension 1 varies by 2 around 5412344.*give a policy .* in float64"),
        (faint, np.float32, "dimension 1 varies by 2e-09 only, .* taken for constant"),
        (clipped, np.float32, "dimension 1 is exactly .*its smallest value, in 30"),
        (wrapped, np.float32, "dimension 1 changes 5 times .*, first after row 104"),
        (saturated_actions, np.float32, "actions: dimension 1 is at a limit in 70%.* row 100"),
    ],
)
def test_what_is_odd_has_one_note(change, dtype, text):
    (note,) = notes(change, dtype)
    assert re.search(text, note)


def test_levels_are_neither_saturated_nor_glitches():
    def gripper(x, _):
        x[:, 0] = np.arange(N) // 100 % 2
        x[:, 1] = np.arange(N) % 100 == 50  # rarely open

    assert notes(gripper) == []


def test_a_dimension_is_described_by_its_numbers():
    read = recording(saturated_actions)
    described = dimensions.describe(read, TASK)
    assert [(d.column, d.index) for d in described][3:5] == [("observations", 3), ("actions", 0)]
    x = read.observations[:, 0]
    first, last = described[0], described[-1]
    assert (first.low, first.high) == (x.min(), x.max())
    np.testing.assert_allclose(first.quantiles, np.quantile(x, [0.01, 0.5, 0.99]), atol=0.5)
    assert (last.at_low, last.at_high) == (0.0, 0.7)
