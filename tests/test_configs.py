"""Every file in configs/: it loads for all words, is the published model, and trains."""

import functools
import importlib
import itertools
import json
import tomllib

import jax
import numpy as np
import pytest
from helpers import ROOT, load
from run_helpers import tiny_pipeline

from configs import base, single_action
from ractd_jax import errors, stages, tasks
from ractd_jax.data import windows
from ractd_jax.report import study

FILES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if "def get_config(" in path.read_text() and path.stem != "suite"
)
BENCHMARK = [  # not the user's own data, whose sizes nobody knows beforehand
    name
    for name in FILES
    if importlib.import_module(f"configs.{name}").get_config().task in tasks.TASKS
]
# task: weights of teacher, student and (released) return model, counted by the layers' formulas
PUBLISHED = {
    "hopper": (248_046_211, 251_716_227, 344_257),
    "walker2d": (248_228_998, 251_899_014, 345_409),
    "halfcheetah": (248_228_998, 251_899_014, 345_409),
    "maze2d-umaze": (65_328_132, 68_998_148, 342_977),
    "maze2d-medium": (252_027_652, 259_367_684, 342_977),
    "maze2d-large": (256_370_692, 264_235_012, 342_977),
}
# task: epochs of the student, weight of the reward in the paper (Table 9) and in the released YAML
STUDENTS = {
    "hopper-medium-replay-v2": (400, 1.0, 1.0),
    "hopper-medium-v2": (700, 3.0, 1.0),
    "hopper-medium-expert-v2": (400, 0.0, 0.5),
    "walker2d-medium-replay-v2": (700, 1.0, 0.5),
    "walker2d-medium-v2": (700, 0.4, 0.4),
    "walker2d-medium-expert-v2": (700, 0.2, 0.2),
    "halfcheetah-medium-replay-v2": (400, 1.0, 1.0),
    "halfcheetah-medium-v2": (400, 0.5, 0.5),
    "halfcheetah-medium-expert-v2": (400, 0.0, 0.0),
}


@functools.cache
def _count(stage, needed):
    """Count the weights of a stage; `needed` is all they depend on, as JSON."""
    config = json.loads(needed)
    init = stages.make(config, tasks.get(config["task"]), stage).init
    arguments = ({},) if stage == "student" else ()  # no frozen teacher: no warm start
    params = jax.eval_shape(init, jax.random.key(0), *arguments).params
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count(config, stage):
    """Count the weights of a stage without making them.

    Tasks of one shape share networks, and a second of tracing them.
    """
    own = tasks.get(config["task"])
    values = ("discount", "termination_penalty", "drop_last_window")
    task = next(t for t in tasks.TASKS.values() if shape(t) == shape(own))
    needed = {
        "task": task.name,
        "noise": config["noise"],
        "training": {},
        "data": {k: v for k, v in config["data"].items() if k not in values},
        "reward": {
            "kind": "returns",
            "method": {"members": 1},
            "network": {"dims": [8], "layer_norm": False},
        },
    }
    for name in ("reward",) if stage == "reward" else ("teacher", "student"):
        network = {k: v for k, v in config[name]["network"].items() if "dropout" not in k}
        needed[name] = {"network": network, "method": {}}
    student = needed.setdefault("student", {}).setdefault("method", {})
    student.update(warm_start=False, reward_weight=1.0)
    for name in ("reward", "teacher", "student"):
        needed.setdefault(name, {})["optimiser"] = {"steps": 1}
    return _count(stage, json.dumps(needed, sort_keys=True))


def shape(task):
    return task.name.startswith("maze2d"), task.obs_dim, task.act_dim


def published(config):
    return next((PUBLISHED[t] for t in PUBLISHED if config["task"].startswith(t)), None)


def test_there_is_a_file_for_each_of_the_fifteen_tasks():
    assert sorted(load(name)[1]["task"] for name in BENCHMARK) == sorted(tasks.TASKS)
    assert len(BENCHMARK) == 15


def test_configs_are_installed_with_the_package():
    setuptools = pytest.importorskip("setuptools")  # a build brings its own
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = setuptools.find_packages(str(ROOT), **project["tool"]["setuptools"]["packages"]["find"])
    assert {"configs", "ractd_jax", "ractd_jax.data"} <= set(found)


@pytest.mark.parametrize("name", FILES)
def test_loads_for_every_word(name):
    for stage, size, preset in itertools.product(base.STAGES, base.SIZES, base.PRESETS):
        config, plain = load(name, f"{stage},size={size},preset={preset},source=simulated,seed=3")
        values = [stage, size, "simulated", preset, 3, 1]
        assert [plain[key] for key in base.ARGUMENTS] == values
        config.teacher.optimiser.steps = 7  # fields keep their types, whatever set them
        with pytest.raises(TypeError):
            config.teacher.optimiser.steps = "many"
    with pytest.raises(errors.UserError, match="Did you mean 'student'"):
        load(name, "studnet")


@pytest.mark.parametrize("name", BENCHMARK)
def test_docstring_gives_the_command_and_the_published_score(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    assert text.startswith(f"{load(name)[1]['task']}: ")
    assert f"python main.py --config=configs/{name}.py:student" in text
    assert "Published" in text
    assert "docs/results.md" in text


@pytest.mark.parametrize("name", BENCHMARK)
def test_docstring_gives_the_measured_score_where_there_is_one(name):
    ours = importlib.import_module(f"configs.{name}").__doc__.partition("Ours")[2]
    here = [e for e in study.load(ROOT / "results") if e["task"] == load(name)[1]["task"]]
    scores = [e["score_mean"] for e in here if e["stage"] == "student"]
    if scores:
        assert f"RACTD {np.mean(scores):.1f}" in " ".join(ours.split())
    assert ("RACTD" in ours) == bool(scores)


@pytest.mark.parametrize("name", BENCHMARK)
def test_networks_at_paper_size_are_the_published_ones(name):
    for preset in base.PRESETS:
        _, config = load(name, f"student,preset={preset}")
        found = {stage: count(config, stage) for stage in ("teacher", "student", "reward")}
        ctd = config["ctd"]["network"]
        assert ctd == config["student"]["network"]
        if published(config):
            teacher, student, return_model = published(config)
            assert found["teacher"] == teacher
            assert found["student"] == student
            assert preset != "released" or found["reward"] == return_model


@pytest.mark.parametrize("name", BENCHMARK)
def test_sizes_are_in_their_order(name):
    sizes = [count(load(name, f"student,size={size}")[1], "student") for size in base.SIZES]
    assert sizes[0] < 4.2e6 < sizes[1] < 1.2e7 < sizes[2]


@pytest.mark.parametrize("name", BENCHMARK)
def test_numbers_of_the_task_are_those_of_paper_and_yaml(name):
    configs = {preset: load(name, f"student,preset={preset}")[0] for preset in base.PRESETS}
    task = configs["paper"].task
    if task not in STUDENTS:
        pytest.skip("not a locomotion task")
    epochs, *weights = STUDENTS[task]
    for preset, weight in zip(("paper", "released"), weights, strict=True):
        config = configs[preset]
        assert config.student.method.reward_weight == weight
        assert config.ctd.method.reward_weight == 0
        assert config.student.epochs == config.ctd.epochs == epochs
        assert config.data.horizon == 16
        assert config.student.optimiser.batch_size == 4800
        assert config.teacher.optimiser.batch_size == 1024
        fields = config.reward.optimiser
        seen = fields.batch_size, fields.learning_rate, config.reward.epochs
        assert seen == {
            "halfcheetah-medium-replay-v2": (32, 2e-4, 50),
            "halfcheetah-medium-v2": (32, 1e-4, 100),
            "halfcheetah-medium-expert-v2": (32, 2e-4, 50),
        }.get(task, (64, 2e-4, 50))
    diffuser = configs["paper"].diffuser.method
    seen = diffuser.horizon, diffuser.steps, diffuser.plans, diffuser.guide_steps, diffuser.clip
    assert seen == (4 if "cheetah" in task else 32, 20, 64, 2, False)
    scale = 1e-3 if "cheetah" in task else 1e-4 if task == "hopper-medium-expert-v2" else 0.1
    assert (diffuser.guide_scale, diffuser.guide_stop) == (scale, 2 if scale == 0.1 else 4)
    discount = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}[task.split("-")[0]]
    assert [configs[p].data.discount for p in ("default", "paper")] == [discount] * 2
    assert configs["released"].data.discount == 0.99
    assert [configs[p].data.termination_penalty for p in base.PRESETS] == [-100, -100, 0]


# maze: states of a plan, batch of the student and weight of its reward, released YAML
MAZES = {"umaze": (128, 1400, 1e-4), "medium": (256, 320, 1e-4), "large": (384, 320, 1e-5)}


@pytest.mark.parametrize(
    ("name", "words", "steps"),
    [
        ("hopper_m", "size=demo,source=simulated", 200_000),
        ("walker2d_me", "size=demo,source=simulated", 400_000),
        ("hopper_mr", "size=demo,source=simulated", 0),
        ("hopper_me", "size=demo,source=d4rl", 0),  # whose first part is all medium
        ("hopper_me", "size=small,source=simulated", 0),
        ("maze2d_large", "size=demo,source=simulated", 0),
    ],
)
def test_demo_simulates_a_fifth_of_the_large_sets(name, words, steps):
    config, _ = load(name, f"student,{words}")
    assert config.data.transitions == steps


@pytest.mark.parametrize("maze", MAZES)
def test_numbers_of_the_mazes_are_those_of_paper_and_yaml(maze):
    configs = {p: load(f"maze2d_{maze}", f"student,preset={p}")[0] for p in base.PRESETS}
    for config in configs.values():
        assert config.task == f"maze2d-{maze}-v1"
        assert config.data.termination_penalty == 0
        batches = [config[s].optimiser.batch_size for s in ("teacher", "ctd", "student", "reward")]
        assert [config.data.horizon, *batches] == [MAZES[maze][0], 1024, *[MAZES[maze][1]] * 2, 64]
        epochs = [config[s].epochs for s in ("teacher", "ctd", "student", "reward")]
        assert epochs == [400, 400, 400, 100]
        assert config.ctd.method.reward_weight == 0
    for preset in ("paper", "released"):
        assert configs[preset].student.method.reward_weight == MAZES[maze][2]
    # 1 at the goal and 0 elsewhere, or the return-to-go
    assert [configs[p].data.discount for p in ("paper", "released")] == [0.0, 0.99]
    assert [configs[p].eval.follow for p in base.PRESETS] == ["inverse", "inverse", "waypoints"]
    steps = {"umaze": 64, "medium": 256, "large": 256}[maze]  # of Diffuser's schedule
    diffuser = configs["paper"].diffuser.method
    assert [diffuser.steps, diffuser.action_weight, diffuser.clip] == [steps, 1.0, True]
    assert [diffuser.horizon, diffuser.guide_steps] == [0, 0]


@pytest.mark.parametrize("maze", MAZES)
def test_diffuser_sees_its_ends_which_no_condition_tells_it_at_all_frequencies(maze):
    for size in ("small", "demo"):
        config, _ = load(f"maze2d_{maze}", f"diffuser,size={size}")
        assert config.diffuser.network.frequencies == config.data.horizon == MAZES[maze][0]


@pytest.mark.parametrize("name", BENCHMARK)
def test_all_of_eda_sees_its_data_alike(name):
    for preset, frame in {"default": "limits", "paper": "none", "released": "none"}.items():
        config = load(name, f"eda,preset={preset}")[0]
        if "eda" not in config:
            pytest.skip("only mazes, which are planned, have none")
        scale = "none" if config.task.startswith("kitchen") else "range"
        for stage in ("eda_behavior", "eda_critic", "eda"):
            assert config[stage].data.to_dict() == {"frame": frame, "reward_scale": scale}
        assert config.eda.method.beta == single_action.BETA[config.task]
        demo = load(name, f"eda,size=demo,preset={preset}")[0]
        assert demo.eda.method.beta == max(2.0, single_action.BETA[config.task])
        normalised = "before" if preset == "default" else ""
        assert config.eda_critic.network.layer_norm == normalised


# ---- training ------------------------------------------------------------------------------------

# One file of each family, that is, of each module that the files share.
FAMILIES = {"hopper": "locomotion", "walker2d": "locomotion", "halfcheetah": "locomotion"}
TRAINS = {FAMILIES.get(name.split("_")[0], name.split("_")[0]): name for name in BENCHMARK}


@functools.cache
def _compiled(stage, needed):
    config = json.loads(needed)
    algorithm = stages.make(config, tasks.get(config["task"]), stage)
    return jax.jit(algorithm.init), jax.jit(algorithm.update)


def compiled(stage, config):
    """Return first weights and update of a stage; files that share shapes share the programs."""
    own = tasks.get(config["task"])
    needed = {name: dict(config[name]) for name in ("teacher", "reward", "student")}
    for section in needed.values():
        del section["epochs"]  # the steps are given
    needed["noise"], needed["training"] = config["noise"], {}
    needed["task"] = next(t.name for t in tasks.TASKS.values() if shape(t) == shape(own))
    needed["data"] = {"horizon": config["data"]["horizon"]}
    return _compiled(stage, json.dumps(needed, sort_keys=True))


@pytest.mark.parametrize("name", BENCHMARK)
def test_every_file_takes_a_step(name, tmp_path):
    job = tiny_pipeline(name, tmp_path)
    keys, frozen = iter(jax.random.split(jax.random.key(0), 9)), {}
    for stage in ("teacher", "reward", "student"):
        examples, _ = job.examples(stage)
        horizon = 1 if stage == "reward" else job.config["data"]["horizon"]
        draw = windows.SAMPLE[job.task.kind]
        batch = draw(examples, next(keys), batch_size=8, horizon=horizon)
        init, update = compiled(stage, job.config)
        before = init(next(keys), *([frozen] if stage == "student" else []))
        after, metrics = update(before, batch, next(keys))
        assert all(np.isfinite(value) for value in metrics.values())
        assert int(after.step) == 1
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before.params, after.params)
        assert max(jax.tree.leaves(moved)) > 0
        frozen[stage] = before.params


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINS.values())
def test_every_stage_trains(name, tmp_path):
    job = tiny_pipeline(name, tmp_path)
    for stage in stages.of(job.config):
        job.ensure(stage)
        (line,) = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == 2
        assert np.isfinite(json.loads(line)["loss"])


@pytest.mark.slow
def test_the_critic_can_judge_a_student_if_it_sees_the_data_alike(tmp_path):
    job = tiny_pipeline("hopper_mr", tmp_path, reward={"kind": "iql"})
    job.ensure("student")
    assert not (tmp_path / "run" / "reward").exists()
    assert (tmp_path / "run" / "iql").exists()
    other = tiny_pipeline("hopper_mr", tmp_path)  # of the return model
    other.resume = True
    with pytest.raises(
        errors.UserError, match=r"trained with reward\.kind = iql, now it is returns"
    ):
        other.ensure("student")

    (tmp_path / "other").mkdir()
    frame = {"data": {"frame": "gaussian", "reward_scale": "none"}}
    job = tiny_pipeline("hopper_mr", tmp_path / "other", reward={"kind": "iql"}, iql=frame)
    with pytest.raises(errors.UserError, match="different frames"):
        job.ensure("student")
    job.config["reward"]["kind"] = "sarsa"
    with pytest.raises(errors.UserError, match=r"reward\.kind"):
        job.ensure("student")
