"""What a dataset is described by."""

import numpy as np
import pytest
from helpers import transitions_of

from ractd_jax import tasks
from ractd_jax.data import statistics


def test_summary_counts_complete_episodes_only():
    task = tasks.get("hopper-medium-replay-v2")
    rewards = np.array([1, 2, 3, 10, 20, 99], np.float32)
    transitions = transitions_of(([(3, True), (2, False)], 1), lambda n: rewards)
    summary = statistics.summary(transitions, task)
    assert summary == {
        "trajectories": 2,
        "steps": 5,
        "return_mean": 18.0,
        "return_std": 12.0,
        "return_max": 30.0,
        "return_min": 6.0,
        "score_mean": pytest.approx(100 * (18 + 20.272305) / (3234.3 + 20.272305)),
    }


def test_a_task_without_reference_returns_has_no_scores():
    summary = statistics.summary(transitions_of(([(3, True)], 0)), tasks.TaskSpec("custom"))
    assert np.isnan(summary["score_mean"])
    assert summary["trajectories"] == 1
