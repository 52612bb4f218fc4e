"""The comparison with the originals finds a difference, and none where there is none."""

import runpy

import numpy as np
import pytest
from helpers import ROOT

from ractd_jax.envs import gym_process
from ractd_jax.envs.make import make_env


def tool():
    return runpy.run_path(str(ROOT / "tools" / "check_physics.py"))


def recorded(env_id):
    """Return what `record_original` would keep of one of our environments."""
    env = make_env(env_id).unwrapped
    rng, rows, starts = np.random.default_rng(0), [], []
    for seed in range(2):
        starts.append(env.reset(seed=seed)[0])
        for _ in range(10):
            before = env.data.qpos.copy(), env.data.qvel.copy()
            action = rng.uniform(-1, 1, 3).astype(np.float32)
            obs, reward, done, _, _ = env.step(action)
            after = env.data.qpos.copy(), env.data.qvel.copy()
            rows.append((*before, action, *after, obs, reward, done))
    names = ("qpos", "qvel", "action", "next_qpos", "next_qvel", "obs", "reward", "done")
    columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    run = columns | {"starts": np.array(starts)}
    return {f"Hopper-v2/{name}": column for name, column in run.items()}


@pytest.mark.parametrize(("env_id", "same"), [("ractd_jax/Hopper-v2", True), ("Hopper-v4", False)])
def test_the_table_shows_whether_it_is_the_original(env_id, same):
    lines = list(tool()["physics"](recorded(env_id)))
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    worst = float(cells[2].split(", ")[1])
    assert cells[:2] == ["Hopper-v2", "20"]
    assert cells[4] == "0.0e+00"  # v4 begins alike
    assert (worst < 1e-9) == same
    assert (float(cells[5].split(", ")[0]) < 1e-9) == same
    assert "kitchen-mixed-v0 | not compared" in lines[-1]


def test_without_the_originals_it_is_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv(gym_process.VARIABLE, raising=False)
    monkeypatch.setattr("sys.argv", ["check_physics"])
    with pytest.raises(SystemExit, match="error: RACTD_D4RL_PYTHON is to name a Python"):
        tool()["main"]()
    broken = tmp_path / "x.npz"
    broken.write_text("no archive")
    monkeypatch.setattr("sys.argv", ["check_physics", f"--recorded={broken}"])
    with pytest.raises(SystemExit, match=r"error: cannot read .*x\.npz"):
        tool()["main"]()
