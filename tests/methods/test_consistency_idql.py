"""Consistency-IDQL as a pipeline: its models act, its table is written, its numbers hold."""

import dataclasses
import functools
import io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from helpers import load
from run_helpers import tiny_pipeline, train

import ractd_jax
from ractd_jax import config as configuration
from ractd_jax import diffusion, errors, tasks
from ractd_jax.cli import words
from ractd_jax.evaluation import idql_table
from ractd_jax.methods import consistency, registry
from ractd_jax.training import checkpoints

NOISE = diffusion.Noise(sigma_min=0.002, clip=False)
DATA = ("me", "m", "mr")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pipeline whose `cd` has been trained, in two updates."""
    pipeline = tiny_pipeline(
        "hopper_mr",
        tmp_path_factory.mktemp("idql"),
        idql_eval={"candidates": 3, "nfe": [2]},
        eval={"episodes": 1},
    )
    train(pipeline, "cd")
    assert (pipeline.run("edm_bc") / "checkpoints").exists()  # trained first
    return pipeline


def test_trained_models_act_with_any_number_of_calls(trained):
    obs, run = np.zeros(11), trained.run("cd")
    once = ractd_jax.load_policy(run)(obs)
    twice = ractd_jax.load_policy(run, nfe=2)(obs)
    assert once.shape == twice.shape == (3,)
    assert (once != twice).any()
    with pytest.raises(errors.UserError, match="train the stage iql"):
        ractd_jax.load_policy(run, candidates=4, critic=trained.workdir / "none" / "iql")


def test_teacher_and_student_see_observations_alike(trained, tmp_path):
    shutil.copytree(trained.run("edm_bc"), tmp_path / "edm_bc")
    config = configuration.replace(trained.config, cd__data__normalization="standard")
    other = dataclasses.replace(trained, config=config, workdir=tmp_path)
    with pytest.raises(errors.UserError, match="normalise observations differently"):
        train(other, "cd")


def test_distillation_heeds_the_noise_levels_of_its_teacher(trained):
    noise = diffusion.Noise(sigma_min=0.1, scaling="edm")
    config = configuration.replace(trained.config, edm_bc__noise=noise, cd__noise=NOISE)
    made = registry.make(config, "cd")
    keys, cond = jax.random.split(jax.random.key(0), 5), jnp.ones((5, 11))
    params = made.init(jax.random.key(1), {"teacher": _first(config, "edm_bc")}).params
    f = consistency.consistency_map(
        config.stages["cd"].network, params, consistency.boundary(noise), cond
    )
    expected = consistency.sample(f, noise, 1, jax.random.clone(keys), (1, 3))
    np.testing.assert_allclose(made.act(params, cond, keys), expected, atol=1e-6)


def _first(config, stage):
    """Return a stage's first weights."""
    return registry.make(config, stage).init(jax.random.key(0)).params


def test_cloning_knows_no_reward(trained):
    config = configuration.replace(trained.config, edm_bc__method__reward_weight=1.0)
    with pytest.raises(errors.UserError, match=r"^edm_bc\.method\.reward_weight is 1\.0: cloning"):
        registry.make(config, "edm_bc")


def test_table_is_evaluated_and_written(trained, monkeypatch):
    monkeypatch.setattr(idql_table, "SAMPLERS", ("cd",))  # each takes its time to compile
    for stage in ("iql", "ct"):
        train(trained, stage)
    idql_table.show(trained)
    entries = checkpoints.read_json(trained.workdir / "idql.json")
    assert [(e["model"], e["candidates"], e["nfe"]) for e in entries] == [
        ("cd", 1, 2),
        ("cd", 3, 2),
    ]
    assert all(e["published"] is None and np.isfinite(e["score_mean"]) for e in entries)


def entry(stage, candidates, calls, **fields):
    shared = {"task": "halfcheetah-medium-v2", "source": "simulated", "size": "demo"}
    shared |= {"physics": "D4RL v2"}
    shared |= {"preset": "default", "selection": "last", "seeds": [0, 1], "score_mean": 12.34}
    shared |= {"model": stage, "candidates": candidates, "nfe": calls, "published": None}
    return shared | fields


def test_table_has_the_published_figures_beside_ours():
    def lines(entries):
        console = rich.console.Console(width=100, record=True, file=io.StringIO())
        console.print(idql_table.table(entries))
        return [line.split() for line in console.export_text().splitlines()]

    alone, chosen = entry("cd", 1, 2), entry("cd", 256, 2, published=52.2, score_mean=45.6)
    table = lines([alone, chosen])
    assert ["consistency,", "distilled", "1", "12.3", "-"] in table
    assert ["consistency,", "distilled", "256", "45.6", "52.2"] in table
    assert not any("published" in line for line in lines([alone]))


def test_published_table_is_whole():
    assert set(idql_table.PUBLISHED) == {t for t in tasks.TASKS if "halfcheetah" in t}
    for samplers in idql_table.PUBLISHED.values():
        assert tuple(samplers) == idql_table.SAMPLERS
        assert all(list(scores) == [1, 2, 4] for scores in samplers.values())


@pytest.mark.parametrize(("stage", "calls"), [("edm_bc", 4), ("cd", 4), ("ct", 1)])
def test_calls_are_counted(stage, calls):
    config = registry.configure(load("halfcheetah_mr")[1])
    rows = [row for row in idql_table.rows(config) if row.stage == stage]
    assert [(row.nfe, row.candidates) for row in rows if row.nfe == calls] == [
        (calls, 1),
        (calls, config.idql_eval.candidates),
    ]
    assert registry.calls(config, stage) == {"edm_bc": 4, "cd": 1, "ct": 1}[stage]  # untouched


# From the papers and the published code, written down a second time.
PUBLISHED = {
    "iql.method.expectile": 0.7,
    "iql.method.discount": 0.99,
    "iql.network.hidden": [256, 256],
    "iql.optimiser.learning_rate": 3e-4,
    "iql.optimiser.batch_size": 256,
    "iql.optimiser.steps": 1_000_000,
    "iql.optimiser.ema": {"paper": 0.995, "released": 0.005},
    "edm_bc.noise.sigma_min": 0.002,
    "edm_bc.noise.sigma_max": 80.0,
    "edm_bc.noise.rho": 7.0,
    "edm_bc.noise.sigma_data": 0.5,
    "edm_bc.network.dropout": 0.1,
    "edm_bc.network.scale": 16.0,
    "edm_bc.optimiser.ema": 0.9999,
    "edm_bc.optimiser.steps": 1_000_000,
    "cd.method.intervals": 18,
    "cd.optimiser.steps": 200_000,
    "ct.network.scale": 0.02,
    "ct.method.s0": 10,
    "ct.method.s1": 1280,
    "ct.method.p_mean": -1.1,
    "ct.method.p_std": 2.0,
    "ct.method.huber_c": 0.01,
    "ct.optimiser.steps": 1_000_000,
    "idql_eval.candidates": 256,
    "eda.method.alpha": 3.0,
    "eda.method.proposals": 16,
    "eda.method.nfe": 15,
    "eda.selection.candidates": 4,
    "eda.optimiser.steps": 200_000,
    "eda.optimiser.learning_rate": 5e-5,
    "eda_behavior.optimiser.batch_size": 2048,
    "eda_critic.method.expectile": 0.7,
    "eda_critic.optimiser.steps": 1_500_000,
    "fql.method.flow_steps": 10,
    "fql.network.hidden": [512] * 4,
    "fql.optimiser.steps": 500_000,
    "dql.method.steps": 5,
    "dql.selection.candidates": 50,
    "dql.optimiser.schedule": {"paper": "cosine", "released": "constant"},
}


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_settings_are_the_published_ones(preset):
    config = load("hopper_m", f"cd,preset={preset}")[1]

    def of(name):
        return functools.reduce(lambda section, word: section[word], name.split("."), config)

    wanted = {k: v[preset] if isinstance(v, dict) else v for k, v in PUBLISHED.items()}
    assert {name: of(name) for name in wanted} == wanted


def test_numbers_of_each_task_are_the_published_ones():
    tasks_ = [f"{env}_{data}" for env in ("halfcheetah", "hopper", "walker2d") for data in DATA]
    sections = [load(task, "cd,preset=paper")[1] for task in tasks_]
    softmax = [c["cd"]["selection"]["inverse_temperature"] for c in sections]
    assert softmax == [10, 400, 100, 5, 50, 50, 300, 200, 200]
    assert [c["eda"]["method"]["beta"] for c in sections] == [
        2,
        0.1,
        0.2,
        2,
        0.2,
        0.2,
        0.3,
        0.5,
        0.1,
    ]
    assert [c["dql"]["optimiser"]["clip"] for c in sections] == [7, 9, 2, 5, 9, 4, 5, 1, 4]


def test_presets_are_the_published_settings_and_the_released_accidents():
    sections = {preset: load("halfcheetah_m", f"cd,preset={preset}")[1] for preset in words.PRESETS}
    chosen = {p: c["cd"]["selection"]["inverse_temperature"] for p, c in sections.items()}
    assert chosen == {"default": 400, "paper": 400, "released": 100}
    replay = load("halfcheetah_mr", "cd,preset=released")[1]
    assert replay["cd"]["selection"]["inverse_temperature"] == 400
    # A smaller size shortens the run and keeps the accident.
    small = [load("hopper_m", f"iql,preset={p},size=demo")[1] for p in ("released", "default")]
    assert [c["iql"]["optimiser"]["ema"] for c in small] == [0.005, 0.98]
    assert [c["ct"]["data"]["normalization"] for c in sections.values()] == [
        "minmax",
        "standard",
        "standard",
    ]
    for preset, config in sections.items():
        released = preset == "released"
        assert config["cd"]["method"]["clip"] == config["ct"]["method"]["clip"] == released
        assert config["ct"]["method"]["rounding"] == ("ceil" if released else "floor")
        assert config["ct"]["method"]["target_dropout"] == ("own" if released else "same")
        assert config["cd"]["optimiser"]["schedule"] == ("constant" if released else "cosine")
        assert config["edm_bc"]["optimiser"]["weight_decay"] == (0.01 if released else 1e-5)
