"""D4RL's schema is read as it is, and every way to spoil a file has its own one-line message."""

import dataclasses
import errno

import h5py
import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import cache, episodes, hdf5

TASK = tasks.get("hopper-medium-replay-v2")
N = 50


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(N, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (N, 3)).astype(np.float32),
        "rewards": rng.normal(size=N).astype(np.float32),
        "terminals": np.arange(N) % 10 == 9,
        "timeouts": np.arange(N) == 44,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.hdf5"


def message(path, columns):
    hdf5.write(path, columns, {})
    with pytest.raises(errors.UserError) as caught:
        hdf5.read(path, TASK)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_written_file_reads_back_equal(path, columns):
    hdf5.write(path, columns, {"task": TASK.name})
    for name, column in hdf5.read(path, TASK)._asdict().items():
        np.testing.assert_array_equal(column, columns[name])
    with h5py.File(path) as file:
        assert file["metadata/task"][()].decode() == TASK.name


def test_double_precision_and_columns_of_width_one_are_accepted(path, columns):
    wide = {"rewards": columns["rewards"][:, None].astype(float), "terminals": columns["terminals"]}
    wide["terminals"] = wide["terminals"][:, None].astype(np.int8)
    hdf5.write(path, columns | wide, {})
    read = hdf5.read(path, TASK)
    assert read.rewards.dtype == np.float32
    np.testing.assert_array_equal(read.terminals, columns["terminals"])


def test_unfinished_tail_is_dropped(path, columns):
    columns["terminals"][-3:] = False
    hdf5.write(path, columns, {})
    assert len(hdf5.read(path, TASK).rewards) == 45


@pytest.mark.parametrize("last_terminal", [None, 1500])
def test_missing_timeouts_follow_from_the_time_limit(path, last_terminal):
    n = 2600
    terminals = np.zeros(n, bool)
    terminals[[99] + ([last_terminal] if last_terminal else [])] = True
    columns = {
        "observations": np.zeros((n, 11), np.float32),
        "actions": np.zeros((n, 3), np.float32),
        "rewards": np.zeros(n, np.float32),
        "terminals": terminals,
    }
    hdf5.write(path, columns, {})
    lengths = episodes.lengths(hdf5.read(path, TASK))
    assert lengths.tolist() == ([100, 1000, 401, 1000] if last_terminal else [100, 1000, 1000])


def test_a_terminal_at_the_time_limit_is_no_timeout(path, columns):
    del columns["timeouts"]
    short = dataclasses.replace(TASK, max_episode_steps=10)
    hdf5.write(path, columns, {})
    read = hdf5.read(path, short)
    assert not read.timeouts.any()
    assert len(episodes.lengths(read)) == 5


def test_rounding_beyond_one_is_clipped(path, columns):
    columns["actions"][3, 1] = 1.0005
    hdf5.write(path, columns, {})
    assert hdf5.read(path, TASK).actions.max() == 1.0


def test_missing_file(path):
    with pytest.raises(errors.UserError, match=r"no data file .*give the path of an HDF5 file"):
        hdf5.read(path, TASK)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="no data file"):
        hdf5.read(tmp_path, TASK)


def test_file_that_is_not_hdf5_is_refused(path):
    path.write_text("<html>404</html>")
    with pytest.raises(errors.UserError, match="as HDF5") as caught:
        hdf5.read(path, TASK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated(path, columns, keep):
    hdf5.write(path, columns, {})
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(errors.UserError, match="as HDF5") as caught:
        hdf5.read(path, TASK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_missing_key(path, columns, name):
    del columns[name]
    assert f"it has no '{name}', only " in message(path, columns)


def test_empty_file_is_refused(path):
    assert "only nothing" in message(path, {})


@pytest.mark.parametrize("name", ["actions", "rewards", "terminals", "timeouts"])
def test_mismatched_lengths(path, columns, name):
    columns[name] = columns[name][:-1]
    assert f"{name} is (49" in message(path, columns)


@pytest.mark.parametrize(("name", "width"), [("observations", 17), ("actions", 6)])
def test_sizes_of_another_task(path, columns, name, width):
    columns[name] = np.zeros((N, width), np.float32)
    assert f"{name} is (50, {width}), expected (50, " in message(path, columns)


def test_scalar_column(path, columns):
    columns["observations"] = np.array(1.0)
    assert "observations is (), expected" in message(path, columns)


@pytest.mark.parametrize("name", ["observations", "rewards", "timeouts"])
def test_column_without_data(path, columns, name):
    del columns[name]
    hdf5.write(path, columns, {})
    with h5py.File(path, "a") as file:
        file[name] = h5py.Empty("f")
    with pytest.raises(errors.UserError, match=rf"{name} is \(0,\), expected \("):
        hdf5.read(path, TASK)


def test_text_column(path, columns):
    columns["rewards"] = np.array([b"one"] * N)
    assert "rewards holds |S3, not numbers" in message(path, columns)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_not_finite(path, columns, name, bad):
    columns[name][[7, 9]] = bad
    assert f"{name} is NaN or infinite in 2 rows, first in 7" in message(path, columns)


def test_actions_in_other_units(path, columns):
    columns["actions"][12, 2] = -1.5
    text = message(path, columns)
    assert "row 12" in text
    assert "-1.5" in text


def test_no_complete_episode(path, columns):
    columns["terminals"][:] = columns["timeouts"][:] = False
    assert "no episode is complete" in message(path, columns)


def test_no_rows(path, columns):
    columns = {name: column[:0] for name, column in columns.items()}
    assert "no episode is complete" in message(path, columns)
    del columns["timeouts"]
    assert "no episode is complete" in message(path, columns)


def test_unwritable_place_is_one_line(tmp_path, columns):
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="cannot write") as caught:
        hdf5.write(tmp_path / "file" / "data.hdf5", columns, {})
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_no_other(path, columns):
    hdf5.write(path, columns, {})
    before = path.read_bytes()

    def fail():
        with cache.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk\nfull")

    with pytest.raises(errors.UserError, match="disk full"):
        fail()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_nothing(path, columns, monkeypatch):
    def full(self, name, **fields):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(errors.UserError, match=r"cannot write .*No space left") as caught:
        hdf5.write(path, columns, {})
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []
