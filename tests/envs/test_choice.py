"""Which environment a task acts in, and that everything measured says so."""

import json

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.cli import configs
from ractd_jax.data import cache, sources
from ractd_jax.envs import choice
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import measure
from ractd_jax.methods import registry
from ractd_jax.report import blocks, study
from ractd_jax.training import opening, pipeline

D4RL_V2 = "D4RL v2 (MuJoCo 2.1 numbers in MuJoCo 3)"
HOPPER = tasks.get("hopper-medium-v2")


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_acts_in_d4rls_physics(name):
    assert choice.physics(tasks.get(name).env_id).startswith("D4RL")
    assert choice.word_of(tasks.get(name).env_id) == "d4rl"


@pytest.mark.parametrize("source", ["simulated", "d4rl", "robot.hdf5", "logs/robot.hdf5"])
@pytest.mark.parametrize("robot", choice.ROBOTS)
def test_whatever_the_source(source, robot):
    task = sources.environment(tasks.get(f"{robot}-medium-v2"), source)
    assert choice.physics(task.env_id) == D4RL_V2
    env = make_env(task.env_id)
    assert env.unwrapped.model.opt.tolerance == 1e-12  # `physics.restore` has been there
    env.close()


@pytest.mark.parametrize(
    ("robot", "word", "env_id"),
    [("hopper", "v4", "Hopper-v4"), ("walker2d", "v5", "Walker2d-v5")],
)
def test_a_word_chooses_gymnasiums(robot, word, env_id):
    task = sources.environment(tasks.get(f"{robot}-medium-v2"), "simulated", word)
    assert task.env_id == env_id
    assert choice.physics(env_id) == f"Gymnasium {word}"
    env = make_env(env_id)
    assert env.observation_space.shape == (task.obs_dim,)
    env.close()


@pytest.mark.parametrize(
    ("name", "word", "text"),
    [
        ("hopper-medium-v2", "v3", "unknown env 'v3'"),
        ("maze2d-umaze-v1", "v4", "env=v4: maze2d-umaze-v1 has no such environment"),
        ("kitchen-mixed-v0", "v5", "env=v5: kitchen-mixed-v0 has no such environment"),
    ],
)
def test_a_word_that_cannot_be(name, word, text):
    with pytest.raises(errors.UserError, match=text) as caught:
        choice.choose(tasks.get(name), word)
    assert "\n" not in str(caught.value)


def test_a_custom_task_has_none():
    with pytest.raises(errors.UserError, match="custom is no task of D4RL's"):
        choice.choose(tasks.TaskSpec("custom"), "d4rl")
    assert sources.environment(tasks.TaskSpec("custom"), "robot.hdf5").env_id == ""


def test_the_word_of_the_command_line():
    values = configs.load("hopper_mr", "student,env=v4,size=demo,source=simulated")
    config = registry.configure(values.to_dict())
    assert (config.env, config.task.env_id, config.collect.env) == ("v4", *["Hopper-v4"] * 2)
    assert pipeline.default_workdir(config).name == "demo-simulated-v4-seed0"
    job = opening.open_pipeline(config)
    assert job.task.env_id == "Hopper-v4"
    usual = registry.configure(configs.load("hopper_mr", "student,size=demo").to_dict())
    assert (usual.env, usual.task.env_id) == ("", "ractd_jax/Hopper-v2")


def test_the_field_does_what_the_word_does():
    values = configs.load("hopper_mr", "student,size=demo")
    values.env = "v5"
    assert opening.open_pipeline(registry.configure(values.to_dict())).task.env_id == "Hopper-v5"


def test_simulated_data_of_two_physics_are_two_files():
    paths = {cache.path_of(choice.choose(HOPPER, word), 2, 10, 0) for word in choice.WORDS}
    assert len(paths) == 3
    assert cache.path_of(HOPPER, 2, 10, 0) in paths


def minari_set(folder, env_id):
    (folder / "data").mkdir(parents=True)
    spec = json.dumps({"id": env_id, "max_episode_steps": 1000})
    (folder / "data" / "metadata.json").write_text(json.dumps({"env_spec": spec}))


def test_minari_acts_in_what_it_was_recorded_in(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def env_id(source, task=HOPPER):
        return sources.environment(task, source).env_id

    assert env_id("minari:mujoco/hopper/medium-v0") == "Hopper-v5"  # not here yet
    minari_set(tmp_path / "mujoco/hopper/medium-v0", "Hopper-v4")
    assert env_id("minari:mujoco/hopper/medium-v0") == "Hopper-v4"
    assert env_id(str(tmp_path / "mujoco/hopper/medium-v0")) == "Hopper-v4"
    minari_set(tmp_path / "own/hopper-v0", "Ant-v4")  # another robot's
    assert env_id("minari:own/hopper-v0") == HOPPER.env_id
    assert env_id("minari:own/unknown-v0") == HOPPER.env_id
    maze = tasks.get("maze2d-umaze-v1")  # states are turned into D4RL's
    assert env_id("minari:D4RL/pointmaze/umaze-v2", maze) == maze.env_id
    assert sources.environment(HOPPER, "minari:mujoco/hopper/medium-v0", "d4rl") == HOPPER


def test_results_without_the_field_are_of_v4(tmp_path):
    common = {"task": HOPPER.name, "source": "simulated", "size": "demo", "preset": "default"}
    common |= {"training_seed": 0, "returns": [1.0], "score_mean": 1.0, "score_se": None}
    common |= {"candidates": 1, "nfe": 1, "selection": "last", "seeds": [0]}
    rows = [{"stage": "ctd"}, {"stage": "student", "physics": D4RL_V2}, {"stage": "dataset"}]
    path = tmp_path / "summary.json"
    path.write_text(json.dumps([common | row for row in rows]))
    entries = study.read(path)
    assert [e["physics"] for e in entries] == ["Gymnasium v4", D4RL_V2, None]
    assert f"Physics: Gymnasium v4, {D4RL_V2}." in blocks.protocol(entries)
    maze = common | {"task": "maze2d-umaze-v1", "stage": "ctd"}
    path.write_text(json.dumps([maze]))
    assert "Gymnasium" not in study.read(path)[0]["physics"]


def test_results_of_another_physics_do_not_stay_beside_new_ones(tmp_path):
    common = {"task": HOPPER.name, "source": "simulated", "size": "demo", "preset": "default"}
    common |= {"training_seed": 0, "returns": [1.0], "score_mean": 1.0, "score_se": None}
    common |= {"candidates": 1, "nfe": 1, "selection": "last", "seeds": [0]}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps([common | {"stage": "ctd"}]))
    kept = study.add(path, tmp_path / "results")
    path.write_text(json.dumps([common | {"stage": "student", "physics": D4RL_V2}]))
    assert study.add(path, tmp_path / "results") == kept
    assert [e["stage"] for e in study.read(kept)] == ["student"]


def test_v4_is_not_d4rls():
    rows = []
    for word in ("d4rl", "v4"):
        env = make_env(choice.choose(HOPPER, word).env_id)
        env.reset(seed=0)
        rows.append(env.step(np.full(3, 0.5, np.float32))[0])
        env.close()
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


@pytest.mark.parametrize(("word", "name"), [("", D4RL_V2), ("v4", "Gymnasium v4")])
def test_an_entry_of_an_evaluation_says_its_physics(word, name):
    values = configs.load("hopper_m", f"eval,env={word},size=demo,source=simulated")
    job = opening.open_pipeline(registry.configure(values.to_dict()))
    entry = measure.entry(job, "student", np.array([1.0, 2.0]))
    assert entry["physics"] == name
    assert choice.short(name) in entry["source"]  # the data were simulated in it
