"""A suite's entries wait for what they need, are skipped when finished, and tried again."""

import json
import os
import pathlib
import sys

import pytest
from helpers import write_episodes

from ractd_jax import errors, tasks
from ractd_jax.cli import configs, suite
from ractd_jax.evaluation import evaluate
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints

configuration = configs.shipped("suite")

FIELDS = (
    "reward.optimiser.steps=2",
    "teacher.optimiser.steps=2",
    "student.optimiser.steps=2",
    "ctd.optimiser.steps=2",
    *(
        f"{stage}.network.{field}"
        for stage in ("teacher", "ctd")
        for field in ("hidden=8", "blocks=1")
    ),
    "training.compilation_cache=''",
)


def make(data, **changes):
    config = configuration.get_config("demo").to_dict()
    chosen = {"source": str(data), "seeds": (0, 1), "stages": ("student",), "fields": FIELDS}
    return config | chosen | {"retries": 0} | changes


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.hdf5"
    write_episodes(tasks.get("hopper-medium-replay-v2"), path)
    return path


def test_an_entry_comes_after_what_it_needs(tmp_path):
    entries = list(suite.entries(make("simulated", stages=("student", "eval")), str(tmp_path)))
    assert [entry.name for entry in entries[:4]] == [
        f"hopper_mr seed 0 {stage}" for stage in ("teacher", "reward", "student", "eval")
    ]
    assert len(entries) == 8
    needs = {entry.name: entry.needs for entry in entries}
    both = ("hopper_mr seed 1 teacher", "hopper_mr seed 1 reward")
    assert needs["hopper_mr seed 1 student"] == both
    assert needs["hopper_mr seed 1 eval"] == ("hopper_mr seed 1 student",)
    for i, entry in enumerate(entries):
        assert set(entry.needs) <= {before.name for before in entries[:i]}
        assert pathlib.Path(entry.workdir).is_relative_to(tmp_path)
    assert entries[0].config["teacher"]["optimiser"]["steps"] == 2
    assert entries[0].workdir != entries[4].workdir


def test_variants_have_other_fields_and_other_folders(tmp_path):
    variants = {"small": ("ctd.network.hidden=8",), "large": ("ctd.network.hidden=16",)}
    values = make("simulated", stages=("ctd",), seeds=(0,), variants=variants)
    entries = {entry.name: entry for entry in suite.entries(values, str(tmp_path))}
    for variant, hidden in (("small", 8), ("large", 16)):
        entry = entries[f"hopper_mr seed 0 {variant} ctd"]
        assert entry.config["ctd"]["network"]["hidden"] == hidden
        assert entry.config["ctd"]["optimiser"]["steps"] == 2  # of all
        assert pathlib.Path(entry.workdir).is_relative_to(tmp_path / "demo" / variant)
    assert len({entry.workdir for entry in entries.values()}) == 2


@pytest.mark.parametrize("name", configuration.SUITES)
def test_every_suite_is_made_of_real_tasks_stages_and_fields(name):
    config = configuration.get_config(name).to_dict() | {"seeds": (0,)}
    entries = list(suite.entries(config))
    runs = len(config["tasks"]) * max(len(config["variants"]), 1)
    assert sum(entry.config["stage"] == "eval" for entry in entries) == runs
    assert len({entry.name for entry in entries}) == len(entries)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": ("studnet",)}, "Did you mean 'student'"),
        ({"fields": ("student.optimiser.stepz=1",)}, "no such field: student.optimiser.stepz"),
        ({"fields": ("student.optimizer.steps=1",)}, "fields of the suite"),
        ({"fields": ("student.optimiser.steps=many",)}, "fields of the suite"),
        ({"fields": ("size=paper",)}, "change the word and not what it stands for"),
        ({"size": "huge"}, "unknown size"),
        ({"tasks": ("hoper_mr",)}, "Did you mean 'hopper_mr'"),
    ],
)
def test_a_wrong_word_is_refused(changes, says):
    values = make("simulated", **changes)
    with pytest.raises(errors.UserError, match=says):
        list(suite.entries(values))


def test_named_suites():
    config = configuration.get_config()
    assert (config.suite, len(config.tasks), config.size) == ("locomotion", 9, "paper")
    with pytest.raises(errors.UserError, match="Did you mean 'demo'"):
        configuration.get_config("demos")


def mark(config, workdir, folder, *needed):
    """Stand in for the work: leave what a finished run leaves."""
    run = pathlib.Path(workdir) / config["stage"]
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({"config": config, "stage": config["stage"]}))
    (run / "finished").write_text("")


def test_failed_entries_are_reported_and_tried_again(data, tmp_path, capsys, monkeypatch):
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(suite, "work", mark)
    root, values = tmp_path / "runs", make(data, stages=("ctd",))
    broken = pathlib.Path(list(suite.entries(values, str(root)))[-1].workdir) / "teacher"
    broken.parent.mkdir(parents=True)
    broken.write_text("")  # no folder can be made here
    with pytest.raises(errors.UserError, match="2 of 4 entries are not done") as caught:
        suite.run(values, str(root))
    assert "hopper_mr seed 1 ctd" in str(caught.value)
    out = capsys.readouterr().out
    assert "4 entries, 0 finished before" in out
    assert "hopper_mr seed 1 teacher: failed: [Errno 17] File exists" in out
    assert "hopper_mr seed 1 ctd: not begun, for hopper_mr seed 1 teacher failed" in out
    assert out.count(": done") == 2
    assert not ray.is_initialized()

    broken.unlink()
    suite.run(values, str(root))
    out = capsys.readouterr().out
    assert "2 finished before" in out
    assert out.count(": done") == 2
    suite.run(values, str(root))
    assert "4 entries, 4 finished before" in capsys.readouterr().out

    changed = values | {"fields": (*FIELDS, "teacher.optimiser.b1=0.5")}
    with pytest.raises(errors.UserError, match="b1"):
        suite.run(changed, str(root))


def test_work_leaves_a_finished_run_and_keeps_one(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = make(data.name, stages=("reward",), seeds=(0,))
    (entry,) = suite.entries(values)
    for _ in range(2):
        suite.work(entry.config, entry.workdir, str(tmp_path))
    run = tmp_path / entry.workdir / "reward"
    assert checkpoints.run_status(run) == checkpoints.FINISHED
    assert suite.finished(entry, set())
    assert "kept" in capsys.readouterr().out


def test_without_ray_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.UserError, match="the extra suite"):
        suite.run(make("simulated"))


def test_an_evaluation_is_done_if_it_was_of_these_models_and_with_these_settings(tmp_path):
    def entry(*fields):
        values = make("simulated", seeds=(0,), stages=("ctd", "eval"), fields=(*FIELDS, *fields))
        return list(suite.entries(values, str(tmp_path)))[-1]

    first = entry()
    folder = pathlib.Path(first.workdir)
    mark(first.config | {"stage": "ctd"}, first.workdir, "")
    summary = folder / first.config["eval"]["summary"]
    assert not suite.finished(first, set(first.needs))
    checkpoints.write_json(summary, [])
    checkpoints.write_json(
        evaluate.settings_file(summary), evaluate.settings(registry.configure(first.config))
    )
    assert suite.finished(first, set(first.needs))
    assert not suite.finished(first, set())  # its model is to be trained
    assert not suite.finished(entry("eval.episodes=7"), set(first.needs))
    assert not suite.finished(entry("ctd.method.nfe=2"), set(first.needs))
    assert suite.finished(entry("bench.seconds=1.0"), set(first.needs))
    os.utime(folder / "ctd" / "finished", (2e9, 2e9))  # trained again since
    assert not suite.finished(first, set(first.needs))
