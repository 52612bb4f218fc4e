"""Damaged files beside the checkpoints of a run end in one line, or do no harm."""

import json
import math

import pytest
from helpers import load

from ractd_jax import errors
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, run_dir

DAMAGED = (
    b"", b"null", b"{}", b"[]", b"5", b'"x"', b"\xff", b"\0\0", b'{"seconds": 1', b"[" * 100_000,
    b'{"seconds": null}', b'{"seconds": NaN}', b'{"seconds": -1}', b'{"seconds": true}',
    b'{"seconds": 1e999}', '{"seconds": 1}'.encode("utf-16-le"),
)  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:20]))
def test_damaged_files_of_a_run(tmp_path, content):
    for name in (checkpoints.TIMING, checkpoints.CONFIG, "metrics.jsonl"):
        (tmp_path / name).write_bytes(content)
    for read in (run_dir.seconds, run_dir.read):
        if content.startswith(b"{\0") and read is run_dir.seconds:  # JSON is also UTF-16
            assert read(tmp_path) == 1
            continue
        with pytest.raises(errors.UserError) as caught:
            read(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    checkpoints.Log(tmp_path / "metrics.jsonl", 10)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_folders_in_place_of_files(tmp_path):
    for name in (checkpoints.TIMING, checkpoints.CONFIG, "metrics.jsonl"):
        (tmp_path / name).mkdir()
    log = lambda run: checkpoints.Log(run / "metrics.jsonl", 10)  # noqa: E731
    for read in (run_dir.seconds, run_dir.read, log):
        with pytest.raises(errors.UserError) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(errors.UserError, match="cannot read"):
        checkpoints.steps(tmp_path)


def test_good_records_are_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    path.write_text("\n".join(['{"step": "1"}', lines[0], "null", *lines[1:], '{"step": tr']))
    checkpoints.Log(path, 2)
    assert path.read_text().splitlines() == lines[:2]


def test_seconds(tmp_path):
    checkpoints.write_json(tmp_path / checkpoints.TIMING, {"seconds": 2.5})
    assert math.isclose(run_dir.seconds(tmp_path), 2.5)


def test_a_configuration_that_is_not_what_was_written(tmp_path):
    config = registry.configure(load("hopper_mr", "student,size=demo")[1])
    run_dir.write(tmp_path, run_dir.describe(config, "student"))
    assert run_dir.read(tmp_path) == (config, "student")
    path = tmp_path / checkpoints.CONFIG
    written = path.read_text()
    assert '"seed": 0' in written
    changed = written.replace('"seed": 0', '"seed": 4')  # by a single bit
    path.write_text(changed)
    with pytest.raises(errors.UserError, match=r"config\.json is not what was written"):
        run_dir.read(tmp_path)
    path.write_text(changed.replace(f'"{run_dir.SUM}"', '"note"'))
    assert run_dir.read(tmp_path)[0].seed == 4  # by hand
