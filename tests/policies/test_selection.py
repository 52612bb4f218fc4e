"""One of several candidates is chosen as told, for each row by itself, by a critic that fits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_pipeline, train

import ractd_jax
from ractd_jax import errors, tasks
from ractd_jax.config import replace
from ractd_jax.data import normalization
from ractd_jax.evaluation import evaluate, policies
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.methods import registry
from ractd_jax.policies import load, selection
from ractd_jax.policies.policy import Policy
from ractd_jax.policies.selection import BestOfN
from ractd_jax.training.opening import open_pipeline
from ractd_jax.types import Algorithm

TASK = tasks.TaskSpec("toy", "", 3, 2, 10, 0.0, 1.0, "")
SHAPE = (4, 2)


def act(params, cond, keys):
    """Draw trajectories around the condition's first number."""
    eps = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)
    return params * jnp.tanh(cond[:, :1, None] + eps)


def value(params, x, cond):
    """Value trajectories by their first number, most where the condition says so."""
    return params * x[:, 0, 0] * cond[:, 1]


def unused(*given):
    """Stand where an algorithm is asked for what is never called."""
    raise AssertionError(given)


TOY = Algorithm(init=unused, update=unused, act=act)


def pick(x, cond, keys, inverse_temperature=0.0):
    best_of_n = BestOfN(value, jnp.float32(1), x.shape[1], inverse_temperature)
    return selection.choose(best_of_n, best_of_n.params, x, cond, keys)


def candidates(rows, count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, count, *SHAPE)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.normal(size=(rows, 3)), jnp.float32)


# ---- choosing ------------------------------------------------------------------------------------


def test_greedy_selection_takes_the_best_candidate_whole():
    x, cond = candidates(50, 7)
    values = np.asarray(x[:, :, 0, 0]) * np.asarray(cond[:, 1:2])
    chosen = pick(x, cond, jax.random.split(jax.random.key(0), 50))
    expected = np.asarray(x)[np.arange(50), values.argmax(axis=1)]
    np.testing.assert_array_equal(chosen, expected)
    assert len(set(values.argmax(axis=1))) > 3  # which one it is differs


@pytest.mark.parametrize("inverse_temperature", [0.5, 2.0])
def test_soft_selection_draws_by_the_softmax_of_values(inverse_temperature):
    rows, values = 10_000, np.array([-1.0, 0.0, 0.5, 1.0])
    x = jnp.zeros((rows, 4, *SHAPE)) + jnp.asarray(values, jnp.float32)[None, :, None, None]
    cond = jnp.ones((rows, 3))
    chosen = pick(x, cond, jax.random.split(jax.random.key(0), rows), inverse_temperature)[:, 0, 0]
    expected = np.exp(inverse_temperature * values)
    expected /= expected.sum()
    shares = [(np.asarray(chosen) == np.float32(v)).mean() for v in values]
    error = np.sqrt(expected * (1 - expected) / rows)
    assert (np.abs(shares - expected) < 4 * error).all()


def test_a_great_inverse_temperature_nearly_takes_the_best():
    x, cond = candidates(200, 5)
    keys = jax.random.split(jax.random.key(0), 200)
    best = pick(x, cond, jax.random.clone(keys))
    np.testing.assert_array_equal(pick(x, cond, keys, 1e6), best)


@pytest.mark.parametrize("inverse_temperature", [0.0, 1.0])
def test_a_choice_does_not_depend_on_the_other_rows(inverse_temperature):
    x, cond = candidates(40, 6)
    keys = jax.random.split(jax.random.key(0), 40)
    whole = pick(x, cond, jax.random.clone(keys), inverse_temperature)
    some = jnp.array([30, 2, 17])
    part = pick(x[some], cond[some], jax.random.clone(keys)[some], inverse_temperature)
    np.testing.assert_array_equal(part, whole[some])


# ---- acting --------------------------------------------------------------------------------------


def make(count, inverse_temperature=0.0, sign=1.0):
    best_of_n = BestOfN(value, jnp.float32(sign), count, inverse_temperature)
    normalizer = normalization.identity(3, 2)
    return Policy(TOY, jnp.float32(0.9), normalizer, TASK, best_of_n=best_of_n)


OBS = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
SEEDS = np.arange(30, dtype=np.int32)


@pytest.mark.parametrize("inverse_temperature", [0.0, 3.0])
def test_an_action_depends_on_its_own_observation_seed_and_step(inverse_temperature):
    acting = make(5, inverse_temperature)
    whole = acting.act(OBS, SEEDS, 7)
    order = np.random.default_rng(1).permutation(30)[:11]
    np.testing.assert_allclose(acting.act(OBS[order], SEEDS[order], 7), whole[order], atol=1e-6)
    assert (acting.act(OBS, SEEDS, 8) != whole).any(axis=1).all()
    assert (acting.act(OBS, SEEDS + 100, 7) != whole).any(axis=1).all()


def test_more_candidates_have_a_higher_value():
    def mean_value(count):
        return np.mean(make(count).act(OBS, SEEDS, 0)[:, 0] * OBS[:, 1])

    values = [mean_value(count) for count in (1, 2, 8, 64)]
    assert values == sorted(values)
    # A critic of the opposite opinion takes the worst.
    worst = make(64, sign=-1.0).act(OBS, SEEDS, 0)
    assert np.mean(worst[:, 0] * OBS[:, 1]) < values[0]


# ---- critics that are trained --------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A teacher, an IQL critic that normalises otherwise, and a Diffusion-QL."""
    pipeline = tiny_pipeline(
        "hopper_mr",
        tmp_path_factory.mktemp("selection"),
        teacher={"method": {"sample_bins": 3}},
        iql={"data": {"normalization": "quantile"}},
        eval={"episodes": 2},
    )
    for stage in ("teacher", "iql", "dql"):
        train(pipeline, stage)
    return pipeline


def with_fields(pipeline, **fields):
    """Return the pipeline with fields of its configuration replaced."""
    return open_pipeline(replace(pipeline.config, **fields), pipeline.workdir)


def test_candidates_and_calls_of_each_are_in_the_file(trained):
    changed = with_fields(trained, dql__selection__candidates=4)
    entry = policies.evaluate_row(changed, parse_row(changed.config, "dql"))
    assert entry == json.loads((trained.run("dql") / "eval.json").read_text())
    assert (entry["nfe"], entry["candidates"], entry["critic"]) == (2, 4, "dql")
    # What is asked for apart is reported apart.
    entry = policies.evaluate_row(changed, parse_row(changed.config, "dql candidates=3"))
    assert entry == json.loads((trained.run("dql") / "eval_1_of_3.json").read_text())
    assert (entry["nfe"], entry["candidates"], entry["stage"]) == (2, 3, "dql, 1 of 3")


def test_without_a_critic_only_one_can_be_asked_for(trained):
    run = trained.run("teacher")
    with pytest.raises(errors.UserError, match="train the stage reward, or ask") as caught:
        ractd_jax.load_policy(run, candidates=3)
    assert "\n" not in str(caught.value)
    assert ractd_jax.load_policy(run)(OBS[0, :1].repeat(11)).shape == (3,)
    assert registry.selection(trained.config, "teacher").candidates == 1
    changed = with_fields(trained, eval__candidates=8)
    assert not evaluate.is_sampled_again(changed, parse_row(changed.config, "teacher"))


def test_rows_have_one_candidate_and_many_where_a_critic_that_fits_is_trained(trained, capsys):
    def names(**fields):
        return [row.name for row in evaluate.rows(with_fields(trained, **fields))]

    few = ["teacher", "iql", "dql", "dql, 1 of 1"]
    assert names() == few
    assert names(eval__candidates=8) == few
    assert "no reward is trained" in capsys.readouterr().out
    many = names(eval__candidates=8, teacher__selection__critic="dql")
    assert many == ["teacher", "teacher, 1 of 8", "iql", "dql", "dql, 1 of 1"]
    assert names(eval__candidates=8, teacher__selection__critic="iql") == many


def test_a_row_of_several_candidates_needs_a_trained_critic(trained):
    names = [row.name for row in evaluate.rows(with_fields(trained, eval__rows=("teacher", "iql")))]
    assert names == ["teacher", "iql"]
    changed = with_fields(trained, eval__rows=("teacher candidates=4", "iql"))
    says = r"eval.rows: teacher, 1 of 4: reward is not trained; .*:reward,size=demo.* trains it"
    with pytest.raises(errors.UserError, match=says):
        evaluate.rows(changed)


def test_critics_that_do_not_fit_are_refused(trained):
    teacher, dql = map(trained.run, ("teacher", "dql"))
    with pytest.raises(errors.UserError, match="values nothing"):
        ractd_jax.load_policy(dql, candidates=3, critic=teacher)


@pytest.mark.parametrize("critic", ["iql", "dql"])
def test_any_critic_values_any_policy_however_it_sees_the_data(trained, critic):
    kinds = {registry.normalization(trained.config, stage) for stage in ("teacher", critic)}
    assert len(kinds) == 2
    teacher, rng = trained.run("teacher"), np.random.default_rng(0)
    obs = rng.normal(size=(20, 11)).astype(np.float32)
    one = ractd_jax.load_policy(teacher)(obs)
    best = ractd_jax.load_policy(teacher, candidates=16, critic=trained.run(critic))(obs)
    assert best.shape == one.shape == (20, 3)
    assert (best != one).any()


def test_a_critic_of_other_data_sees_them_in_its_own_units():
    def some(size):
        scale, offset = rng.uniform(0.5, 2, size), rng.normal(size=size)
        return normalization.Affine(scale.astype(np.float32), offset.astype(np.float32))

    def value(params, x, cond):
        return params * x[:, 0, 0] * cond[:, 1] + x.sum(axis=(1, 2))

    rng = np.random.default_rng(0)
    policy, critic = [(some(3), some(2)) for _ in range(2)]
    obs = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    actions = jnp.asarray(rng.normal(size=(5, 4, 2)), jnp.float32)

    def within(maps):
        observed, done = maps
        return normalization.normalize(actions, done), normalization.normalize(obs, observed)

    values = selection.in_units_of(value, policy, critic)(2.0, *within(policy))
    np.testing.assert_allclose(values, value(2.0, *within(critic)), rtol=1e-5)
    assert not np.allclose(values, value(2.0, *within(policy)), rtol=0.1)


def test_a_critic_of_another_task_is_refused(trained, monkeypatch):
    load_critic = load.load_critic

    def of_walker(*given):
        model = load_critic(*given)
        return model._replace(config=replace(model.config, task=tasks.get("walker2d-medium-v2")))

    monkeypatch.setattr(load, "load_critic", of_walker)
    with pytest.raises(errors.UserError, match=r"acts in hopper-.*, .* values walker2d-medium-v2"):
        ractd_jax.load_policy(trained.run("teacher"), candidates=3, critic=trained.run("dql"))
