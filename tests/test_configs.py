"""Every file in configs/: it loads for all words, is the published model, and trains."""

import ast
import functools
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from helpers import ROOT, load
from run_helpers import tiny_pipeline, train

from ractd_jax import config as configuration
from ractd_jax import errors, tasks
from ractd_jax.cli import configs, words
from ractd_jax.methods import registry
from ractd_jax.training import examples

FILES = [name for name in configs.names() if name != "suite"]
BENCHMARK = [name for name in FILES if name != "custom"]  # whose sizes are those of its data
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
def _count(kind, network, obs_dim, act_dim, horizon, stage):
    """Count the weights of a network, by what they depend on."""
    task = tasks.TaskSpec("toy", obs_dim=obs_dim, act_dim=act_dim, kind=kind)
    of_kind = "maze2d_umaze" if kind == "planner" else "hopper_mr"
    settings = registry.configure(load(of_kind)[1])
    fields = {f"{stage}__network": network, "data__horizon": horizon, "task": task}
    if stage in ("ctd", "student"):
        fields |= {f"{stage}__method__warm_start": False, "teacher__network": network}
    if stage == "reward":
        fields["reward__method__members"] = 1
    settings = configuration.replace(settings, **fields)
    init = registry.make(settings, stage).init
    params = jax.eval_shape(init, jax.random.key(0), *([{}] if stage == "student" else [])).params
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count(values, stage):
    """Count the weights of a stage without making them; tasks of one shape share a trace."""
    settings = registry.configure(values)
    task, network = settings.task, settings.stages[stage].network
    return _count(task.kind, network, task.obs_dim, task.act_dim, settings.data.horizon, stage)


def published(config):
    return next((PUBLISHED[t] for t in PUBLISHED if config["task"]["name"].startswith(t)), None)


def test_there_is_a_file_for_each_of_the_fifteen_tasks():
    assert sorted(load(name)[1]["task"]["name"] for name in BENCHMARK) == sorted(tasks.TASKS)
    assert len(BENCHMARK) == 15


STAGES = [*words.COMMANDS, *registry.records()]


@pytest.mark.parametrize("stage", STAGES)
def test_loads_for_every_stage(stage):
    assert load("hopper_mr", stage)[1]["stage"] == stage


@pytest.mark.parametrize("name", FILES)
def test_loads_for_every_word(name):
    combinations = [("student", *pair) for pair in itertools.product(words.SIZES, words.PRESETS)]
    for stage, size, preset in combinations:
        config, plain = load(name, f"{stage},size={size},preset={preset},source=simulated,seed=3")
        said = {"stage": stage, "size": size, "source": "simulated", "preset": preset, "seed": 3}
        assert {key: plain[key] for key in words.ARGUMENTS} == words.ARGUMENTS | said
        config.teacher.optimiser.steps = 7  # fields keep their types, whatever set them
        with pytest.raises(TypeError):
            config.teacher.optimiser.steps = "many"
    with pytest.raises(errors.UserError, match="Did you mean 'student'"):
        load(name, "studnet")


def documentation(name):
    """Return the docstring of a configuration file."""
    return ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))


@pytest.mark.parametrize("name", BENCHMARK)
def test_docstring_gives_the_command_and_the_published_score(name):
    text = documentation(name)
    assert text.startswith(f"{load(name)[1]['task']['name']}: ")
    assert f"python main.py --config=configs/{name}.py:student" in text
    assert "Published" in text
    assert "docs/results.md" in text


@pytest.mark.parametrize("name", BENCHMARK)
def test_networks_at_paper_size_are_the_published_ones(name):
    for preset in words.PRESETS:
        _, config = load(name, f"student,preset={preset}")
        counts = {stage: count(config, stage) for stage in ("teacher", "student", "reward")}
        ctd = config["ctd"]["network"]
        assert ctd == config["student"]["network"]
        if published(config):
            teacher, student, return_model = published(config)
            assert counts["teacher"] == teacher
            assert counts["student"] == student
            assert preset != "released" or counts["reward"] == return_model


@pytest.mark.parametrize("name", BENCHMARK)
def test_sizes_are_in_their_order(name):
    sizes = [count(load(name, f"student,size={size}")[1], "student") for size in words.SIZES]
    assert sizes[0] < 4.2e6 < sizes[1] < 1.2e7 < sizes[2]


@pytest.mark.parametrize("name", BENCHMARK)
def test_numbers_of_the_task_are_those_of_paper_and_yaml(name):
    presets = {preset: load(name, f"student,preset={preset}")[0] for preset in words.PRESETS}
    task = presets["paper"].task.name
    if task not in STUDENTS:
        pytest.skip("not a locomotion task")
    epochs, *weights = STUDENTS[task]
    for preset, weight in zip(("paper", "released"), weights, strict=True):
        config = presets[preset]
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
    diffuser = presets["paper"].diffuser.method
    seen = diffuser.horizon, diffuser.steps, diffuser.plans, diffuser.guide_steps, diffuser.clip
    assert seen == (4 if "cheetah" in task else 32, 20, 64, 2, False)
    scale = 1e-3 if "cheetah" in task else 1e-4 if task == "hopper-medium-expert-v2" else 0.1
    assert (diffuser.guide_scale, diffuser.guide_stop) == (scale, 2 if scale == 0.1 else 4)
    discount = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}[task.split("-")[0]]
    assert [presets[p].data.discount for p in ("default", "paper")] == [discount] * 2
    assert presets["released"].data.discount == 0.99
    assert [presets[p].data.termination_penalty for p in words.PRESETS] == [-100, -100, 0]


# maze: states of a plan, batch of the student and weight of its reward, released YAML
MAZES = {"umaze": (128, 1400, 1e-4), "medium": (256, 320, 1e-4), "large": (384, 320, 1e-5)}


@pytest.mark.parametrize(
    ("name", "argument", "steps"),
    [
        ("hopper_m", "size=demo,source=simulated", 200_000),
        ("walker2d_me", "size=demo,source=simulated", 400_000),
        ("hopper_mr", "size=demo,source=simulated", 0),
        ("hopper_me", "size=demo,source=d4rl", 0),  # whose first part is all medium
        ("hopper_me", "size=small,source=simulated", 0),
        ("maze2d_large", "size=demo,source=simulated", 0),
    ],
)
def test_demo_simulates_a_fifth_of_the_large_sets(name, argument, steps):
    config, _ = load(name, f"student,{argument}")
    assert config.data.transitions == steps


@pytest.mark.parametrize("maze", MAZES)
def test_numbers_of_the_mazes_are_those_of_paper_and_yaml(maze):
    presets = {p: load(f"maze2d_{maze}", f"student,preset={p}")[0] for p in words.PRESETS}
    for config in presets.values():
        assert config.task.name == f"maze2d-{maze}-v1"
        assert config.data.termination_penalty == 0
        batches = [config[s].optimiser.batch_size for s in ("teacher", "ctd", "student", "reward")]
        assert [config.data.horizon, *batches] == [MAZES[maze][0], 1024, *[MAZES[maze][1]] * 2, 64]
        epochs = [config[s].epochs for s in ("teacher", "ctd", "student", "reward")]
        assert epochs == [400, 400, 400, 100]
        assert config.ctd.method.reward_weight == 0
    for preset in ("paper", "released"):
        assert presets[preset].student.method.reward_weight == MAZES[maze][2]
    # 1 at the goal and 0 elsewhere, or the return-to-go
    assert [presets[p].data.discount for p in ("paper", "released")] == [0.0, 0.99]
    assert [presets[p].eval.follow for p in words.PRESETS] == ["inverse", "inverse", "waypoints"]
    steps = {"umaze": 64, "medium": 256, "large": 256}[maze]  # of Diffuser's schedule
    diffuser = presets["paper"].diffuser.method
    assert [diffuser.steps, diffuser.action_weight, diffuser.clip] == [steps, 1.0, True]
    assert [diffuser.horizon, diffuser.guide_steps] == [0, 0]


@pytest.mark.parametrize("maze", MAZES)
def test_diffuser_sees_its_ends_which_no_condition_tells_it_at_all_frequencies(maze):
    for size in ("small", "demo"):
        config, _ = load(f"maze2d_{maze}", f"diffuser,size={size}")
        assert config.diffuser.network.frequencies == config.data.horizon == MAZES[maze][0]


@pytest.mark.parametrize("name", BENCHMARK)
def test_all_of_eda_sees_its_data_alike(name):
    seen = {"default": "minmax", "paper": "none", "released": "none"}
    for preset, normalization in seen.items():
        config = load(name, f"eda,preset={preset}")[0]
        if "eda" not in config:
            pytest.skip("only mazes, which are planned, have none")
        scale = "none" if config.task.name.startswith("kitchen") else "range"
        for stage in ("eda_behavior", "eda_critic", "eda"):
            assert config[stage].data.to_dict() == {
                "normalization": normalization,
                "reward_scale": scale,
            }
        assert config.eda.method.beta == BETA[config.task.name]
        demo = load(name, f"eda,size=demo,preset={preset}")[0]
        assert demo.eda.method.beta == max(2.0, BETA[config.task.name])
        normalised = "before" if preset == "default" else ""
        assert config.eda_critic.network.layer_norm == normalised


BETA = configs.shipped("methods.eda").BETA

# ---- training ------------------------------------------------------------------------------------

# One file of each family, that is, of each module that the files share.
FAMILIES = {"hopper": "locomotion", "walker2d": "locomotion", "halfcheetah": "locomotion"}
TRAINS = {FAMILIES.get(name.split("_")[0], name.split("_")[0]): name for name in BENCHMARK}


PROGRAMS = {}


def compiled(config, stage):
    """Return first weights and update of a stage; tasks of one shape share the programs."""
    task, parts = config.task, [*registry.all_needs(config, stage), stage]
    sizes = task.kind, task.obs_dim, task.act_dim, config.data.horizon, config.data.history
    key = stage, sizes, config.noise, *(config.stages[part] for part in parts)
    if str(key) not in PROGRAMS:
        algorithm = registry.make(config, stage)
        PROGRAMS[str(key)] = jax.jit(algorithm.init), jax.jit(algorithm.update)
    return PROGRAMS[str(key)]


@pytest.mark.parametrize("name", BENCHMARK)
def test_every_file_takes_a_step(name, tmp_path):
    job = tiny_pipeline(name, tmp_path)
    keys, frozen = iter(jax.random.split(jax.random.key(0), 12)), {}
    for stage in ("teacher", "reward", "student"):
        data, _ = examples.build(job.config, stage, job.recorded.episodes)
        draw, horizon = examples.sampler(job.config, stage), registry.horizon(job.config, stage)
        batch = draw(data, next(keys), batch_size=8, horizon=horizon)
        init, update = compiled(job.config, stage)
        before = init(next(keys), *([frozen] if stage == "student" else []))
        after, metrics = update(before, batch, next(keys))
        assert all(np.isfinite(value) for value in metrics.values())
        assert after.step == 1
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before.params, after.params)
        assert max(jax.tree.leaves(moved)) > 0
        frozen[stage] = before.params


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINS.values(), ids=TRAINS)
def test_every_stage_trains(name, tmp_path):
    job = tiny_pipeline(name, tmp_path)
    for stage in job.config.stages:
        train(job, stage, resume=True)
        (line,) = (job.run(stage) / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == 2
        assert np.isfinite(json.loads(line)["loss"])


@pytest.mark.slow
def test_another_critic_can_value_a_student_if_it_sees_the_data_alike(tmp_path):
    alike = {"normalization": "minmax"}
    job = tiny_pipeline("hopper_mr", tmp_path, critic="iql", data=alike)
    train(job, "student")
    assert not job.run("reward").exists()
    assert job.run("iql").exists()
    other = tiny_pipeline("hopper_mr", tmp_path, data=alike)  # of the return model
    with pytest.raises(errors.UserError, match=r"trained with critic = iql, now it is reward"):
        train(other, "student", resume=True)

    (tmp_path / "other" / "run").mkdir(parents=True)
    shutil.copytree(job.run("teacher"), tmp_path / "other" / "run" / "teacher")
    otherwise = {"data": {"normalization": "standard", "reward_scale": "none"}}
    job = tiny_pipeline("hopper_mr", tmp_path / "other", critic="iql", data=alike, iql=otherwise)
    with pytest.raises(errors.UserError, match="normalise observations differently"):
        train(job, "student")
    with pytest.raises(errors.UserError, match=r"critic 'sarsa'"):
        tiny_pipeline("hopper_mr", tmp_path, critic="sarsa")
