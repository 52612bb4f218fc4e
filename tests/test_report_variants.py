"""Runs in which one thing is varied are kept apart, and shown as they were measured."""

import json
import pathlib

import numpy as np
import pytest
from test_report_study import TASKS, entry

from ractd_jax import errors
from ractd_jax.report import page, variants


def kept(folder: pathlib.Path, variant: str, *entries) -> pathlib.Path:
    (folder / "summary.json").write_text(json.dumps(entries))
    return variants.add(folder / "summary.json", folder / "results", variant)


def test_variants_are_kept_by_suite_without_the_data(tmp_path):
    path = kept(tmp_path, "table4/both", entry(5.0), entry(1.0, stage="dataset"))
    assert path == tmp_path / f"results/variants/table4-both-{TASKS[0]}-demo-seed0.json"
    kept(tmp_path, "table5/calls", entry(7.0))
    found = variants.suites(variants.load(tmp_path / "results", "variants"))
    assert {suite: [e["score_mean"] for e in entries] for suite, entries in found.items()} == {
        "table4": [5.0],
        "table5": [7.0],
    }


@pytest.mark.parametrize("name", ["table4", "table4/", "table4/a/b", "../up"])
def test_a_variant_has_two_words(tmp_path, name):
    with pytest.raises(errors.UserError, match="a suite and a name, as in table4/both"):
        kept(tmp_path, name, entry(5.0))
    assert not (tmp_path / "results").exists()


def test_the_data_alone_are_no_variant(tmp_path):
    with pytest.raises(errors.UserError, match="nothing but the data"):
        kept(tmp_path, "table4/both", entry(5.0, stage="dataset"))


def test_table_has_variants_down_and_tasks_across():
    entries = [
        entry(10.0) | {"variant": "table4/none"},
        entry(30.0) | {"variant": "table4/both"},
        entry(50.0, seed=1) | {"variant": "table4/both"},
        entry(7.0, task=TASKS[1]) | {"variant": "table4/both"},
    ]
    rows = [line.strip("| ").split(" | ") for line in variants.table(entries).splitlines()]
    assert rows[0] == ["variant", "method", "NFE", *TASKS]
    assert rows[2] == ["none", "RACTD student", "1", "10.0 (0.5)"]  # and an empty cell
    assert rows[3] == ["both", "RACTD student", "1", "40.0 +- 10.0", "7.0 (0.5)"]
    timed = [line.split(" | ") for line in variants.table(entries[:3]).splitlines()]
    assert [row[4] for row in (timed[0], timed[2], timed[3])] == [
        "ms a decision |",
        "0.1 |",
        "0.1 |",
    ]


def test_curve_of_a_variant_is_the_mean_of_its_seeds():
    def run(seed, *scores):
        fields = {"variant": "figure4/weight_030", "updates": [1, 2], "scores": list(scores)}
        return entry(scores[-1], seed=seed) | fields

    (axes,) = variants.over_training([run(0, 1.0, 4.0), run(1, 3.0, 6.0)]).axes
    (middle,) = [line for line in axes.lines if line.get_label() == "weight_030"]
    np.testing.assert_array_equal(middle.get_xydata(), [[1, 2], [2, 5]])
    assert variants.over_training([entry(1.0) | {"variant": "table4/both"}]) is None


def test_modes_are_of_all_seeds_and_of_the_data_once():
    runs = [entry(1.0, seed=k, returns=[k, 2.0]) for k in (0, 1)]
    data = [entry(1.0, seed=k, stage="dataset", returns=[1.0, 2.0, 3.0]) for k in (0, 1)]
    (axes,) = variants.modes(runs + data, TASKS[0]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["dataset\n3 episodes", "RACTD student\n4 episodes"]


def test_online_selection_stands_beside_the_last_checkpoint():
    def best(score, seed):
        fields = {"updates": [1, 2], "scores": [0.0, score]}
        return entry(score, seed=seed, stage="student, best of 2 checkpoints", **fields)

    entries = [entry(10.0), best(20.0, 0), entry(30.0, seed=1), best(40.0, 1), entry(99.0, seed=2)]
    (row,) = [line for line in page.online(entries).splitlines() if TASKS[0] in line]
    assert row.strip("| ").split(" | ") == [
        TASKS[0],
        "RACTD student",
        "20.0 +- 10.0",
        "30.0 +- 10.0",
        "2 checkpoints, 2 seeds",
    ]
    assert "best of" not in page.rivals(entries)
    assert set(page.blocks(entries)) == {"gym", "online"}


def test_diversity_is_averaged_over_training_seeds(tmp_path, capsys):
    fields = {"task": TASKS[0], "stage": "ctd", "states": 2, "samples": 3}
    for seed in (0, 1):
        found = [fields | {"training_seed": seed, "spread": seed, "coverage": 0.5, "return": -1.0}]
        (tmp_path / "diversity.json").write_text(json.dumps(found))
        paths = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
        assert page.main(["--add", str(tmp_path / "diversity.json"), *paths]) == 0
    text = variants.diversity(variants.load(tmp_path / "results", "diversity"))
    assert f"| {TASKS[0]} | ctd (no reward) | 2 | 0.500 | 50 % | -1.00 |" in text
    (tmp_path / "diversity.json").write_text('[{"task": "hopper"}]')
    assert page.main(["--add", str(tmp_path / "diversity.json"), *paths]) == 2
    assert "is no diversity.json" in capsys.readouterr().err


def test_the_page_shows_them(tmp_path):
    kept(tmp_path, "figure4/a", entry(5.0) | {"updates": [1, 2], "scores": [4.0, 5.0]})
    text = page.page([entry(1.0)], [], tmp_path / "results")
    assert "<h2>figure4</h2>" in text
    assert text.count("score over training") == 1
