"""A disk that is full, or not writable, ends in one line and leaves the last whole checkpoint."""

import contextlib
import os
import pathlib
import resource
import shutil
import types

import numpy as np
import pytest

from ractd_jax import errors
from ractd_jax.training import checkpoints

GOOD = {"weights": np.arange(1000, dtype=np.float32)}
LARGE = {"weights": np.random.default_rng(0).normal(size=500_000).astype(np.float32)}


@contextlib.contextmanager
def disk_with(size):
    """Let no file grow beyond `size` bytes: the system refuses, to the superuser as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def whole(run):
    """Return the newest checkpoint's step and weights, as another process would find them."""
    store = checkpoints.Checkpoints(run)
    step = store.latest()
    weights = None if step is None else store.restore(step, "policy", GOOD)["weights"]
    store.close()
    return step, weights


def test_a_full_disk_is_one_line_and_keeps_the_last_good_checkpoint(tmp_path, capfd):
    store = checkpoints.Checkpoints(tmp_path)
    store.save(1, GOOD, GOOD, {"step": 1})
    store.wait()
    with disk_with(100_000):
        store.save(2, LARGE, LARGE, {"step": 2})
        with pytest.raises(errors.UserError) as caught:
            store.close()
    text = str(caught.value)
    assert text.startswith(f"cannot write a checkpoint to {tmp_path}/checkpoints: ")
    assert "File too large; the checkpoint of update 1 is kept; free some space" in text
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")
    step, weights = whole(tmp_path)
    assert step == 1
    np.testing.assert_array_equal(weights, GOOD["weights"])

    again = checkpoints.Checkpoints(tmp_path)  # space was made
    again.save(2, GOOD, GOOD, {"step": 2})
    again.close()
    assert whole(tmp_path)[0] == 2


def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    store = checkpoints.Checkpoints(tmp_path)
    store.save(1, GOOD, GOOD, {"step": 1})
    store.wait()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=3_999_999))
    with pytest.raises(errors.UserError, match=r"No space left on device \(4.0 MB wanted, 4.0 f"):
        store.save(2, LARGE, LARGE, {"step": 2})
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["1"]
    store.save(3, LARGE, GOOD, {"step": 3})
    store.close()
    assert checkpoints.Checkpoints(tmp_path).latest() == 3


def test_a_disk_that_was_full_from_the_start(tmp_path):
    store = checkpoints.Checkpoints(tmp_path)
    with disk_with(100_000):
        store.save(1, LARGE, LARGE, {"step": 1})
        with pytest.raises(errors.UserError, match="no checkpoint was written before"):
            store.close()
    assert whole(tmp_path) == (None, None)


def test_a_folder_that_nobody_may_write(tmp_path):
    # The superuser cannot make folders in /proc either.
    for place in (pathlib.Path("/proc/run"), tmp_path / "file" / "run"):
        (tmp_path / "file").write_text("")
        with pytest.raises(errors.UserError, match=r"cannot (use|write)") as caught:
            checkpoints.Checkpoints(place)
        assert "\n" not in str(caught.value)
        with pytest.raises(errors.UserError, match="choose another folder with --workdir"):
            checkpoints.write_json(place / checkpoints.CONFIG, {})


def test_a_read_only_file_system(tmp_path, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(errors.UserError, match="Permission denied"):
        checkpoints.write_text(tmp_path / "x" / "y", "")
    with pytest.raises(errors.UserError, match="Permission denied"):
        checkpoints.Checkpoints(tmp_path / "x")


def test_a_metrics_file_on_a_full_disk_is_one_line(tmp_path):
    log = checkpoints.Log(tmp_path / "metrics.jsonl", 0)
    log.write({"step": 1})
    with disk_with(100), pytest.raises(errors.UserError, match="File too large") as caught:
        log.write({"step": 2, "text": "x" * 200})
    assert "\n" not in str(caught.value)
    resumed = checkpoints.Log(tmp_path / "metrics.jsonl", 1)  # forgets the line cut short
    resumed.write({"step": 2})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1}', '{"step": 2}']


def test_run_that_cannot_be_removed_is_one_line_and_no_longer_finished(tmp_path, monkeypatch):
    store = checkpoints.Checkpoints(tmp_path)
    store.save(1, GOOD, GOOD, {"step": 1})
    store.close()
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, {})
    checkpoints.mark_finished(tmp_path)

    def refuse(path, *args, **kwargs):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(checkpoints.shutil, "rmtree", refuse)
    with pytest.raises(errors.UserError, match=r"cannot remove .*checkpoints: Operation not perm"):
        checkpoints.clear_run(tmp_path)
    assert checkpoints.run_status(tmp_path) is None
    monkeypatch.undo()
    checkpoints.clear_run(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_text_that_could_not_be_written_leaves_nothing_behind(tmp_path):
    with disk_with(10_000), pytest.raises(errors.UserError, match="cannot write"):
        checkpoints.write_text(tmp_path / "large.txt", "x" * 100_000)
    assert not any(tmp_path.iterdir())
