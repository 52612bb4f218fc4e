"""What a file is made of is told as it is, before anything of it is read whole."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import hdf5, hdf5_layout, identity, sources

N = 60
TASK = tasks.TaskSpec(tasks.CUSTOM)


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(N, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (N, 2)).astype(np.float32),
        "rewards": np.ones(N, np.float32),
        "terminals": np.zeros(N, bool),
        "timeouts": np.arange(N) % 20 == 19,
    }


@pytest.fixture
def path(tmp_path, columns):
    hdf5.write(tmp_path / "robot.hdf5", columns, {})
    return tmp_path / "robot.hdf5"


def refused(path, text, task=TASK):
    with pytest.raises(errors.UserError, match=text) as caught:
        sources.load(task, str(path))
    assert "\n" not in str(caught.value)


def test_columns_in_groups_are_named(tmp_path, columns):
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for name in ("actions", "rewards", "obs/eef"):
            file[f"data/demo_0/{name}"] = np.zeros(3)
    refused(tmp_path / "demos.hdf5", "columns in groups .*data/demo_0/actions.*data/demo_0/obs/eef")
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        for name in ("observations", "terminations", "truncations"):
            file[f"episode_0/{name}"] = np.zeros(3)
    refused(tmp_path / "main_data.hdf5", "Minari dataset.*give the folder")
    del columns["observations"]
    columns |= {"observations/state": np.zeros((N, 3)), "observations/goal": np.zeros((N, 2))}
    hdf5.write(tmp_path / "dict.hdf5", columns, {})
    refused(tmp_path / "dict.hdf5", "group of observations/goal, observations/state, not a column")


def test_shapes_are_looked_at_before_anything_is_read(path, monkeypatch):
    with h5py.File(path, "a") as file:
        del file["observations"]
        file.create_dataset("observations", (10**9, 480, 640, 3), "u1", chunks=(1, 480, 640, 3))
    refused(path, r"observations is \(1000000000, 480, 640, 3\), expected .*images")
    with h5py.File(path, "w") as file:
        for name, size in {"observations": 10**5, "actions": 3}.items():
            file.create_dataset(name, (10**12, size), "f4", chunks=(1, size))
        for name in ("rewards", "terminals", "timeouts"):
            file.create_dataset(name, (10**12,), "f4", chunks=(1,))
    refused(path, "GiB of numbers, this machine has")


def test_a_file_that_is_open_elsewhere_is_not_called_damaged(path):
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'a'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        refused(path, "is open in another program.*HDF5_USE_FILE_LOCKING=FALSE")
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    assert len(sources.load(TASK, str(path)).rewards) == N


def test_a_filter_that_is_missing_is_named(path, monkeypatch):
    with h5py.File(path, "a") as file:
        packed = file["observations"][()]
        del file["observations"]
        file.create_dataset("observations", data=packed, compression="lzf")
    assert len(sources.load(TASK, str(path)).rewards) == N
    monkeypatch.setattr(hdf5_layout, "_available", lambda number: False)
    refused(path, r"'observations' is packed with the filter LZF \(number 32000\).*hdf5plugin")


def test_links_to_other_files_are_refused(tmp_path, path, columns):
    linked = tmp_path / "linked.hdf5"
    with h5py.File(linked, "w") as file:
        file["far"] = h5py.ExternalLink("robot.hdf5", "/")
    refused(linked, "far is a link to / in robot.hdf5, and no other file is read")
    with h5py.File(linked, "w") as file:
        file["infos/far"] = h5py.ExternalLink("robot.hdf5", "/")
        for name in columns:
            file[name] = h5py.SoftLink(f"/infos/far/{name}")
    refused(linked, "actions lies in another file")
    with h5py.File(linked, "w") as file:
        file["actions"] = h5py.SoftLink("/nowhere")
    refused(linked, "actions is a link to /nowhere, which is not there")


def test_columns_of_parts_in_other_files_are_refused(tmp_path, path, columns):
    rows = columns.pop("observations")
    rows.tofile(tmp_path / "raw")
    layout = h5py.VirtualLayout((N, 3), "f4")
    layout[:] = h5py.VirtualSource(str(path), "observations", (N, 3))
    for make in (
        lambda file: file.create_virtual_dataset("observations", layout),
        lambda file: file.create_dataset(
            "observations", (N, 3), "f4", external=[(str(tmp_path / "raw"), 0, rows.nbytes)]
        ),
    ):
        hdf5.write(tmp_path / "joined.hdf5", columns, {})
        with h5py.File(tmp_path / "joined.hdf5", "a") as file:
            make(file)
        refused(tmp_path / "joined.hdf5", "'observations' is put together from other files")


@pytest.mark.parametrize("chunks", [None, (10, 3)])
def test_columns_that_were_never_written_are_refused(path, chunks):
    with h5py.File(path, "a") as file:
        del file["observations"]
        column = file.create_dataset("observations", (N, 3), "f4", chunks=chunks)
        if chunks:
            column[:20] = 1
    refused(path, "'observations' of shape .* was never written whole")


def test_a_home_of_nobody_is_named():
    with pytest.raises(errors.UserError, match="no such user"):
        sources.environment(tasks.get("hopper-medium-v2"), "~nobodyxyz/a.hdf5")


def test_names_are_shown_on_one_line(path):
    with h5py.File(path, "a") as file:
        del file["actions"]
        file["two\nlines\x1b[31m"] = np.zeros(3)
    refused(path, r"two\\nlines\\x1b\[31m")


@pytest.mark.parametrize("source", ["x" * 300 + ".hdf5", "~nobodyxyz/a.hdf5", "a\0b.hdf5"])
def test_names_that_no_file_can_have(source):
    refused(source, "no data file|no such user")


def test_data_are_the_same_however_they_are_stored(tmp_path, path, columns):
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        for name in reversed(columns):
            file.create_dataset(name, data=columns[name], compression="gzip")
        file["note"] = "exported again"
    known = identity.of(sources.load(TASK, str(path)))
    assert identity.of(sources.load(TASK, str(tmp_path / "packed.h5"))) == known
    for name, row in (("rewards", 3), ("timeouts", 7), ("observations", 59)):
        other = {k: v.copy() for k, v in columns.items()}
        other[name][row] += 1
        hdf5.write(tmp_path / "other.hdf5", other, {})
        assert identity.of(sources.load(TASK, str(tmp_path / "other.hdf5"))) != known


def test_names_of_dimensions_are_read(path):
    assert sources.dimension_names(str(path)) == {}
    assert sources.dimension_names("simulated") == {}
    with h5py.File(path, "a") as file:
        file["observations"].attrs["names"] = ["x", "y", "yaw"]
    assert sources.dimension_names(str(path)) == {"observations": ["x", "y", "yaw"]}
