"""The stage data says what a dataset holds, beside what is published, and draws it."""

import dataclasses
import io
import json

import numpy as np
import pytest
from helpers import shows_something, transitions_of
from rich.console import Console

from ractd_jax import tasks
from ractd_jax.cli import app, flags
from ractd_jax.data import d4rl, dimensions, episodes, hdf5, statistics
from ractd_jax.report import data as report
from ractd_jax.report import data_page

TASK = tasks.get("hopper-medium-replay-v2")
N = 90


@pytest.fixture
def transitions():
    """Three episodes of 20, 30 and 40 steps; the first two end in a fall."""
    rng = np.random.default_rng(0)
    ends = np.zeros((2, N), bool)
    ends[0, [19, 49]] = ends[1, 89] = True
    observations = rng.normal(size=(N, 11)).astype(np.float32)
    observations[:, 4] = 7
    actions = rng.uniform(-0.9, 0.9, (N, 3)).astype(np.float32)
    actions[:27, 0] = 1
    return episodes.Transitions(observations, actions, np.arange(N, dtype=np.float32), *ends)


def test_facts_are_counted_right(transitions):
    facts = statistics.inspect(transitions, TASK)
    sums = [sum(range(20)), sum(range(20, 50)), sum(range(50, 90))]
    assert facts["trajectories"] == 3
    assert facts["steps"] == N
    assert facts["return_mean"] == pytest.approx(np.mean(sums))
    assert (facts["length_min"], facts["length_max"], facts["length_mean"]) == (20, 40, 30)
    assert (facts["terminals"], facts["timeouts"]) == (2, 1)
    assert (facts["reward_min"], facts["reward_max"]) == (0, 89)
    assert facts["constant_observations"] == [4]
    assert facts["constant_actions"] == []
    assert facts["actions_at_limit"] == pytest.approx(27 / (3 * N))
    json.dumps(facts)


def test_remarks_say_what_is_odd_and_nothing_else(transitions):
    facts = statistics.inspect(transitions, TASK)
    usual = statistics.remarks(facts | {"constant_observations": []}, 16, -100.0)
    assert usual == []
    odd = {
        "constant_observations": [4, 6, 30, 31, 32, 40, 41],
        "constant_actions": [0],
        "length_min": 15,
        "resets": 3,
        "both_ends": 2,
        "terminals": 0,
        "reward_min": facts["reward_max"],
    }
    text = statistics.remarks(facts | odd, 16, -100.0)
    assert len(text) == len(odd)
    words = [
        *("observations: dimension 4, 6, 30 to 32, 40, 41 never", "actions: dimension 0"),
        *("15 steps", "jump after row 0, in 3 places", "2 rows are a terminal and"),
        *("-100", "same reward"),
    ]
    for line, word in zip(text, words, strict=True):
        assert word in line
    assert not any(
        "ends in a terminal" in line for line in statistics.remarks(facts | odd, 16, 0.0)
    )
    (nothing,) = statistics.remarks(facts | {"length_min": 5, "length_max": 15}, 16, -100.0)[-1:]
    assert "no episode is as long as the horizon of 16, the longest has 15" in nothing


def test_table_sets_the_published_numbers_beside(transitions):
    facts = statistics.inspect(transitions, TASK)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.facts_table(facts, d4rl.PUBLISHED[TASK.name]))
    with_published = console.export_text()
    for word in ("2,041", "402,000", "467.3", "3,192.9", "-99.9%"):
        assert word in with_published
    (smallest,) = (line for line in with_published.splitlines() if "return min" in line)
    assert smallest.split()[-1] == "-1.4"
    console.print(report.facts_table(facts, None))
    assert "D4RL" not in console.export_text()


@pytest.mark.parametrize(
    "limits", [{}, {"action_low": (-1.0, -2.0, 0.0), "action_high": (1.0, 20.0, 0.0)}]
)
def test_the_page_is_drawn(tmp_path, transitions, limits):
    task = dataclasses.replace(TASK, **limits)
    path = tmp_path / "new" / "data.png"
    data_page.save(path, transitions, task, "a title", dimensions.describe(transitions, task))
    assert shows_something(path)


def test_the_stage_writes_what_it_prints(tmp_path, transitions, monkeypatch, capsys):
    path = tmp_path / "robot.hdf5"
    hdf5.write(path, transitions._asdict(), {})
    drawn = []
    monkeypatch.setitem(report.MAPS, "hopper", lambda *given: drawn.append(given))
    words = [f"hopper_mr:data,source={path}", f"--workdir={tmp_path / 'run'}"]
    app.run(flags.parse(["ractd", *words]))
    out = capsys.readouterr().out
    assert "3 episodes, 90 steps" in out
    assert "20 to 40 steps, mean 30.0; 2 end in a terminal, 1 in a timeout" in out
    assert "note: observations: dimension 4 never changes" in out
    sheet = json.loads((tmp_path / "run" / "data.json").read_text())
    assert sheet["source"] == "file robot.hdf5"
    assert sheet["facts"]["steps"] == N
    ((path, _, task, source),) = drawn
    assert path == tmp_path / "run" / "figures" / "map.png"
    assert task == TASK
    assert source == "file robot.hdf5"
    assert shows_something(tmp_path / "run" / "figures" / "data.png")


def test_an_episode_of_one_step_is_drawn_too(tmp_path):
    one = transitions_of(([(1, True)], 0))
    task = tasks.TaskSpec("toy", "", 3, 2, 5, 0.0, 1.0, "")
    assert statistics.inspect(one, task)["constant_observations"] == [0, 1, 2]
    data_page.save(tmp_path / "one.png", one, task, "one", dimensions.describe(one, task))
    assert shows_something(tmp_path / "one.png")
