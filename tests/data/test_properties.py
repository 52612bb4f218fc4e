"""Random episodes go through a file and come back as D4RL's own conventions read them."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import STRUCTURES, transitions_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, hdf5

LIMIT = 12
TASK = tasks.TaskSpec("toy", obs_dim=3, act_dim=2, max_episode_steps=LIMIT)


def as_d4rl_reads(file, limit):
    """Cut a file into episodes step by step, as `d4rl.sequence_dataset` goes through one.

    A row ends an episode if it is a terminal or a timeout; without `timeouts`, if it is the last
    one before the time limit.
    """
    cut, start = [], 0
    for row in range(len(file["rewards"])):
        if "timeouts" in file:
            final = bool(file["timeouts"][row])
        else:
            final = row - start == limit - 1
        if file["terminals"][row] or final:
            names = ("observations", "actions", "rewards", "terminals")
            cut.append({name: file[name][start : row + 1] for name in names})
            start = row + 1
    return cut


@settings(deadline=None, max_examples=40)
@given(STRUCTURES, st.booleans())
def test_a_file_reads_back_as_d4rl_reads_it(structure, with_timeouts):
    finished, tail = structure
    if not with_timeouts:  # then only the limit can end an episode that did not fail
        finished = [(length if terminal else LIMIT, terminal) for length, terminal in finished]
    written = transitions_of((finished, tail))
    columns = written._asdict()
    if not with_timeouts:
        del columns["timeouts"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.hdf5"
        hdf5.write(path, columns, {"seed": 1})
        with h5py.File(path) as file:
            for name, column in columns.items():
                assert file[name].dtype == column.dtype
                np.testing.assert_array_equal(file[name][()], column)
            expected = as_d4rl_reads({name: file[name][()] for name in columns}, LIMIT)
        if not expected:
            with pytest.raises(errors.UserError, match="no episode is complete"):
                hdf5.read(path, TASK)
            return
        read = hdf5.read(path, TASK)
    assert episodes.lengths(read).tolist() == [len(e["rewards"]) for e in expected]
    for name in ("observations", "actions", "rewards", "terminals"):
        whole = np.concatenate([episode[name] for episode in expected])
        np.testing.assert_array_equal(getattr(read, name), whole)
    np.testing.assert_allclose(
        episodes.returns(read), [e["rewards"].sum(dtype=float) for e in expected], atol=1e-5
    )


@given(STRUCTURES)
def test_only_terminals_are_charged_and_both_kinds_end_an_episode(structure):
    whole = episodes.complete(transitions_of(structure))
    swapped = whole._replace(terminals=whole.timeouts, timeouts=whole.terminals)
    both = whole._replace(timeouts=whole.timeouts | whole.terminals)
    for other in (swapped, both):
        assert episodes.lengths(other).tolist() == episodes.lengths(whole).tolist()
    np.testing.assert_array_equal(
        episodes.returns_to_go(swapped, 0.9, 0.0), episodes.returns_to_go(whole, 0.9, 0.0)
    )
    np.testing.assert_array_equal(
        episodes.returns_to_go(both, 0.9, -50.0), episodes.returns_to_go(whole, 0.9, -50.0)
    )
    last = np.cumsum(episodes.lengths(whole)) - 1
    charge = episodes.returns_to_go(whole, 0.9, -50.0) - episodes.returns_to_go(whole, 0.9, 0.0)
    np.testing.assert_allclose(charge[last], -50.0 * whole.terminals[last], atol=1e-4)
