"""One of several candidates is chosen as told, for each row by itself, by a judge that fits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load, write_episodes

import ractd_jax
from ractd_jax import errors, stages, tasks
from ractd_jax.data import normalization, windows
from ractd_jax.evaluation import evaluate
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.policies import policy
from ractd_jax.training import pipeline
from ractd_jax.types import Algorithm

TASK = tasks.TaskSpec("toy", "", 3, 2, 10, 0.0, 1.0, "")
SHAPE = (4, 2)


def act(params, cond, keys):
    """Draw trajectories around the condition's first number."""
    eps = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)
    return params * jnp.tanh(cond[:, :1, None] + eps)


def judge(params, x, cond):
    """Hold trajectories to be worth their first number, most where the condition says so."""
    return params * x[:, 0, 0] * cond[:, 1]


TOY = Algorithm(init=None, update=None, act=act, value=judge)


def pick(x, cond, keys, inverse_temperature=0.0, worth=1.0):
    reselect = policy.Reselect(TOY, jnp.float32(worth), x.shape[1], inverse_temperature)
    return policy.choose_candidate(reselect, reselect.params, x, cond, keys)


def candidates(rows, count, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (rows, count, *SHAPE)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(rng.normal(size=(rows, 3)), jnp.float32)


# ---- choosing ------------------------------------------------------------------------------------


def test_greedy_selection_takes_the_best_candidate_whole():
    x, cond = candidates(50, 7)
    worth = np.asarray(x[:, :, 0, 0]) * np.asarray(cond[:, 1:2])
    chosen = pick(x, cond, jax.random.split(jax.random.key(0), 50))
    expected = np.asarray(x)[np.arange(50), worth.argmax(axis=1)]
    np.testing.assert_array_equal(chosen, expected)
    assert len(set(worth.argmax(axis=1))) > 3  # which one it is differs


@pytest.mark.parametrize("inverse_temperature", [0.5, 2.0])
def test_soft_selection_draws_by_the_softmax_of_values(inverse_temperature):
    rows, worth = 10_000, np.array([-1.0, 0.0, 0.5, 1.0])
    x = jnp.zeros((rows, 4, *SHAPE)) + jnp.asarray(worth, jnp.float32)[None, :, None, None]
    cond = jnp.ones((rows, 3))
    chosen = pick(x, cond, jax.random.split(jax.random.key(0), rows), inverse_temperature)[:, 0, 0]
    expected = np.exp(inverse_temperature * worth)
    expected /= expected.sum()
    found = [(np.asarray(chosen) == np.float32(w)).mean() for w in worth]
    error = np.sqrt(expected * (1 - expected) / rows)
    assert (np.abs(found - expected) < 4 * error).all()


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


def make(count, inverse_temperature=0.0, worth=1.0):
    reselect = policy.Reselect(TOY, jnp.float32(worth), count, inverse_temperature)
    limits = windows.identity(3, 2)
    return policy.Policy(TOY, jnp.float32(0.9), limits, TASK, reselect=reselect)


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


def test_more_candidates_are_worth_more():
    def worth(count):
        return np.mean(make(count).act(OBS, SEEDS, 0)[:, 0] * OBS[:, 1])

    found = [worth(count) for count in (1, 2, 8, 64)]
    assert found == sorted(found)
    # A judge of the opposite opinion takes the worst.
    worst = make(64, worth=-1.0).act(OBS, SEEDS, 0)
    assert np.mean(worst[:, 0] * OBS[:, 1]) < found[0]


# ---- judges that are trained ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An experiment with a teacher, an IQL critic in another frame, and a Diffusion-QL."""
    folder = tmp_path_factory.mktemp("reselect")
    _, config = load("hopper_mr", f"all,size=demo,source={folder / 'data.hdf5'}")
    write_episodes(tasks.get(config["task"]), folder / "data.hdf5")
    for stage in ("teacher", "iql", "dql"):
        config[stage]["optimiser"].update(steps=2, batch_size=8)
    config["teacher"]["network"].update(hidden=8, blocks=1)
    config["teacher"]["method"]["sample_bins"] = 3
    for stage in ("iql", "dql"):
        config[stage]["network"]["hidden"] = [8]
    config["iql"]["data"]["frame"] = "gaussian"
    config["eval"]["episodes"] = 2
    job = pipeline.Experiment(config, str(folder / "run"))
    for stage in ("teacher", "iql", "dql"):
        job.ensure(stage)
    return job


def test_candidates_and_calls_of_each_are_in_the_file(trained):
    trained.config["dql"]["reselect"]["candidates"] = 4
    entry = evaluate.evaluate_row(trained, parse_row(trained.config, "dql"))
    assert entry == json.loads((trained.workdir / "dql" / "eval.json").read_text())
    assert (entry["nfe"], entry["candidates"], entry["judge"]) == (5, 4, "dql")
    # What is asked for apart is reported apart.
    entry = evaluate.evaluate_row(trained, parse_row(trained.config, "dql candidates=3"))
    assert entry == json.loads((trained.workdir / "dql" / "eval_1_of_3.json").read_text())
    assert (entry["nfe"], entry["candidates"], entry["stage"]) == (5, 3, "dql, 1 of 3")


def test_without_a_judge_only_one_can_be_asked_for(trained):
    with pytest.raises(errors.UserError, match="train the stage reward, or ask") as caught:
        ractd_jax.load_policy(trained.workdir / "teacher", candidates=3)
    assert "\n" not in str(caught.value)
    assert ractd_jax.load_policy(trained.workdir / "teacher")(OBS[0, :1].repeat(11)).shape == (3,)
    assert stages.reselection(trained.config, "teacher")["candidates"] == 1
    trained.config["eval"]["candidates"] = 8
    assert not evaluate.several(trained, parse_row(trained.config, "teacher"))
    trained.config["eval"]["candidates"] = 0


def test_rows_are_shown_with_one_candidate_and_with_many_where_a_judge_of_their_frame_is_trained(
    trained,
):
    def names():
        return [row.name for row in evaluate.rows(trained)]

    assert names() == ["teacher", "iql", "dql", "dql, 1 of 1"]
    trained.config["eval"]["candidates"] = 8
    assert names() == ["teacher", "iql", "dql", "dql, 1 of 1"]  # the return model is not trained
    trained.config["teacher"]["reselect"]["judge"] = "dql"
    assert names() == ["teacher", "teacher, 1 of 8", "iql", "dql", "dql, 1 of 1"]
    trained.config["teacher"]["reselect"]["judge"] = "iql"  # of another frame
    assert names() == ["teacher", "iql", "dql", "dql, 1 of 1"]
    trained.config["teacher"]["reselect"]["judge"] = ""
    trained.config["eval"]["candidates"] = 0


def test_a_row_of_several_candidates_has_its_judge_trained_first(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(trained, "ensure", lambda stage, *, wanted: asked.append(stage))
    monkeypatch.setitem(trained.config["eval"], "samplers", ("teacher candidates=4", "iql"))
    evaluate.rows(trained)
    assert asked == ["teacher", "reward", "iql"]


def test_judges_that_cannot_judge_are_refused(trained):
    run = trained.workdir
    with pytest.raises(errors.UserError, match="different frames") as caught:
        ractd_jax.load_policy(run / "teacher", candidates=3, judge=run / "iql")
    assert "\n" not in str(caught.value)
    with pytest.raises(errors.UserError, match="judges nothing"):
        ractd_jax.load_policy(run / "dql", candidates=3, judge=run / "teacher")


def test_any_critic_of_the_same_frame_judges_any_policy(trained):
    run, obs = trained.workdir, np.linspace(-1, 1, 11, dtype=np.float32)
    one = ractd_jax.load_policy(run / "teacher")(obs)
    best = ractd_jax.load_policy(run / "teacher", candidates=16, judge=run / "dql")(obs)
    assert best.shape == one.shape == (3,)
    assert (best != one).any()


def test_a_judge_of_other_data_sees_them_in_its_own_units():
    def some(size):
        return normalization.Limits(rng.uniform(0.5, 2, size), rng.normal(size=size))

    def judge(params, x, cond):
        return params * x[:, 0, 0] * cond[:, 1] + x.sum(axis=(1, 2))

    rng = np.random.default_rng(0)
    ours, its = [(some(3), some(2)) for _ in range(2)]
    obs, actions = rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 2))

    def within(limits):
        seen, done = limits
        return normalization.normalize(actions, done), normalization.normalize(obs, seen)

    found = policy._in_units_of(judge, ours, its)(2.0, *within(ours))
    np.testing.assert_allclose(found, judge(2.0, *within(its)), rtol=1e-5)
    assert not np.allclose(found, judge(2.0, *within(ours)), rtol=0.1)


def test_a_judge_of_another_task_is_refused(trained, monkeypatch):
    run = trained.workdir
    load_judge = policy._load_judge

    def of_walker(*args):
        algorithm, saved, _, frame = load_judge(*args)
        return algorithm, saved, tasks.get("walker2d-medium-v2"), frame

    monkeypatch.setattr(policy, "_load_judge", of_walker)
    with pytest.raises(errors.UserError, match=r"acts in hopper-.*, .* judges walker2d-medium-v2"):
        ractd_jax.load_policy(run / "teacher", candidates=3, judge=run / "dql")
