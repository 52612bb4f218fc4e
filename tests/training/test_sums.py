"""One flipped bit, a missing or an extra file of a checkpoint is refused, and named."""

import random
import shutil

import numpy as np
import pytest

from ractd_jax import errors
from ractd_jax.training import checkpoints, restore, sums

PARAMS = {"params": {"w": np.arange(50, dtype=np.float32)}, "normalizer": {"low": np.zeros(3)}}


def save(run, *steps, policy=PARAMS, keep=2):
    store = checkpoints.Checkpoints(run, keep)
    for step in steps:
        store.save(step, policy, PARAMS, {"step": step})
    store.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "bc"
    save(run, 1, 2)
    return run


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "bc")
    return tmp_path / "bc"


def refusal(run, item="policy"):
    with pytest.raises(errors.UserError) as caught:
        checkpoints.restore(run, 2, item, PARAMS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(run, item):
    found = (run / "checkpoints" / "2" / item).rglob("*")
    return sorted(path for path in found if path.is_file())


@pytest.mark.parametrize("item", ["policy", "state"])
def test_a_flipped_bit_anywhere_is_refused(run, item):
    rng = random.Random(0)
    for path in files(run, item):
        content = path.read_bytes()
        if not content:
            continue
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert f"{path} differs from its sum in SHA256SUMS" in refusal(run, item)
        path.write_bytes(content)
    restored = checkpoints.restore(run, 2, item, PARAMS)
    np.testing.assert_array_equal(restored["params"]["w"], PARAMS["params"]["w"])


def test_a_missing_and_an_extra_file_are_refused(run):
    path = files(run, "policy")[0]
    extra = path.with_name("a\x1b[31m")
    extra.write_bytes(b"")
    assert r"a\x1b[31m is not listed in SHA256SUMS" in refusal(run)
    extra.unlink()
    path.unlink()
    assert f"{path} is missing" in refusal(run)
    path.mkdir()
    assert f"{path} is missing" in refusal(run)


def test_damaged_sums_are_refused(run):
    path = run / "checkpoints" / "2" / sums.NAME
    for content in (b"", b"null", b"\xff\xfe", b"\0" * 100, b"{}", b"0" * 64 + b"  meta/x\n"):
        path.write_bytes(content)
        assert str(path.parent) in refusal(run)
    path.unlink()
    assert "another version of ractd_jax" in refusal(run)
    path.mkdir()
    assert "cannot be read" in refusal(run)


def test_acting_does_not_need_the_state(run):
    shutil.rmtree(run / "checkpoints" / "2" / "state")
    restore.restore(run, PARAMS)
    assert "is missing" in refusal(run, "state")


def test_only_a_whole_checkpoint_is_named_as_kept(run):
    files(run, "state")[0].write_bytes(b"damaged")
    store = checkpoints.Checkpoints(run)
    assert store.kept() == "the checkpoint of update 1 is kept"
    store.close()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        run = tmp_path / str(value) / "bc"
        params = {"params": {"w": np.full(50, value, np.float32)}}
        save(run, 1, policy=PARAMS | params)
        with pytest.raises(errors.UserError, match=r"not all finite.*\['w'\].*the stage bc again"):
            restore.restore(run, PARAMS)


def test_loading_goes_on_with_the_newer_checkpoint(run, monkeypatch):
    """The training removes the checkpoint while it is read."""
    tried = []

    def read(folder, step, item, like, real=checkpoints.restore):
        tried.append(step)
        if step == 2:
            shutil.rmtree(run / "checkpoints" / "2")
            shutil.copytree(run / "checkpoints" / "1", run / "checkpoints" / "3")
        return real(folder, step, item, like)

    monkeypatch.setattr(checkpoints, "restore", read)
    restore.restore(run, PARAMS)
    assert tried == [2, 3]


def test_what_a_kill_left_behind_is_removed(run):
    left = run / "checkpoints" / "3.orbax-checkpoint-tmp"
    left.mkdir()
    assert checkpoints.steps(run) == [1, 2]
    checkpoints.Checkpoints(run).close()
    assert not left.exists()
