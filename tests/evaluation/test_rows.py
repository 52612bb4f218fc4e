"""A row of the table is a stage and how it is sampled; one list of them fills one table."""

import json

import numpy as np
import pytest
from helpers import load
from run_helpers import tiny_pipeline, train

from ractd_jax import errors
from ractd_jax.config import replace
from ractd_jax.envs import waypoint_controller
from ractd_jax.evaluation import evaluate, plans
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints
from ractd_jax.training.opening import open_pipeline

DDPM = {"steps": 4, "sample_steps": 4}  # noise levels, and network calls of an action


@pytest.fixture(scope="module")
def config():
    return registry.configure(load("maze2d_umaze", "eval,size=demo")[1])


@pytest.mark.parametrize(
    ("text", "name", "calls", "file"),
    [
        ("student", "student", 1, "eval.json"),
        ("student nfe=3", "student, NFE 3", 3, "eval_nfe_3.json"),
        ("teacher", "teacher", 158, "eval.json"),
        ("student update=400", "student, update=400", 1, "eval_update_400.json"),
        ("teacher sample_bins=11", "teacher, NFE 20", 20, "eval_nfe_20.json"),
        (
            "teacher solver=euler sample_bins=11",
            "teacher, NFE 10, solver=euler",
            10,
            "eval_nfe_10_solver_euler.json",
        ),
        ("ddpm", "ddpm", 100, "eval.json"),
        ("ddpm sampler=ddim sample_steps=10", "ddim, NFE 10", 10, "eval_ddim_nfe_10.json"),
        ("diffuser", "diffuser", 64, "eval.json"),
        (
            "diffuser plans=4 guide_scale=1e-2",
            "diffuser, NFE 64, plans=4, guide_scale=0.01",
            64,
            "eval_nfe_64_plans_4_guide_scale_0.01.json",
        ),
    ],
)
def test_row_says_what_is_sampled_how(config, text, name, calls, file):
    row = parse_row(config, text)
    assert (row.name, row.nfe, row.file()) == (name, calls, file)
    assert row.stage == text.split()[0]
    assert row.file("closed loop") == file.removesuffix(".json") + "_closed_loop.json"


def test_fields_that_are_not_named_are_the_configurations(config):
    config = replace(config, teacher__method__sample_bins=40, ddpm__method__sampler="ddim")
    assert parse_row(config, "teacher solver=euler").fields == {
        "solver": "euler",
        "sample_bins": 40,
    }
    assert parse_row(config, "ddpm").name == "ddim"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("studnet", "Did you mean 'student'"),
        ("reward", "unknown stage in eval.rows 'reward'"),
        ("inverse", "unknown stage in eval.rows 'inverse'"),
        ("student reward_weight=3", "unknown field of student"),
        ("student nfe=two", "int expected"),
        ("student nfe", "int expected"),
        ("student update=last", "int expected"),
        ("student nfe=2.9", "int expected"),
        ("student nfe=True", "int expected"),
        ("student candidates=0", "at least 1"),
        ("student update=-2", "at least 1"),
        ("student nfe=1 nfe=2", "one field twice"),
        ("student nfe=0", "student nfe=0.*nfe is 0: at least 1"),
        ("teacher solver=rk4", "teacher solver=rk4.*unknown solver 'rk4'"),
        ("student candidates=4", "plans are not chosen"),
        ("", "begins with a stage"),
    ],
)
def test_wrong_rows_are_refused(config, text, says):
    with pytest.raises(errors.UserError, match=says) as caught:
        parse_row(config, text)
    assert "\n" not in str(caught.value)


def ddpm_pipeline(path, **sections):
    """Return a pipeline of a DDPM that calls its network 4 times, evaluated on two episodes."""
    sections["eval"] = {"episodes": 2} | sections.get("eval", {})
    return tiny_pipeline("hopper_mr", path, **{"ddpm": {"method": DDPM}} | sections)


def test_one_list_fills_one_table(tmp_path, capsys):
    rows = ["ddpm sample_steps=3", "ddpm sampler=ddim"]
    pipeline, run = ddpm_pipeline(tmp_path, eval={"rows": rows}), tmp_path / "run"
    train(pipeline, "ddpm")
    entries = evaluate.evaluate_all(pipeline)
    assert [(e["stage"], e["nfe"]) for e in entries] == [
        ("dataset", None),
        ("ddpm, NFE 3", 3),
        ("ddim, NFE 4", 4),
    ]
    for entry, file in zip(entries[1:], ("eval_nfe_3", "eval_ddim_nfe_4"), strict=True):
        assert json.loads((run / "ddpm" / f"{file}.json").read_text()) == entry
    assert json.loads((run / "summary.json").read_text()) == entries
    assert (run / "figures" / "latency.png").exists()
    assert "DDIM, NFE 4" in capsys.readouterr().out

    (tmp_path / "data.hdf5").unlink()  # a trained policy acts without
    again = evaluate.evaluate_all(open_pipeline(pipeline.config, run))
    assert [e["returns"] for e in again] == [e["returns"] for e in entries[1:]]
    assert "without a row for the data: no data file" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["rows", "online"])
def test_rows_that_are_not_trained_are_refused(field, tmp_path):
    pipeline = ddpm_pipeline(tmp_path, eval={field: ["ddpm"]})
    if field == "online":
        train(pipeline, "edm_bc")  # something is trained, what is asked for is not
    command = rf"eval.{field}: ddpm is not trained; `python main.py .*:ddpm,size=demo.*--workdir="
    with pytest.raises(errors.UserError, match=command) as caught:
        evaluate.evaluate_all(pipeline)
    assert "\n" not in str(caught.value)
    assert not checkpoints.run_status(pipeline.run("ddpm"))
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures out."""
    monkeypatch.setattr(evaluate, "draw", lambda *given: [])


@pytest.mark.usefixtures("undrawn")
def test_online_selection_takes_the_best_of_the_checkpoints_that_are_kept(tmp_path):
    pipeline = ddpm_pipeline(
        tmp_path,
        ddpm={"method": DDPM, "optimiser": {"steps": 6, "learning_rate": 0.1}},
        training={"save_every": 2, "keep": 3},
        eval={"rows": ["ddpm", "ddpm update=6"], "online": ["ddpm"]},
    )
    train(pipeline, "ddpm")
    _, last, same, online = evaluate.evaluate_all(pipeline)
    assert online["updates"] == [2, 4, 6]
    assert online["scores"][-1] == last["score_mean"] == same["score_mean"]
    assert online["score_mean"] == max(online["scores"])
    assert len(set(online["scores"])) == 3  # three networks, not one three times
    assert (last["selection"], same["selection"], online["selection"]) == (
        "last checkpoint (offline)",
        "update 6",
        "best checkpoint (online)",
    )
    with pytest.raises(errors.UserError, match="no checkpoint of update 3, only of 2, 4, 6"):
        evaluate.evaluate(pipeline, parse_row(pipeline.config, "ddpm update=3"))


def test_plans_are_followed_as_the_configuration_says(config, tmp_path):
    published = open_pipeline(replace(config, eval__follow="waypoints"), tmp_path)
    assert plans.control_of(published) is waypoint_controller.push
    learned = open_pipeline(replace(config, eval__follow="inverse"), tmp_path)
    with pytest.raises(errors.UserError, match=r"eval.follow is inverse: .*:inverse,.* trains it"):
        plans.control_of(learned)


@pytest.mark.usefixtures("undrawn")
def test_the_guided_planner_acts_in_an_environment(tmp_path):
    method = {"steps": 3, "guide_steps": 1, "plans": 2, "horizon": 4}
    pipeline = tiny_pipeline(
        "hopper_mr", tmp_path, diffuser={"method": method}, eval={"episodes": 2}
    )
    train(pipeline, "diffuser")
    entries = evaluate.evaluate_all(pipeline)
    assert [(e["stage"], e["nfe"]) for e in entries] == [("dataset", None), ("diffuser", 3)]
    assert np.isfinite(entries[1]["returns"]).all()
    assert (tmp_path / "run" / "diffuser_value" / "config.json").exists()  # what guides it
