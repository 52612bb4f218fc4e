"""Data of one's own are loaded with a line, and a note for what deserves a second look."""

import h5py
import numpy as np
import pytest

from ractd_jax import console, tasks
from ractd_jax.data.recorded import SHOWN, Recorded

N = 400


@pytest.fixture
def printed(tmp_path, capsys):
    """`(observations) -> lines` of loading a file that holds them."""

    def load(observations):
        rng = np.random.default_rng(1)
        with h5py.File(tmp_path / "robot.hdf5", "w") as file:
            file["observations"] = observations.astype(np.float32)
            file["actions"] = rng.uniform(-0.9, 0.9, (N, 2)).astype(np.float32)
            file["rewards"] = np.ones(N, np.float32)
            file["terminals"] = np.zeros(N, bool)
            file["timeouts"] = np.arange(N) % 50 == 49
        task = tasks.TaskSpec(tasks.CUSTOM, obs_dim=observations.shape[1], act_dim=2)
        source = str(tmp_path / "robot.hdf5")
        assert len(Recorded(task, source, 0, console.Progress()).episodes.rewards) == N
        return capsys.readouterr().out.splitlines()

    return load


def test_a_glitch_is_named_with_its_row(printed):
    observations = np.random.default_rng(0).normal(size=(N, 3))
    assert not any(line.startswith("note:") for line in printed(observations))
    observations[123, 1] = -9999.0
    notes = [line for line in printed(observations) if line.startswith("note:")]
    assert len(notes) == 1
    assert "dimension 1" in notes[0]
    assert "row 123" in notes[0]


def test_many_notes_are_cut_short(printed):
    observations = np.random.default_rng(0).normal(size=(N, SHOWN + 3))
    observations[7] = -9999.0
    notes = [line for line in printed(observations) if line.startswith("note:")]
    assert len(notes) == SHOWN + 1
    assert "3 notes more; the stage data shows them all" in notes[-1]
