"""Seeds trained together end where each would have ended alone."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import curve, saved, tiny_config
from run_helpers import train as train_stage

import ractd_jax
from ractd_jax import config as configuration
from ractd_jax import diffusion, edm, errors
from ractd_jax.cli import words
from ractd_jax.training import checkpoints, loop, opening, pipeline
from ractd_jax.training.trainer import Trainer
from ractd_jax.types import Algorithm

STEPS = 7


def close(a, b, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-5} | tolerance
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.fixture(scope="module")
def algorithm(tiny, optimiser, sizes):
    net = tiny("small")
    noise, method = diffusion.Noise(), edm.Teacher()
    return edm.make_teacher(net, noise, method, optimiser(warmup=1), **sizes)


def train(algorithm, toy, draw, state, key):
    options = {"steps": STEPS, "updates_per_dispatch": 3, "key": key}
    reports, last = [], None
    for last, report in loop.fit(algorithm, state, toy, draw, **options):  # noqa: B007
        reports.append(report)
    return last, reports


def test_stacked_loop_is_each_seeds_own(algorithm, toy, draw):
    keys = [jax.random.key(seed) for seed in range(3)]
    states = [algorithm.init(jax.random.clone(key)) for key in keys]
    stacked = loop.stack(states), loop.stack([jax.random.clone(key) for key in keys])
    together, reports = train(algorithm, toy, draw, *stacked)
    assert [r.step for r in reports] == [3, 6, 7]
    for i, (state, key) in enumerate(zip(states, keys, strict=True)):
        alone, own = train(algorithm, toy, draw, state, key)
        close(loop.row(together, i), alone)
        for single, stacked_report in zip(own, reports, strict=True):
            assert stacked_report.metrics["loss"][i] == pytest.approx(
                single.metrics["loss"], rel=1e-4
            )
    assert len({r.metrics["loss"][0] for r in reports} | {reports[0].metrics["loss"][1]}) == 4


def test_a_seed_that_fails_stops_all(algorithm, toy, draw):
    def update(state, batch, key):
        state, metrics = algorithm.update(state, batch, key)
        bad = (state.params["output"]["bias"][0] > 50) & (state.step == 2)
        return state, {"loss": jnp.where(bad, jnp.nan, metrics["loss"])}

    states = [algorithm.init(jax.random.key(seed)) for seed in range(2)]
    bias = states[1].params["output"]["bias"]
    states[1].params["output"]["bias"] = bias + 100
    keys = loop.stack([jax.random.key(seed) for seed in range(2, 4)])
    broken = Algorithm(algorithm.init, update, None)
    updates = loop.make_loop(broken, draw, keys)
    state, _, finite = updates(loop.stack(states), toy, STEPS)
    assert not finite
    assert state.step.tolist() == [2, 2]


def test_several_devices_are_refused(algorithm, draw):
    keys = loop.stack([jax.random.key(0), jax.random.key(1)])
    with pytest.raises(ValueError, match="one device"):
        loop.make_loop(algorithm, draw, keys, jax.devices() * 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    smaller = {"optimiser": {"steps": 4, "warmup": 1}}
    sections = dict.fromkeys(("teacher", "student", "reward"), smaller)
    folder = tmp_path_factory.mktemp("data")
    return tiny_config("hopper_mr", folder, seed=3, seeds=2, training={"save_every": 2}, **sections)


@pytest.mark.slow
def test_every_folder_is_that_of_a_single_run(config, tmp_path):
    def trainer(**options):
        return Trainer(opening.open_seeds(config, tmp_path / "together"), **options)

    assert [job.config.seed for job in trainer().pipelines] == [3, 4]
    trainer().ensure("student")
    alone = opening.open_pipeline(
        configuration.replace(config, seed=4, seeds=1), tmp_path / "alone"
    )
    train_stage(alone, "student")
    for stage in ("reward", "teacher", "student"):
        runs = [tmp_path / "together" / f"seed{seed}" / stage for seed in (3, 4)]
        single = tmp_path / "alone" / stage
        assert {p.name for p in runs[1].iterdir()} == {p.name for p in single.iterdir()}
        assert checkpoints.run_status(runs[1]) == checkpoints.FINISHED
        close(saved(runs[1]), saved(single))
        first, second = map(jax.tree.leaves, map(saved, runs))
        assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        for line, same in zip(curve(runs[1]), curve(single), strict=True):
            assert line == pytest.approx(same, rel=1e-3)
        configs = [checkpoints.read_json(run / checkpoints.CONFIG) for run in (runs[1], single)]
        assert configs[0] == configs[1]
    ractd_jax.load_policy(tmp_path / "together" / "seed3" / "student")

    # One seed was stopped half way, the other is finished: only the first goes on, to the same.
    run = tmp_path / "together" / "seed4" / "student"
    before = saved(run)
    (run / checkpoints.FINISHED).unlink()
    shutil.rmtree(run / "checkpoints" / "4")
    with pytest.raises(errors.UserError, match="--resume"):
        trainer().ensure("student")
    trainer(resume=True).ensure("student")
    close(saved(run), before)


def test_default_folders_are_those_of_single_runs(config):
    jobs = opening.open_seeds(config)
    singles = (configuration.replace(config, seed=seed) for seed in (3, 4))
    assert [job.workdir for job in jobs] == [pipeline.default_workdir(one) for one in singles]
    assert jobs[0].recorded is jobs[1].recorded


@pytest.mark.parametrize(("word", "says"), [("seeds=0", "at least 1"), ("seeds=x", "whole")])
def test_wrong_numbers_of_seeds_are_refused(word, says):
    with pytest.raises(errors.UserError, match=says):
        words.parse(f"student,{word}")
