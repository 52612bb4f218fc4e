"""A student that follows its reward out of the data is stopped, and told what would hold it."""

import numpy as np
import pytest
from run_helpers import tiny_config, train

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.training import checkpoints, guard, opening


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config("hopper_mr", tmp_path_factory.mktemp("data"), training={"save_every": 2})


@pytest.mark.parametrize("value", [-5.0, 0.6, 1.9, np.array([0.5, 1.2])])
def test_returns_that_data_may_hold_pass(config, value):
    assert not guard.left_the_data(config, "student", {"loss": 1.0, "return": value})


@pytest.mark.parametrize("value", [2.5, 6.5e13, np.array([0.5, 7.6])])
def test_returns_beyond_any_of_the_data_are_named(config, value):
    says = guard.left_the_data(config, "student", {"loss": 1.0, "return": value})
    assert "\n" not in says
    assert "student.method.reward_weight" in says
    assert f"{float(np.max(value)):.3g}" in says


def test_other_critics_and_stages_have_other_units(config):
    beyond = {"loss": 1.0, "return": 300.0}
    other = configuration.replace(config, critic="iql")
    assert not guard.left_the_data(other, "student", beyond)
    assert not guard.left_the_data(config, "bc", beyond)
    assert not guard.left_the_data(config, "student", {"loss": 300.0})


def test_training_stops_and_keeps_what_was_saved(config, tmp_path):
    method, optimiser = config.stages["student"].method, config.stages["student"].optimiser
    wild = configuration.replace(
        config,
        student__method=configuration.replace(
            method, reward_on="start", reward_clip=False, reward_weight=1e6, dsm_weight=0.0
        ),
        student__optimiser=configuration.replace(optimiser, steps=400, learning_rate=1.0),
    )
    pipeline = opening.open_pipeline(wild, tmp_path)
    with pytest.raises(errors.UserError, match=r"the predicted return is .* update \d+; the check"):
        train(pipeline, "student")
    assert checkpoints.run_status(pipeline.run("student")) == "unfinished"
