"""Evaluation reads how finished runs were trained, and trains nothing itself."""

import json
import shutil

import pytest
from run_helpers import tiny_config, train

from ractd_jax import errors
from ractd_jax.cli import app, flags
from ractd_jax.config import replace
from ractd_jax.evaluation import finished
from ractd_jax.training import checkpoints, run_dir
from ractd_jax.training import stage as training_stage
from ractd_jax.training.opening import open_pipeline

DDPM = {"steps": 4, "sample_steps": 4}  # noise levels, and network calls of an action


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A DDPM and a cloned EDM whose fields differ from those of the configuration file."""
    fields = {"ddpm": {"method": DDPM}, "edm_bc": {"method": {"sample_bins": 2}}}
    config = tiny_config("hopper_mr", tmp_path_factory.mktemp("finished"), **fields)
    folder = tmp_path_factory.mktemp("run")
    for stage in ("ddpm", "edm_bc"):
        config = replace(config, stage=stage)
        train(open_pipeline(config, folder), stage)
    return open_pipeline(config, folder)


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of these runs, which a test may change."""
    return shutil.copytree(trained.workdir, tmp_path / "run")


def evaluate(folder, *words, source):
    """Run the command `eval` on a folder; return the rows that acted."""
    config = f"hopper_mr:eval,size=demo,source={source}"
    flag = "--config.eval.episodes=1"
    app.run(flags.parse(["ractd", config, f"--workdir={folder}", flag, *words]))
    entries = json.loads((folder / "summary.json").read_text())
    return [(entry["stage"], entry["nfe"]) for entry in entries[1:]]


def test_the_configuration_is_that_of_each_finished_run(trained, folder):
    config = finished.saved_config(folder)
    assert config.stages["ddpm"] == trained.config.stages["ddpm"]
    assert config.stages["edm_bc"] == trained.config.stages["edm_bc"]
    assert (config.task, config.source) == (trained.config.task, trained.config.source)
    assert config.stage == "ddpm"  # the later one in tables, which shared sections come from
    run = folder / "edm_bc" / checkpoints.CONFIG
    changed = json.loads(run.read_text())
    changed["config"]["edm_bc"]["method"]["sample_bins"] = 7
    changed["config"]["ddpm"]["method"]["steps"] = 9
    changed["config"]["data"]["discount"] = 0.5
    run_dir.write(run.parent, changed)
    config = finished.saved_config(folder)
    assert config.stages["edm_bc"].method.sample_bins == 7
    assert config.stages["ddpm"].method.steps == 4
    assert config.data.discount == trained.config.data.discount
    (folder / "ddpm" / checkpoints.FINISHED).unlink()  # a run that was stopped says nothing
    assert finished.saved_config(folder).data.discount == 0.5


def test_where_nothing_is_trained_the_command_is_named(trained, tmp_path):
    with pytest.raises(errors.UserError, match=r"nothing is trained in .*python main.py --config="):
        finished.saved_config(tmp_path / "nowhere")
    with pytest.raises(errors.UserError, match="nothing is trained") as caught:
        evaluate(tmp_path / "nowhere", source=trained.config.source)
    wanted = f"--config=hopper_mr:all,size=demo,source={trained.config.source} --workdir="
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


def test_fields_of_training_need_not_be_repeated(trained, folder, monkeypatch):
    def refuse(*given, **options):
        raise AssertionError("evaluation trains")

    monkeypatch.setattr(training_stage, "train", refuse)
    source, rows = trained.config.source, [("edm_bc", 1), ("ddpm", 4)]
    before = {path for path in folder.rglob("*") if "checkpoints" in path.parts}
    assert evaluate(folder, source=source) == rows
    app.run(flags.parse(["ractd", "eval", f"--workdir={folder}", "--config.eval.episodes=1"]))
    assert len(json.loads((folder / "summary.json").read_text())) == 1 + len(rows)
    assert {path for path in folder.rglob("*") if "checkpoints" in path.parts} == before
    assert not any(checkpoints.run_status(folder / stage) for stage in ("teacher", "student"))


def test_fields_that_only_acting_heeds_may_differ(trained, folder):
    words = ["--config.ddpm.method.sample_steps=2", "--config.eval.rows=('ddpm',)"]
    assert evaluate(folder, *words, source=trained.config.source) == [("ddpm", 2)]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("--config.ddpm.method.steps=8", r"ddpm.method.steps = 4, now it is 8"),
        ("--config.ddpm.method.stepz=8", "ddpm.method.stepz"),
        ("--config.data.horizon=2", r"data.horizon = \d+, now it is 2"),
        ("--config.eval.rows=('student',)", "eval.rows: student is not trained; .*:student,"),
        ("--config.eval.online=('ctd',)", "eval.online: ctd is not trained; .*:ctd,"),
    ],
)
def test_what_the_models_were_not_trained_with_is_refused(word, says, trained, folder):
    with pytest.raises(errors.UserError, match=says) as caught:
        evaluate(folder, word, source=trained.config.source)
    assert "\n" not in str(caught.value)
    assert not (folder / "summary.json").exists()


def test_runs_of_another_source_or_task_are_refused(trained, folder):
    with pytest.raises(errors.UserError, match=r"trained with source = .*, now it is simulated"):
        evaluate(folder, source="simulated")
    words = ["ractd", f"walker2d_mr:eval,size=demo,source={trained.config.source}"]
    with pytest.raises(errors.UserError, match="trained for hopper-medium-replay-v2, not walker"):
        app.run(flags.parse([*words, f"--workdir={folder}"]))


def test_runs_of_another_version_are_refused_in_one_line(trained, folder):
    run = folder / "ddpm" / checkpoints.CONFIG
    meta = json.loads(run.read_text())
    meta["config"]["ddpm"]["reselect"] = {"candidates": 1}
    run.write_text(json.dumps(meta))
    with pytest.raises(errors.UserError, match=r"another version .*ddpm.reselect") as caught:
        evaluate(folder, source=trained.config.source)
    assert "\n" not in str(caught.value)
