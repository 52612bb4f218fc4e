"""A flipped bit in a data file of ours is refused in one line."""

import random

import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import cache, durable, hdf5

TASK = tasks.get("hopper-medium-replay-v2")


def test_a_flipped_bit_in_a_column_is_refused(tmp_path):
    rows, rng = 400, np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(rows, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % 100 == 0,
    }
    path = tmp_path / "data.hdf5"
    hdf5.write(path, columns, {"seed": 0, "none": np.zeros(0)})
    whole = path.read_bytes()
    good = hdf5.read(path, TASK)
    np.testing.assert_array_equal(good.observations, columns["observations"])
    draw, refused = random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            same = hdf5.read(path, TASK)
        except errors.UserError as error:
            refused += 1
            lines = str(error).splitlines()
        else:  # it was in a part that nobody reads
            lines = [""]
            for a, b in zip(same, good, strict=True):
                np.testing.assert_array_equal(a, b)
        assert len(lines) == 1
    assert refused > 30


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(durable.os, "fsync", lambda descriptor: done.append("flushed"))
    monkeypatch.setattr(durable.os, "replace", lambda *paths: done.append("named"))
    with cache.atomic(tmp_path / "x") as temporary:
        temporary.write_text("x")
    assert done == ["flushed", "named", "flushed"]
