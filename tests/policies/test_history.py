"""Policies of several observations act on what they learnt from; critics see the present one."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load, transitions_of
from run_helpers import tiny_pipeline, train

import ractd_jax
from ractd_jax import errors, reward
from ractd_jax.bench import act as bench
from ractd_jax.bench import train as bench_train
from ractd_jax.config import replace
from ractd_jax.data import normalization, windows
from ractd_jax.method import Reads
from ractd_jax.methods import registry
from ractd_jax.policies.policy import Policy
from ractd_jax.policies.selection import BestOfN
from ractd_jax.tasks import TaskSpec
from ractd_jax.training import checkpoints, examples, run_dir
from ractd_jax.types import Algorithm

OBS, HISTORY, LENGTH = 3, 3, 9
TASK = TaskSpec("toy", "", OBS, HISTORY * OBS, 10, 0.0, 1.0, "")


def unused(*given):
    """Stand where an algorithm is asked for what is never called."""
    raise AssertionError(given)


def show(params, cond, keys):
    """Act with the condition itself."""
    del params, keys
    return cond[:, None]


@pytest.fixture(scope="module")
def known():
    """Two episodes' observations, the condition of each in training, and the normalizer."""
    transitions = transitions_of(([(LENGTH, True), (LENGTH, False)], 0))
    data, normalizer = windows.build(
        transitions, horizon=1, discount=0.9, termination_penalty=0.0, drop_last=False
    )
    options = {"batch_size": 512, "horizon": 1}
    conds = windows.sample_windows(data, jax.random.key(0), **options, history=HISTORY).cond
    present = windows.sample_windows(data, jax.random.key(0), **options).cond
    rows = (np.asarray(present)[:, None] == np.asarray(data.observations)[None]).all(2).argmax(1)
    learnt = np.zeros((2 * LENGTH, HISTORY * OBS), np.float32)
    learnt[rows] = conds
    assert set(rows) == set(range(2 * LENGTH))
    shape = 2, LENGTH, -1
    return transitions.observations.reshape(shape), learnt.reshape(shape), normalizer


@pytest.fixture
def acting(known):
    """A policy whose action is the condition it acts on."""
    same = normalization.identity(OBS, HISTORY * OBS).actions
    normalizer = known[2]._replace(actions=same)
    return Policy(Algorithm(unused, unused, show), {}, normalizer, TASK, history=HISTORY)


# ---- acting --------------------------------------------------------------------------------------


def test_calls_act_on_the_conditions_of_training(acting, known):
    obs, learnt, _ = known
    for step in range(LENGTH):
        np.testing.assert_allclose(acting(obs[:, step]), learnt[:, step], atol=1e-6)
    stale = acting(obs[0:2, 0])  # goes on with the episodes before
    assert (np.abs(stale - learnt[:, 0]).max(axis=1) > 0.1).all()
    acting.reset()
    for step in range(LENGTH):  # of a single one, the other way round
        np.testing.assert_allclose(acting(obs[1, step]), learnt[1, step], atol=1e-6)


def test_rollouts_act_on_the_conditions_of_training(acting, known):
    obs, learnt, _ = known
    seeds = np.array([7, 3])
    for episodes in ([0, 1], [1, 0]):  # again with the same seeds: step 0 begins anew
        for step in range(LENGTH):
            order = [1, 0, 1, 1] if step % 2 else [0, 1]  # padded with copies, as `rollouts` does
            if step > 5:
                order = [1]  # the other one has ended
            rows = np.array(episodes)[order]
            actions = acting.act(obs[rows, step], seeds[order], step)
            np.testing.assert_allclose(actions, learnt[rows, step], atol=1e-6)
            acting(obs[0, 8])  # remembers for itself


def test_a_seed_that_is_new_begins_an_episode(acting, known):
    obs, learnt, _ = known
    acting.act(obs[:1, 0], np.array([0]), 0)
    actions = acting.act(np.stack([obs[0, 1], obs[1, 0]]), np.array([0, 1]), 1)
    np.testing.assert_allclose(actions, [learnt[0, 1], learnt[1, 0]], atol=1e-6)


def test_another_number_of_episodes_needs_a_reset(acting, known):
    obs, learnt, _ = known
    acting(obs[:, 0])
    with pytest.raises(errors.UserError, match=r"1 episodes after those of 2.*reset\(\)") as caught:
        acting(obs[0, 1])
    assert "\n" not in str(caught.value)
    np.testing.assert_allclose(acting(obs[:, 1]), learnt[:, 1], atol=1e-6)  # nothing is lost
    acting.reset()
    np.testing.assert_allclose(acting(obs[0, 0]), learnt[0, 0], atol=1e-6)


def test_without_a_history_any_number_may_follow():
    task = dataclasses.replace(TASK, act_dim=OBS)
    normalizer = normalization.identity(OBS, OBS)
    plain = Policy(Algorithm(unused, unused, show), {}, normalizer, task)
    for shape in ((2, OBS), (OBS,), (5, OBS)):
        obs = np.full(shape, 0.5, np.float32)
        np.testing.assert_array_equal(plain(obs), obs)
    with pytest.raises(errors.UserError, match="an empty batch"):
        plain(np.zeros((0, OBS), np.float32))


# ---- critics -------------------------------------------------------------------------------------


def test_candidates_are_chosen_by_the_present_observation():
    def draw(params, cond, keys):
        del params, cond
        return jax.vmap(lambda key: jax.random.uniform(key, (1, OBS), minval=-1.0))(keys)

    def value(params, x, cond):
        return x[:, 0, 0] * cond[:, 1]

    algorithm, normalizer = Algorithm(unused, unused, draw), normalization.identity(OBS, OBS)
    best_of_n = BestOfN(value, {}, 8)
    recalls = Policy(algorithm, {}, normalizer, TASK, best_of_n=best_of_n, history=HISTORY)
    obs = np.random.default_rng(0).normal(size=(HISTORY, 30, OBS)).astype(np.float32)
    obs[-1, :, 1] = -obs[0, :, 1]  # who looks at the oldest one chooses the worst
    for rows in obs:
        action = recalls(rows)
    plain = Policy(algorithm, {}, normalizer, TASK, best_of_n=best_of_n)
    plain.step = HISTORY - 1  # the same noise
    np.testing.assert_array_equal(action, plain(obs[-1]))


@pytest.mark.parametrize("critic", ["reward", "iql"])
def test_critics_in_training_see_the_present_observation(critic):
    _, values = load("kitchen_mixed", "student,size=demo")
    config = registry.configure(values | {"critic": critic})
    task = config.task
    params = jax.jit(registry.make(config, critic).init)(jax.random.key(0)).params
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(-1, 1, (6, config.data.horizon, task.act_dim)), jnp.float32)
    cond = jnp.asarray(rng.uniform(-1, 1, (6, 4 * task.obs_dim)), jnp.float32)
    value = jax.jit(reward.critic_of(registry.context(config, "student")))
    values = value(params, x, cond, jax.random.key(1))
    alone = value(params, x, cond[:, 3 * task.obs_dim :], jax.random.key(1))
    np.testing.assert_array_equal(values, alone)
    assert len(set(values.tolist())) == 6


# ---- stages and runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A tiny Kitchen pipeline, with a teacher and what may value its actions."""
    pipeline = tiny_pipeline("kitchen_mixed", tmp_path_factory.mktemp("history"))
    for stage in ("teacher", "reward"):
        train(pipeline, stage)
    return pipeline


def test_stages_are_trained_on_what_they_are_made_for(pipeline):
    seen, config = {}, pipeline.config
    for stage in config.stages:
        if registry.get(stage).reads not in (Reads.WINDOWS, Reads.RETURNS):
            continue
        dataset, _ = examples.build(config, stage, pipeline.recorded.episodes)
        draw, horizon = examples.sampler(config, stage), registry.horizon(config, stage)
        batch = draw(dataset, jax.random.key(0), batch_size=5, horizon=horizon)
        seen[stage] = batch.cond.shape[1] // pipeline.task.obs_dim
        assert batch.cond.shape[1] == registry.context(config, stage).cond_dim
    assert seen == {"reward": 1, "teacher": 4, "ctd": 4, "student": 4, "ddpm": 4}


def test_a_trained_policy_and_its_critic(pipeline):
    obs = np.random.default_rng(0).normal(size=(5, 60)).astype(np.float32)
    run = pipeline.run("teacher")
    alone, best = (ractd_jax.load_policy(run, candidates=n) for n in (1, 16))
    assert alone.history == best.history == 4
    first, later = ([alone(row), best(row)] for row in obs[:2])
    assert all((a != b).any() for a, b in (first, later))
    fresh = ractd_jax.load_policy(run)
    fresh.step = 1
    assert (fresh(obs[1]) != later[0]).any()  # what came before matters


def test_a_run_of_another_history_is_another_run(pipeline):
    config = replace(pipeline.config, data__history=2)
    run_dir.check_same(pipeline.run("reward"), config, "reward")  # sees the present alone
    with pytest.raises(errors.UserError, match=r"data.history = 4, now it is 2"):
        run_dir.check_same(pipeline.run("teacher"), config, "teacher")


def test_a_run_of_another_version_is_told_in_one_line(pipeline, tmp_path):
    run = shutil.copytree(pipeline.run("teacher"), tmp_path / "teacher")
    path = run / checkpoints.CONFIG
    meta = json.loads(path.read_text())
    for name, fields in (
        ("data.history is missing", {"horizon": 4}),
        ("data.lookback", meta["config"]["data"] | {"lookback": 1}),
    ):
        changed = meta | {"config": meta["config"] | {"data": fields}}
        path.write_text(json.dumps(changed))
        with pytest.raises(errors.UserError, match=f"another version .*{name}") as caught:
            ractd_jax.load_policy(run)
        assert "\n" not in str(caught.value)


def test_speed_is_measured_with_a_history(pipeline, monkeypatch):
    monkeypatch.setattr(bench, "CONTENDERS", bench.CONTENDERS[:1])
    config = replace(pipeline.config, bench__batches=(1, 3), training__updates_per_dispatch=2)
    rates = {"float32": 1e9, "bfloat16": 1e9}
    acts = list(bench.measure(config, rates, seconds=0.01, max_seconds=60.0))
    assert [entry["batch"] for entry in acts] == [1, 3]
    assert all(entry["median_ms"] > 0 for entry in acts)
    rows = list(bench_train.measure(config, rates, 60.0))
    assert all(entry["fused_per_s"] > 0 for entry in rows)
