"""Episodes end where some column says so, and columns that contradict each other are named."""

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import dimensions, episodes, validation

N, LENGTH = 60, 20
CUSTOM, HOPPER = tasks.TaskSpec(tasks.CUSTOM), tasks.get("hopper-medium-v2")


@pytest.fixture
def columns():
    """Three walks of 20 steps; none ends in a terminal, and no column says where they end."""
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(LENGTH + 1, 3)), axis=0) + 99 * i for i in range(3)]
    return {
        "observations": np.concatenate([walk[:-1] for walk in walks]),
        "next_observations": np.concatenate([walk[1:] for walk in walks]),
        "actions": rng.uniform(-1, 1, (N, 2)),
        "rewards": np.ones(N),
        "terminals": np.arange(N) == LENGTH - 1,
    }


def without(columns, *names):
    return {name: column for name, column in columns.items() if name not in names}


def lengths(columns, task=CUSTOM):
    return episodes.lengths(validation.check(columns, task, "robot.hdf5")).tolist()


def refused(columns, text, task=CUSTOM):
    with pytest.raises(errors.UserError, match=text) as caught:
        validation.check(columns, task, "robot.hdf5")
    assert "\n" not in str(caught.value)


SIGNS = {
    "timeouts": np.arange(N) % LENGTH == LENGTH - 1,
    "episode": np.arange(N) // LENGTH,
    "episode_id": np.array([b"a", b"b", b"c"])[np.arange(N) // LENGTH],
    "step": np.arange(N) % LENGTH,
    "timestep": (np.arange(N) % LENGTH + 1.0)[:, None],
}


@pytest.mark.parametrize("name", SIGNS)
def test_each_sign_ends_episodes(name, columns):
    columns = without(columns, "next_observations") | {name: SIGNS[name]}
    assert lengths(columns) == [20, 20, 20]


def test_next_observations_that_do_not_continue_end_episodes(columns):
    assert lengths(columns) == [20, 20, 20]


def test_without_any_sign_it_is_refused(columns):
    columns = without(columns, "next_observations")
    refused(columns, "nothing says where .* add a column 'timeouts' .*max_episode_steps=<k>")
    columns["step"] = np.arange(N)  # of the whole recording, so it says nothing
    refused(columns, "nothing says where")
    columns["timeouts"] = np.zeros(N)  # which says that there are none
    assert lengths(columns) == [20]


@pytest.mark.parametrize("task", [CUSTOM, HOPPER])
@pytest.mark.parametrize("name", ["episode", "step"])
def test_contradictions_are_named(task, name, columns):
    sizes = {"observations": task.obs_dim or 3, "actions": task.act_dim or 2}
    columns |= {k: np.zeros((N, size)) for k, size in sizes.items()}
    columns = without(columns, "next_observations") | {name: SIGNS[name]}
    columns["timeouts"] = np.isin(np.arange(N), (24, 39, 59))
    refused(columns, f"ends in row 24 by terminals or timeouts, but not by {name}", task)
    columns["timeouts"] = np.arange(N) == 59
    refused(columns, f"ends in row 39 by {name}, but not by terminals or timeouts", task)


def test_next_observations_that_break_within_an_episode_are_named(columns):
    columns["timeouts"] = np.arange(N) == N - 1
    refused(columns, "ends in row 39 by next_observations, but not by terminals or timeouts")
    columns["timeouts"] = SIGNS["timeouts"]
    columns["next_observations"] = np.roll(columns["observations"], -1, axis=0)  # as some write
    assert lengths(columns) == [20, 20, 20]


def test_a_terminal_within_an_episode_is_named(columns):
    columns["terminals"] = np.arange(N) == 7
    refused(columns | {"episode": SIGNS["episode"]}, "row 7 is a terminal, but 'episode' goes on")


def test_an_episode_longer_than_the_named_limit_is_named(columns):
    columns["timeouts"] = SIGNS["timeouts"]
    task = tasks.TaskSpec(tasks.CUSTOM, max_episode_steps=15)
    refused(columns, "the rows 0 to 19 has 20 steps, and task.max_episode_steps is 15", task)


@pytest.mark.parametrize("fill", [np.nan, 0.0, np.inf])
def test_rows_after_the_last_end_may_hold_anything(fill, columns):
    columns["timeouts"] = SIGNS["timeouts"].astype(float)
    columns["terminals"] = columns["terminals"].astype(float)
    padded = {}
    for name, column in columns.items():
        ends = name in ("terminals", "timeouts")
        tail = np.full((9, *column.shape[1:]), np.nan if ends and fill else 0 if ends else fill)
        padded[name] = np.concatenate([column, tail])
    assert lengths(padded) == [20, 20, 20]
    padded["rewards"][5] = np.nan
    refused(padded, "rewards is NaN or infinite in 1 rows, first in 5")


def test_a_buffer_of_zeros_becomes_no_episodes(columns):
    columns = without(columns, "next_observations")
    padded = {k: np.concatenate([c, np.zeros((40, *c.shape[1:]))]) for k, c in columns.items()}
    task = tasks.TaskSpec(tasks.CUSTOM, max_episode_steps=20)
    refused(padded, "its last 40 rows, from row 60 on, are zeros", task)
    assert lengths(columns, task) == [20, 20, 20]


def test_ends_that_nobody_marked_are_found_as_jumps(columns):
    whole = without(columns, "next_observations")
    whole |= {"terminals": np.zeros(N), "timeouts": np.arange(N) == N - 1}
    read = validation.check(whole, CUSTOM, "robot.hdf5")
    assert np.flatnonzero(dimensions.resets(read)).tolist() == [19, 39]
    read = validation.check(columns, CUSTOM, "robot.hdf5")
    assert not dimensions.resets(read).any()
