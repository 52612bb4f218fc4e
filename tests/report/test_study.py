"""Aggregates are what they are called, and what is committed follows from the raw returns."""

import html
import json
import re

import numpy as np
import pytest
from helpers import ROOT, TASKS, entry
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ractd_jax import errors, tasks
from ractd_jax.report import blocks, page, study, study_plots


def test_documents_hold_what_the_raw_returns_say():
    entries = study.load(ROOT / "results")
    text = (ROOT / "docs" / "results.md").read_text()
    made = blocks.make(entries, ROOT / "results")
    assert blocks.rewrite(text, made) == text
    assert set(made) == {name for _, name, _ in blocks.BLOCK.findall(text)}
    shown = (ROOT / "docs" / "report.html").read_text()
    cells = map(html.unescape, re.findall(r"<t[dh]>([^<]+)</t[dh]>", shown))
    cells = {*cells, ""}
    for family, block in made.items():
        for line in block.table.splitlines():
            if line.startswith("| "):
                assert set(line.strip("| ").split(" | ")) <= cells, (family, line)


def test_scores_in_results_follow_from_their_returns():
    for e in study.load(ROOT / "results"):
        mean = tasks.get(e["task"]).score(np.mean(e["returns"]))
        assert mean == pytest.approx(e["score_mean"], abs=1e-3)


def test_names_of_methods_equally_fast_and_good_do_not_lie_on_each_other():
    stages = "student", "ctd", "fql", "iql"
    entries = [entry(30.0 + 0.1 * i, stage=stage) for i, stage in enumerate(stages)]
    entries += [entry(90.0, stage="teacher"), entry(0.0, stage="dql")]
    runs = {m: study.matrix(t, TASKS[:1]) for m, t in study.scores(entries).items()}
    figure = study_plots.trade_off(entries, runs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == len(entries)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_interquartile_mean_leaves_out_the_best_and_the_worst_quarter():
    runs = [np.array([0.0, 10.0]), np.array([20.0, 1000.0])]
    assert study.iqm(runs) == 15.0
    assert study.mean(runs) == 257.5


def test_interval_shrinks_to_the_number_itself_without_a_spread():
    assert study.interval(study.mean, [np.array([3.0]), np.array([5.0])]) == (4.0, 4.0)
    low, high = study.interval(study.mean, [np.arange(20.0)])
    error = np.arange(20.0).std() / 20**0.5
    assert low == pytest.approx(9.5 - 1.96 * error, abs=0.25)
    assert high == pytest.approx(9.5 + 1.96 * error, abs=0.25)


def test_profile_is_the_share_of_runs_above():
    runs = [np.array([1.0, 3.0]), np.array([5.0, 7.0])]
    np.testing.assert_array_equal(study.profile(runs, np.array([0.0, 3.0, 8.0])), [1, 0.5, 0])


def test_table_has_scores_of_tasks_and_methods_and_their_mean_the_longer_list_downwards():
    entries = [entry(10.0), entry(20.0, seed=1), entry(40.0, task=TASKS[1])]
    entries += [entry(5.0, stage="teacher", nfe=158), entry(30.0, candidates=8)]
    rows = [line.strip("| ").split(" | ") for line in blocks.table(entries, "gym").splitlines()]
    assert rows[0] == ["task", *TASKS, "mean of 2"]
    assert rows[2][:2] == ["teacher, NFE 158", "5.0 (0.5)"]
    assert rows[3] == ["RACTD student, NFE 1", "15.0 +- 5.0", "40.0 (0.5)", "27.5"]
    assert rows[4][:2] == ["RACTD student, NFE 1, 1 of 8", "30.0 (0.5)"]
    two = [e for e in entries if e["stage"] == "student" and e["candidates"] == 1]
    rows = [line.strip("| ").split(" | ") for line in blocks.table(two, "gym").splitlines()]
    assert rows[0] == ["task", "RACTD student, NFE 1"]
    assert rows[2:] == [[TASKS[0], "15.0 +- 5.0"], [TASKS[1], "40.0 (0.5)"], ["mean of 2", "27.5"]]


def test_page_needs_nothing_from_elsewhere(tmp_path):
    gif = tmp_path / "hop.gif"
    gif.write_bytes(b"GIF89a")
    text = page.page([entry(10.0), entry(12.0, seed=1), entry(8.0, stage="teacher")], [gif])
    assert text.count("data:image/png;base64,") == 4
    assert text.count("data:image/gif;base64,") == 1
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


def test_adding_a_run_and_making_the_page(tmp_path, capsys):
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text("before\n<!-- study: gym -->\nold\n<!-- end -->\nafter\n")
    (tmp_path / "summary.json").write_text(json.dumps([entry(12.5)]))
    paths = ["--results", str(results), "--docs", str(docs)]
    assert page.main(["--add", str(tmp_path / "summary.json"), *paths]) == 0
    (saved,) = json.loads((results / f"{TASKS[0]}-demo-seed0.json").read_text())
    assert saved["returns"] == [100.0, 200.123]
    assert page.main(paths) == 0
    text = (docs / "results.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "12.5 (0.5)" in text
    assert "old" not in text
    assert "12.5 (0.5)" in (docs / "report.html").read_text()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", ["{}", "[]", "[{}]", "[1]", '[{"returns": [1.0]}]', "[", ""])
def test_file_that_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(errors.UserError):
        study.add(tmp_path / "summary.json", tmp_path / "results")


def test_adding_again_replaces_the_rows_that_come_again_and_keeps_the_others(tmp_path):
    def add(*entries):
        (tmp_path / "summary.json").write_text(json.dumps(entries))
        path = study.add(tmp_path / "summary.json", tmp_path / "results")
        return {e["stage"]: e["score_mean"] for e in json.loads(path.read_text())}

    assert add(entry(1.0), entry(2.0, stage="iql")) == {"student": 1.0, "iql": 2.0}
    assert add(entry(3.0)) == {"student": 3.0, "iql": 2.0}


def test_two_results_for_one_cell_are_refused(tmp_path, capsys):
    for k, fields in enumerate([{}, {"size": "small"}, {"source": "D4RL"}]):
        (tmp_path / f"{k}.json").write_text(json.dumps([entry(1.0, **fields)]))
    with pytest.raises(
        errors.UserError,
        match=r"two results of student .*\(simulated, D4RL v2 .of a test., small, def",
    ):
        study.load(tmp_path)
    assert study.name(entry(1.0)) != study.name(entry(1.0, source="D4RL"))
    files = [study.name(entry(1.0, source=f"file {name}.hdf5")) for name in ("replay", "rollout")]
    assert len(set(files)) == 2  # one does not take the other's place


def test_a_page_of_rivals_alone(tmp_path):
    only = [entry(1.0, task="hopper-medium-expert-v2", stage="iql")]
    assert set(blocks.make(only)) == {"ranking", "rivals"}
    assert "Figure 3" not in page.page(only, [])
    both = [*only, entry(2.0)]
    assert "Figure 3" not in page.page(both, [])


def test_ranking_is_of_methods_that_did_every_task_best_first():
    entries = [entry(10.0), entry(20.0, seed=1), entry(1.0, task=TASKS[1])]
    entries += [entry(30.0, task=task, stage="iql") for task in TASKS]
    entries += [entry(99.0, stage="fql"), entry(99.0, task=TASKS[1], candidates=8)]
    rows = [line.strip("| ").split(" | ") for line in blocks.ranking(entries).splitlines()]
    assert [row[:4] for row in rows[2:]] == [
        ["IQL", "1", "1", "30.0"],
        ["RACTD student", "1", "1", "8.0"],
    ]
    assert rows[3][4:] == ["5.5 to 10.5", "10.3", "1 to 2"]


def test_network_calls_keep_their_columns():
    fields = {"published": 40.0, "model": "cd"}
    entries = [entry(float(n), nfe=n, stage=f"cd, NFE {n}", **fields) for n in (1, 4)]
    entries += [
        entry(2.0, nfe=2, seed=k, stage="ct, NFE 2", **fields | {"model": "ct"}) for k in (0, 1)
    ]
    rows = [line.split(" | ") for line in blocks.idql(entries).splitlines()]
    assert rows[0][3:6] == ["NFE 1", "NFE 2", "NFE 4"]
    assert rows[2][3:6] == ["1.0 (0.5)", "", "4.0 (0.5)"]
    assert rows[3][3:6] == ["", "2.0 +- 0.0", ""]


def test_a_folder_without_results_says_what_would_help(tmp_path, capsys):
    assert page.main(["--results", str(tmp_path), "--docs", str(tmp_path)]) == 2
    assert "--add" in capsys.readouterr().err


def test_pictures_of_a_maze_come_along_with_its_results(tmp_path):
    run, docs = tmp_path / "run", tmp_path / "docs"
    (run / "figures").mkdir(parents=True)
    for name in ("plans.png", "student.gif", "returns.png"):
        (run / "figures" / name).write_bytes(name.encode())
    for task, kept in (
        ("maze2d-umaze-v1", ["maze2d_umaze_plans.png", "maze2d_umaze_student.gif"]),
        ("hopper-medium-v2", []),
    ):
        (run / "summary.json").write_text(json.dumps([entry(10.0) | {"task": task}]))
        copies = page.keep_pictures(run / "summary.json", docs)
        assert [path.name for path in copies] == kept
    assert (docs / "maze2d_umaze_plans.png").read_bytes() == b"plans.png"
