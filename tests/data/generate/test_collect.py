"""Data of one's own: what SAC saw, rolled-out snapshots, and runs that were stopped."""

import json
import pathlib
import subprocess
import sys
import types

import h5py
import jax
import numpy as np
import pytest
from helpers import ROOT

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.data.generate import __main__ as command_line
from ractd_jax.data.generate import collect, sac, sac_rollout
from ractd_jax.envs.make import make_env

ENV = "Pendulum-v1"  # actions in [-2, 2], no MuJoCo, episodes of 200 steps


@pytest.fixture
def model():
    """What `sac` knows of a learner, after 700 steps."""
    state = {"weights": np.ones(30, np.float32)}
    buffer = dict.fromkeys(sac.BUFFER, np.zeros((700, 1)))
    return types.SimpleNamespace(
        policy=types.SimpleNamespace(actor_state=state, qf_state=state),
        ent_coef_state=state,
        key=np.zeros(2, np.uint32),
        _n_updates=3,
        num_timesteps=700,
        replay_buffer=types.SimpleNamespace(**buffer),
    )


@pytest.fixture
def run(tmp_path, model):
    """A run's folder: 650 steps, of which one episode was cut and the last one is unfinished."""
    rng, n = np.random.default_rng(0), 650
    dones, timeouts = np.zeros(n), np.zeros(n)
    dones[[99, 299, 349, 599]] = 1  # a failure, the clock, a cut, a failure
    timeouts[[299, 349]] = 1
    checkpoint = tmp_path / "run" / "checkpoint-650"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-99").mkdir()  # older, though its name sorts after
    columns = {
        "observations": rng.normal(size=(n, 3)),
        "next_observations": rng.normal(size=(n, 3)),
        "actions": rng.uniform(-1, 1, (n, 1)),
        "rewards": rng.normal(size=n),
    }
    np.savez(checkpoint / "buffer.npz", dones=dones, timeouts=timeouts, **columns)
    actor = {
        f"{name}/{part}": rng.normal(size=shape).astype(np.float32)
        for name, size in {
            "hidden0": (3, 8),
            "hidden1": (8, 8),
            "mean": (8, 1),
            "log_std": (8, 1),
        }.items()
        for part, shape in (("kernel", size), ("bias", size[1:]))
    }
    (tmp_path / "run" / "snapshots").mkdir()
    np.savez(tmp_path / "run" / "snapshots" / "400.npz", **actor)
    np.savez(tmp_path / "run" / "snapshots" / "650.npz", **actor)
    seen = {"episodes": 2, "return_mean": -1234.5}
    meta = {"env": ENV, "seed": 0, "warmup": 10, "snapshot_every": 400, "cuts": [349]}
    meta["snapshots"] = {"400": seen, "650": seen | {"return_mean": None}}
    (checkpoint / "collect.json").write_text(json.dumps(meta))
    np.savez(checkpoint / "learner.npz", **sac._named(sac._learner(model)))
    return tmp_path / "run"


def columns(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}


def test_replay_holds_the_finished_episodes_only(run):
    data = columns(collect.write_replay(run, 650))
    with np.load(run / "checkpoint-650" / "buffer.npz") as buffer:
        rows = [*range(300), *range(350, 600)]
        np.testing.assert_array_equal(data["rewards"], buffer["rewards"][rows].astype(np.float32))
        np.testing.assert_allclose(data["actions"], 2 * buffer["actions"][rows], atol=1e-6)
    assert np.flatnonzero(data["terminals"]).tolist() == [99, 549]
    assert np.flatnonzero(data["timeouts"]).tolist() == [299]
    assert len(columns(collect.write_replay(run, 420))["rewards"]) == 300


def test_roll_out_drives_the_environment_with_the_saved_actor(run):
    data = columns(collect.write_rollout(run, [400, 650], 600, workers=1))
    assert len(data["rewards"]) == 600
    assert data["timeouts"].sum() == 3
    assert 1 < np.abs(data["actions"]).max() <= 2
    env = make_env(ENV).unwrapped
    env.reset(seed=0)
    for row in (0, 7, 599):
        cos, sin, speed = data["observations"][row]
        env.state = np.array([np.arctan2(sin, cos), speed])
        seen, reward, *_ = env.step(data["actions"][row])
        assert reward == pytest.approx(data["rewards"][row], abs=1e-3)
        np.testing.assert_allclose(seen, data["next_observations"][row], atol=1e-4)


def test_run_is_shown_by_its_newest_checkpoint(run, capsys):
    assert command_line.main(["--out", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Pendulum-v1, seed 0"
    assert [line.split() for line in lines[2:]] == [["400", "2", "-1,234.5"], ["650", "2", "-"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replay", "651"], "650 steps"),
        (["--replay", "99"], "no episode"),
        (["--rollout", "65"], "Did you mean '650'"),
        (["--rollout", "many"], "give steps"),
        (["--rollout", "400", "--transitions", "0"], "start at 1"),
        (["--env", "Ant-v4", "--steps", "700"], "env Pendulum-v1, not Ant-v4"),
        (["--seed", "1", "--steps", "700"], "seed 0, not 1"),
        (["--steps", "0"], "start at 1"),
    ],
)
def test_a_wrong_word_ends_in_one_line(run, arguments, says, capsys):
    assert command_line.main(["--out", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("env", "says"),
    [("CartPole-v1", "not a bounded vector"), ("Pendulun-v1", "Pendulum"), (None, "--env")],
)
def test_an_unfit_environment_is_refused_before_anything_is_written(tmp_path, env, says, capsys):
    arguments = ["--out", str(tmp_path / "new"), "--steps", "100", *(["--env", env] if env else [])]
    assert command_line.main(arguments) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_says_how_to_begin(tmp_path, capsys):
    assert command_line.main(["--out", str(tmp_path), "--rollout", "10"]) == 2
    assert "--env and --steps" in capsys.readouterr().err


def truncate(path):
    path.write_bytes(path.read_bytes()[:-30])


def resize(path):
    with np.load(path) as saved:
        arrays = dict(saved)
    np.savez(path, **arrays | {name: array[:3] for name, array in arrays.items() if array.ndim})


DAMAGE = {
    "buffer cut": ("checkpoint-650/buffer.npz", truncate, "replay steps"),
    "buffer empty": ("checkpoint-650/buffer.npz", lambda path: path.write_text(""), "replay steps"),
    "buffer gone": ("checkpoint-650/buffer.npz", pathlib.Path.unlink, "replay steps"),
    "actor cut": ("snapshots/400.npz", truncate, "rollout"),
    "actor gone": ("snapshots/400.npz", pathlib.Path.unlink, "rollout"),
    "says nothing": (
        "checkpoint-650/collect.json", lambda path: path.write_text("{}"), "show replay steps"
    ),
    "says a list": ("checkpoint-650/collect.json", lambda path: path.write_text("[]"), "show"),
    "learner cut": ("checkpoint-650/learner.npz", truncate, "steps"),
    "learner of another size": ("checkpoint-650/learner.npz", resize, "steps"),
}  # fmt: skip
WORDS = {
    "show": [],
    "replay": ["--replay", "650"],
    "rollout": ["--rollout", "400"],
    "steps": ["--steps", "700"],
}


@pytest.mark.parametrize(
    ("what", "command"), [(what, c) for what, (*_, cs) in DAMAGE.items() for c in cs.split()]
)
def test_a_damaged_run_is_one_line(run, model, monkeypatch, capsys, what, command):
    path, damage, _ = DAMAGE[what]
    monkeypatch.setattr(sac, "make_learner", lambda env, **settings: model)
    damage(run / path)
    assert command_line.main(["--out", str(run), *WORDS[command]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "anew in another folder: " in error
    assert error.count("\n") == 1
    assert str(run / path if command != "steps" else run) in error


@pytest.mark.parametrize("command", ["--replay", "--rollout", "--steps"])
def test_a_run_whose_environment_is_not_installed_is_one_line(run, capsys, command):
    said = run / "checkpoint-650" / "collect.json"
    said.write_text(said.read_text().replace(ENV, "Elsewhere-v0"))
    assert command_line.main(["--out", str(run), command, "650"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: Elsewhere-v0: Environment `Elsewhere` doesn't exist."
    ]
    assert not list(run.glob("*.hdf5"))


def test_a_folder_of_another_name_is_no_checkpoint(run, model):
    (run / "checkpoint-old").mkdir()
    assert collect.newest(run).name == "checkpoint-650"
    sac.save(model, run, collect.describe(run))
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-700", "checkpoint-old"}


def test_help_gives_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "ractd_jax.data.generate", "--help"],
        cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    for word in ("--env Ant-v4", "medium-replay", "--rollout 120000,300000", "--snapshot-every"):
        assert word in done.stdout


# ---- the command of main.py ----------------------------------------------------------------------


def test_run_writes_what_is_asked_for(run, capsys):
    settings = {"env": ENV, "steps": 600, "warmup": 10, "snapshot_every": 400}
    written = {"replay": (420,), "rollout": (400, 650), "transitions": 300}
    collect.run(**settings, **written, workdir=run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Pendulum-v1, seed 0"
    assert lines[-1].startswith("train on a file: source=")
    rows = {path.name: len(columns(path)["rewards"]) for path in run.glob("*.hdf5")}
    assert rows == {"replay-600.hdf5": 550, "replay-420.hdf5": 300, "rollout-400-650.hdf5": 400}
    with pytest.raises(errors.UserError, match="seed 0, not 1"):
        collect.run(**settings, seed=1, workdir=run)


def test_run_takes_the_section_of_a_configuration():
    fields = configuration.plain(configuration.Collect(env="Elsewhere-v0"))
    with pytest.raises(errors.UserError, match="Elsewhere"):
        collect.run(**fields)
    with pytest.raises(errors.UserError, match="in which environment"):
        collect.run(**configuration.plain(configuration.Collect()))


def test_without_sbx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sbx", None)  # as if it were not installed
    with pytest.raises(errors.UserError, match=r"needs sbx-rl .* pip install '.\[collect\]'") as e:
        collect.learn(tmp_path / "new", "Hopper-v4", 1000)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "new").exists()


def test_a_stopped_run_says_how_to_go_on(monkeypatch):
    asked = []

    def stopped(folder, env, steps, **settings):
        asked.append((folder, env, steps, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "learn", stopped)
    settings = {"warmup": 10_000, "snapshot_every": 10_000, "seed": 3}
    with pytest.raises(errors.UserError, match="the same command continues from what runs"):
        collect.run(env="Hopper-v4", steps=300_000, **settings)
    folder = pathlib.Path("runs/Hopper-v4/collect-seed3")
    assert asked == [(folder, "Hopper-v4", 300_000, settings)]


# ---- with sbx-rl ---------------------------------------------------------------------------------


@pytest.fixture
def learner():
    """`sac`, with JAX as its authors know it: what others' code does is not ours to judge."""
    pytest.importorskip("sbx")
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        yield


@pytest.mark.usefixtures("learner")
@pytest.mark.filterwarnings("default")
def test_a_stopped_run_continues_where_it_was_saved(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    begin = ["--out", str(folder), "--env", ENV, "--warmup", "20", "--snapshot-every", "150"]
    save, saved = sac.save, []

    def die_after_the_second(*arguments):
        save(*arguments)
        saved.append(folder)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sac, "save", die_after_the_second)
    assert command_line.main([*begin, "--steps", "450"]) == 2
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.setattr(sac, "save", save)
    before = buffer(folder, 300)
    with np.load(folder / "snapshots" / "300.npz") as actor:
        weights = dict(actor)

    # A kill in the middle of saving leaves this behind.
    (folder / ".checkpoint.tmp").mkdir()
    assert command_line.main([*begin, "--steps", "450"]) == 0
    after = buffer(folder, 450)
    for name, column in before.items():
        expected = after[name][:300].copy()
        if name in ("dones", "timeouts"):
            assert expected[-1] == 1  # the episode that the stop broke off
            expected[-1] = column[-1]
        np.testing.assert_array_equal(expected, column)
    meta = collect.describe(folder)
    assert list(meta["snapshots"]) == ["150", "300", "450"]
    assert meta["cuts"] == [299]
    assert [path.name for path in folder.glob("*checkpoint*")] == ["checkpoint-450"]
    data = columns(folder / "replay-450.hdf5")
    assert len(data["rewards"]) == 200  # one whole episode, then a cut one and an unfinished one

    model = sac.make_learner(make_env(ENV), steps=450, warmup=20, seed=7)
    sac._restore(model, folder / "checkpoint-450", meta | {"cuts": []})
    assert model.num_timesteps == 450
    np.testing.assert_array_equal(model.replay_buffer.rewards[:, 0], after["rewards"])
    obs = before["observations"][:5].astype(np.float32)
    with np.load(folder / "snapshots" / "450.npz") as actor:
        ours = sac_rollout.rescale(
            sac_rollout.act(dict(actor), obs, np.zeros((5, 1), np.float32)),
            make_env(ENV).action_space,
        )
        assert np.abs(actor["mean/kernel"] - weights["mean/kernel"]).max() > 1e-4  # it has learnt
    np.testing.assert_allclose(ours, model.predict(obs, deterministic=True)[0], atol=1e-4)


def buffer(folder, step):
    with np.load(folder / f"checkpoint-{step}" / "buffer.npz") as saved:
        return dict(saved)
