"""Variety of actions: by hand where the answer is plain."""

import numpy as np
import pytest

from ractd_jax import diversity

RNG = np.random.default_rng(0)


def samples(count=64, mode=0.0):
    return (RNG.normal(size=(20, count, 2)) + mode).astype(np.float32)


def test_spread_is_the_mean_distance_of_two_samples():
    at_one_state = np.array([[[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]])
    assert diversity.spread(at_one_state) == pytest.approx(10 / 3)
    assert diversity.spread(np.repeat(samples(1), 5, axis=1)) == 0


def test_a_sample_of_the_same_kind_covers_95_percent():
    first, second = samples(200), samples(200)
    near = diversity.radius(first, second)
    assert diversity.coverage(first, second, near) == pytest.approx(0.95, abs=0.01)
    assert diversity.coverage(samples(200), samples(200), near) == pytest.approx(0.95, abs=0.03)


def test_a_policy_that_knows_one_of_two_modes_covers_half():
    both = np.concatenate([samples(100), samples(100, mode=50.0)], axis=1)
    again = np.concatenate([samples(100), samples(100, mode=50.0)], axis=1)
    near = diversity.radius(again, both)
    assert diversity.coverage(again, samples(200), near) == pytest.approx(0.5, abs=0.05)
    assert diversity.spread(both) > 5 * diversity.spread(samples(200))


def test_an_empty_folder_says_what_is_missing(tmp_path, capsys):
    assert diversity.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
