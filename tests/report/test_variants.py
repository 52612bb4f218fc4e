"""Runs in which one thing is varied are kept apart, and shown as they were measured."""

import json
import pathlib

import pytest
from helpers import TASKS, entry

from ractd_jax import errors
from ractd_jax.report import blocks, page, study_plots, variants


def kept(folder: pathlib.Path, variant: str, *entries) -> pathlib.Path:
    (folder / "summary.json").write_text(json.dumps(entries))
    return variants.add(folder / "summary.json", folder / "results", variant)


def test_variants_are_kept_by_suite_without_the_data(tmp_path):
    path = kept(tmp_path, "table4/both", entry(5.0), entry(1.0, stage="dataset"))
    assert path == tmp_path / f"results/variants/table4-both-{TASKS[0]}-demo-seed0.json"
    kept(tmp_path, "table5/calls", entry(7.0))
    suites = variants.suites(variants.load(tmp_path / "results", "variants"))
    assert {suite: [e["score_mean"] for e in entries] for suite, entries in suites.items()} == {
        "table4": [5.0],
        "table5": [7.0],
    }


@pytest.mark.parametrize("name", ["table4", "table4/", "table4/a/b", "../up", "gym/a"])
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
    rows = [line.strip("| ").split(" | ") for line in blocks.variants_table(entries).splitlines()]
    assert rows[0] == ["variant", "method", "NFE", *TASKS]
    assert rows[2] == ["none", "RACTD student", "1", "10.0 (0.5)"]  # and an empty cell
    assert rows[3] == ["both", "RACTD student", "1", "40.0 +- 10.0", "7.0 (0.5)"]
    timed = [line.split(" | ") for line in blocks.variants_table(entries[:3]).splitlines()]
    assert [row[4] for row in (timed[0], timed[2], timed[3])] == [
        "ms a decision |",
        "0.1 |",
        "0.1 |",
    ]


def test_curve_of_a_variant_is_the_mean_of_its_seeds():
    def run(seed, *scores):
        updates = [*range(1, len(scores) + 1)]
        fields = {"variant": "figure4/weight_030", "updates": updates, "scores": list(scores)}
        return entry(scores[-1], seed=seed, model="student") | fields

    def middle(*runs, name="weight_030"):
        (axes,) = study_plots.over_training([*runs]).axes
        (line,) = [line for line in axes.lines if line.get_label() == name]
        return line.get_xydata().tolist()

    stopped = run(1, 3.0, 6.0, 7.0)  # a run that was stopped has a checkpoint more
    assert middle(run(0, 1.0, 4.0), stopped) == [[1, 2], [2, 5]]
    two = (run(0, 1.0, 4.0), run(0, 3.0, 6.0) | {"stage": "student, closed loop, best checkpoint"})
    assert middle(*two, name="RACTD student, closed loop") == [[1, 3], [2, 6]]
    three = (*two, run(0, 5.0, 7.0) | {"variant": "figure4/weight_050"})
    assert middle(*three, name="weight_030, RACTD student, closed loop") == [[1, 3], [2, 6]]
    figure = study_plots.over_training([*two, run(0, 1.0, 4.0) | {"task": TASKS[1]}])
    ((legend,), panel_legends) = figure.legends, [axes.get_legend() for axes in figure.axes]
    assert [text.get_text() for text in legend.get_texts()] == [
        "RACTD student",  # once for all panels
        "RACTD student, closed loop",
    ]
    assert not any(panel_legends)
    two = (run(0, 1.0, 4.0), run(0, 3.0, 6.0) | {"task": TASKS[1]})
    panels = study_plots.over_training([*two]).axes
    assert [axes.get_title("left") for axes in panels[:2]] == [
        task.removesuffix("-v2") for task in TASKS[:2]
    ]
    assert study_plots.over_training([entry(1.0) | {"variant": "table4/both"}]) is None


def test_modes_are_of_all_seeds_and_of_the_data_once():
    runs = [entry(1.0, seed=k, returns=[k, 2.0]) for k in (0, 1)]
    data = [entry(1.0, seed=k, stage="dataset", returns=[1.0, 2.0, 3.0]) for k in (0, 1)]
    (axes,) = study_plots.modes(runs + data, TASKS[0]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["dataset\n3 episodes", "RACTD student\n4 episodes"]


def test_online_selection_stands_beside_the_last_checkpoint(tmp_path):
    def rows(table):
        return [line for line in table.splitlines() if TASKS[0] in line]

    def best(score, seed):
        fields = {"updates": [1, 2], "scores": [0.0, score]}
        return entry(score, seed=seed, stage="student, best checkpoint", **fields)

    entries = [entry(10.0), best(20.0, 0), entry(30.0, seed=1), best(40.0, 1), entry(99.0, seed=2)]
    (row,) = rows(blocks.make(entries)["online"].table)
    assert row.strip("| ").split(" | ") == [
        TASKS[0],
        "RACTD student",
        "20.0 +- 10.0",
        "30.0 +- 10.0",
        "2 checkpoints, training seeds: 2",
    ]
    assert set(blocks.make(entries)) == {"gym", "online"}
    again = [e | {"training_seed": 2} for e in (entry(70.0), best(75.0, 0))]
    kept(tmp_path, blocks.KEPT, *again)  # beside the table's own seed 2, which kept none
    (row,) = rows(blocks.make(entries, tmp_path / "results")["online"].table)
    assert "36.7 +- 17.6 | 45.0 +- 16.1" in row
    entries.append(entry(5.0, stage="iql"))
    made = blocks.make(entries)
    assert set(made) == {"gym", "online", "ranking", "rivals"}
    assert "best checkpoint" not in made["rivals"].table + made["ranking"].table
    assert not rows(blocks.make([best(20.0, 0)])["online"].table)  # nothing to compare with


def test_diversity_is_averaged_over_training_seeds(tmp_path, capsys):
    fields = {name: entry(0.0)[name] for name in ("task", "source", "size", "preset")}
    fields |= {"stage": "ctd", "states": 2, "samples": 3}
    for seed in (0, 1):
        measured = [
            fields | {"training_seed": seed, "spread": seed, "coverage": 0.5, "return": -1.0}
        ]
        (tmp_path / "diversity.json").write_text(json.dumps(measured))
        paths = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
        assert page.main(["--add", str(tmp_path / "diversity.json"), *paths]) == 0
    text = blocks.diversity(variants.load(tmp_path / "results", "diversity"))
    assert f"| {TASKS[0]} | ctd (no reward) | 2 | 0.500 | 50 % | -1.00 |" in text
    (tmp_path / "diversity.json").write_text('[{"task": "hopper"}]')
    assert page.main(["--add", str(tmp_path / "diversity.json"), *paths]) == 2
    assert "one has no stage" in capsys.readouterr().err
    assert page.main(["--add", str(tmp_path / "diversity.json"), "--variant", "a/b", *paths]) == 2
    assert "not kept by variant" in capsys.readouterr().err


def test_page_shows_variants(tmp_path):
    kept(tmp_path, "figure4/a", entry(5.0, model="student", updates=[1, 2], scores=[4.0, 5.0]))
    text = page.page([entry(1.0)], [], tmp_path / "results")
    assert "over training (Figure 4)</h2>" in text
    assert text.count("score over training") == 1
