"""A row of the table is a stage and how it is sampled; one list of them fills one table."""

import json

import numpy as np
import pytest
from helpers import load, write_episodes

from ractd_jax import errors, tasks
from ractd_jax.envs import waypoint_controller
from ractd_jax.evaluation import evaluate, plans
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.training import pipeline


@pytest.fixture
def config():
    return load("maze2d_umaze", "eval,size=demo")[1]


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
    before = json.dumps(config)
    row = parse_row(config, text)
    assert (row.name, row.nfe, row.file()) == (name, calls, file)
    assert row.stage == text.split()[0]
    assert json.dumps(config) == before
    loop = row.file("closed loop")
    assert loop == file.removesuffix(".json") + "_closed_loop.json"


def test_fields_that_are_not_named_are_the_configurations(config):
    config["teacher"]["method"]["sample_bins"] = 40
    assert parse_row(config, "teacher solver=euler").fields == {
        "solver": "euler",
        "sample_bins": 40,
    }
    config["ddpm"]["method"]["sampler"] = "ddim"
    assert parse_row(config, "ddpm").name == "ddim"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("studnet", "Did you mean 'student'"),
        ("reward", "unknown stage in eval.samplers 'reward'"),
        ("student reward_weight=3", "unknown field of student"),
        ("student nfe=two", "int expected"),
        ("student nfe", "int expected"),
        ("student update=last", "int expected"),
        ("student nfe=2.9", "int expected"),
        ("student nfe=True", "int expected"),
        ("student candidates=0", "at least 1"),
        ("student update=-2", "at least 1"),
        ("student nfe=1 nfe=2", "one field twice"),
    ],
)
def test_wrong_rows_are_refused(config, text, says):
    with pytest.raises(errors.UserError, match=says):
        parse_row(config, text)


def test_one_list_fills_one_table_and_trains_what_is_missing(tmp_path, capsys):
    _, config = load("hopper_mr", f"eval,size=demo,source={tmp_path / 'data.hdf5'}")
    write_episodes(tasks.get(config["task"]), tmp_path / "data.hdf5")
    config["ddpm"]["network"].update(hidden=8, blocks=1)
    config["ddpm"]["optimiser"].update(steps=2, batch_size=8)
    config["eval"].update(episodes=2, samplers=["ddpm sample_steps=3", "ddpm sampler=ddim"])
    config["ddpm"]["method"].update(steps=20, sample_steps=4)
    entries = evaluate.evaluate_all(pipeline.Experiment(config, str(tmp_path / "run")))
    assert [(e["stage"], e["nfe"]) for e in entries] == [
        ("dataset", None),
        ("ddpm, NFE 3", 3),
        ("ddim, NFE 4", 4),
    ]
    run = tmp_path / "run"
    for entry, file in zip(entries[1:], ("eval_nfe_3", "eval_ddim_nfe_4"), strict=True):
        assert json.loads((run / "ddpm" / f"{file}.json").read_text()) == entry
    assert json.loads((run / "summary.json").read_text()) == entries
    assert (run / "figures" / "latency.png").exists()
    assert "DDIM, NFE 4" in capsys.readouterr().out

    (tmp_path / "data.hdf5").unlink()  # a trained policy acts without
    again = evaluate.evaluate_all(pipeline.Experiment(config, str(run), resume=True))
    assert [e["returns"] for e in again] == [e["returns"] for e in entries[1:]]
    assert "without a row for the data: no data file" in capsys.readouterr().out


def test_online_selection_takes_the_best_of_the_checkpoints_that_are_kept(tmp_path):
    _, config = load("hopper_mr", f"eval,size=demo,source={tmp_path / 'data.hdf5'}")
    write_episodes(tasks.get(config["task"]), tmp_path / "data.hdf5")
    config["ddpm"]["network"].update(hidden=8, blocks=1)
    config["ddpm"]["method"].update(steps=4, sample_steps=4)
    config["ddpm"]["optimiser"].update(steps=6, batch_size=8, learning_rate=0.1)
    config["training"].update(updates_per_dispatch=2, save_every=2, keep=3)
    config["eval"].update(episodes=2, samplers=["ddpm", "ddpm update=6"], online=["ddpm"])
    job = pipeline.Experiment(config, str(tmp_path / "run"))
    _, last, same, online = evaluate.evaluate_all(job)
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
        evaluate.evaluate_row(job, parse_row(config, "ddpm update=3"))


def test_plans_are_followed_as_the_configuration_says(config, tmp_path):
    config["eval"]["follow"] = "waypoints"
    job = pipeline.Experiment(config, str(tmp_path))
    assert plans.control_of(job) is waypoint_controller.push


def test_the_guided_planner_acts_in_an_environment(tmp_path):
    _, config = load("hopper_mr", f"eval,size=demo,source={tmp_path / 'data.hdf5'}")
    write_episodes(tasks.get(config["task"]), tmp_path / "data.hdf5")
    for stage in ("diffuser", "diffuser_value"):
        config[stage]["optimiser"].update(steps=2, batch_size=8)
    config["diffuser"]["network"].update(hidden=8, blocks=1)
    config["diffuser"]["method"].update(steps=3, guide_steps=1, plans=2, horizon=4)
    config["eval"].update(episodes=2, samplers=["diffuser"])
    entries = evaluate.evaluate_all(pipeline.Experiment(config, str(tmp_path / "run")))
    assert [(e["stage"], e["nfe"]) for e in entries] == [("dataset", None), ("diffuser", 3)]
    assert np.isfinite(entries[1]["returns"]).all()
    assert (tmp_path / "run" / "diffuser_value" / "config.json").exists()  # what guides it
