"""Variety of actions: by hand where the answer is plain, and of a pipeline that is trained."""

import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import saved, tiny_pipeline, train

from ractd_jax.evaluation import diversity
from ractd_jax.methods import registry
from ractd_jax.policies import load


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
    """A pipeline with a return model, a teacher and a student."""
    pipeline = tiny_pipeline("hopper_mr", tmp_path_factory.mktemp("diversity"))
    for stage in ("reward", "ctd"):
        train(pipeline, stage)
    return pipeline


def test_a_critic_sees_observations_and_actions_as_it_learnt_them(trained):
    def scaled(column):
        low, high = column.min(axis=0), column.max(axis=0)
        return jnp.asarray(2 * (column - low) / (high - low) - 1)

    def standardised(column):
        return jnp.asarray((column - column.mean(axis=0)) / column.std(axis=0))

    obs, actions = trained.recorded.episodes[:2]
    algorithm, run = registry.make(trained.config, "reward"), trained.run("reward")
    expected = algorithm.value(saved(run)["params"], scaled(actions)[:, None], standardised(obs))
    np.testing.assert_allclose(load.value_of(run)(obs, actions), expected, atol=1e-5)


def test_policies_are_measured_beside_their_teacher(trained, monkeypatch):
    value, answers = load.value_of(trained.run("reward")), []

    def value_and_note(obs, actions):
        answers.append(value(obs, actions))
        return answers[-1]

    monkeypatch.setattr(load, "value_of", lambda run: value_and_note)
    teacher, student = diversity.measure(trained.workdir, 5, 8)
    assert (teacher["stage"], student["stage"]) == ("teacher", "ctd")
    assert teacher["return"] == 0
    assert teacher["coverage"] == 7 / 8  # of another sample: at each state the farthest is not near
    of_teacher, _, of_student = answers
    above = (of_student.mean() - of_teacher.mean()) / of_teacher.std()
    assert student["return"] == pytest.approx(above)
