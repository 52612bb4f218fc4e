"""Variety of actions: by hand where the answer is plain, and of a pipeline that is trained."""

import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_pipeline

from ractd_jax import stages
from ractd_jax.evaluation import diversity
from ractd_jax.policies import policy


@pytest.fixture
def samples():
    """`(count, mode) -> actions` at 20 states, others at each call."""
    rng = np.random.default_rng(0)
    return lambda count, mode=0.0: (rng.normal(size=(20, count, 2)) + mode).astype(np.float32)


def test_spread_is_the_mean_distance_of_two_samples(samples):
    at_one_state = np.array([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    assert diversity.spread(at_one_state) == pytest.approx(10 / 3)
    assert diversity.spread(np.repeat(samples(1), 5, axis=1)) == 0


def test_a_sample_of_the_same_kind_covers_95_percent(samples):
    first, second = samples(200), samples(200)
    near = diversity.radius(first, second)
    assert diversity.coverage(first, second, near) == pytest.approx(0.95, abs=0.01)
    assert diversity.coverage(samples(200), samples(200), near) == pytest.approx(0.95, abs=0.03)


def test_a_policy_that_knows_one_of_two_modes_covers_half(samples):
    both = np.concatenate([samples(100), samples(100, mode=50.0)], axis=1)
    again = np.concatenate([samples(100), samples(100, mode=50.0)], axis=1)
    near = diversity.radius(again, both)
    assert diversity.coverage(again, samples(200), near) == pytest.approx(0.5, abs=0.05)
    assert diversity.spread(both) > 5 * diversity.spread(samples(200))


def test_an_empty_folder_says_what_is_missing(tmp_path, capsys):
    assert diversity.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# ---- of a pipeline -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An experiment with a return model, a teacher and a student."""
    job = tiny_pipeline("hopper_mr", tmp_path_factory.mktemp("diversity"))
    for stage in ("reward", "ctd"):
        job.ensure(stage)
    return job


def test_a_judge_sees_observations_and_actions_as_it_learnt_them(trained):
    def scaled(column):
        low, high = column.min(axis=0), column.max(axis=0)
        return jnp.asarray(2 * (column - low) / (high - low) - 1)

    obs, actions = trained.transitions[:2]
    algorithm = stages.make(trained.config, trained.task, "reward")
    params = trained.needed("student")["reward"]["params"]
    expected = algorithm.value(params, scaled(actions)[:, None], scaled(obs))
    found = policy.judging(trained.workdir / "reward")(obs, actions)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_policies_are_measured_beside_their_teacher(trained, monkeypatch):
    judge, said = policy.judging(trained.workdir / "reward"), []

    def worth(obs, actions):
        said.append(judge(obs, actions))
        return said[-1]

    monkeypatch.setattr(policy, "judging", lambda run: worth)
    teacher, student = diversity.measure(trained.workdir, 5, 8)
    assert (teacher["stage"], student["stage"]) == ("teacher", "ctd")
    assert teacher["return"] == 0
    assert teacher["coverage"] == 7 / 8  # of another sample: at each state the farthest is not near
    base, _, value = said
    assert student["return"] == pytest.approx((value.mean() - base.mean()) / base.std())
