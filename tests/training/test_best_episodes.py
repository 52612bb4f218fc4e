"""A stage that learns from the best episodes alone draws no other row."""

import numpy as np
import pytest
from run_helpers import tiny_config

from ractd_jax import errors
from ractd_jax.data import episodes
from ractd_jax.methods import registry
from ractd_jax.training import examples

LENGTH, RETURNS = 10, [3, 9, 1, 9, 5, 0, 2, 4]


def recorded(returns=RETURNS, length=LENGTH):
    n = length * len(returns)
    rng, ends = np.random.default_rng(0), np.arange(n) % length == length - 1
    return episodes.Transitions(
        rng.normal(size=(n, 11)).astype(np.float32),
        rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        np.repeat(np.array(returns, np.float32) / length, length),
        ends & False,
        ends,
    )


def starts(config, stage, data):
    return np.asarray(examples.build(config, stage, data)[0].starts)


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.1, [1, 3]), (0.25, [1, 3]), (0.26, [1, 3, 4]), (0.5, [1, 3, 4, 7]), (1.0, range(8))],
)
def test_the_best_are_taken_until_there_are_enough_rows_and_all_of_the_same_return(share, kept):
    rows = episodes.best(recorded(), share)
    assert np.flatnonzero(rows.reshape(-1, LENGTH).all(axis=1)).tolist() == list(kept)
    assert rows.sum() == len(kept) * LENGTH


def test_successes_are_all_kept_however_few_are_asked_for():
    rows = episodes.best(recorded([0, 1, 0, 0, 1, 1, 0, 0]), 0.1)
    assert np.flatnonzero(rows[::LENGTH]).tolist() == [1, 4, 5]


def test_stages_of_windows_and_of_steps_draw_no_other_row(tmp_path):
    config = tiny_config("hopper_mr", tmp_path, student={"best_episodes": 0.25})
    data = recorded()
    assert config.stages["bc10"].best_episodes == 0.1
    for stage, steps in (("student", LENGTH - 3), ("bc10", LENGTH - 1)):
        rows = starts(config, stage, data)
        assert set(rows // LENGTH) == {1, 3}
        assert len(rows) == 2 * steps
    assert set(starts(config, "bc", data) // LENGTH) == set(range(8))
    # All stages share one normalizer, that of all rows.
    whole = examples.build(config, "bc", data)[1]
    best = examples.build(config, "bc10", data)[1]
    np.testing.assert_array_equal(whole.observations.scale, best.observations.scale)


def test_best_episodes_too_short_for_a_window_are_refused_in_one_line(tmp_path):
    config = tiny_config("hopper_mr", tmp_path, student={"best_episodes": 0.01})
    short, long = recorded([9], 2), recorded([1], LENGTH)
    data = episodes.Transitions(*map(np.concatenate, zip(short, long, strict=True)))
    with pytest.raises(errors.UserError, match=r"student\.best_episodes is 0\.01: .*raise it"):
        starts(config, "student", data)


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_outside_its_range_is_refused(share, tmp_path):
    with pytest.raises(errors.UserError, match=r"student\.best_episodes is .*above 0 and at most"):
        tiny_config("hopper_mr", tmp_path, student={"best_episodes": share})


def test_every_stage_has_the_field(tmp_path):
    config = tiny_config("hopper_mr", tmp_path)
    assert set(config.stages) <= set(registry.records())
    assert {section.best_episodes for section in config.stages.values()} == {0.1, 1.0}
