"""A run trains for as long as it is told, goes on or begins anew, and saves the weights chosen."""

import shutil

import jax
import numpy as np
import pytest
from run_helpers import curve, saved, tiny_pipeline, train

from ractd_jax import errors
from ractd_jax.data import hdf5
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, opening, run_dir


@pytest.mark.parametrize("weights", ["ema", "live"])
def test_the_weights_that_were_chosen_are_saved(weights, tmp_path):
    # The first two updates are not averaged.
    section = {"weights": weights, "optimiser": {"steps": 4}}
    job, run = tiny_pipeline("hopper_mr", tmp_path, reward=section), tmp_path / "run" / "reward"
    train(job, "reward")
    init = registry.make(job.config, "reward").init
    store = checkpoints.Checkpoints(run)
    state = store.restore(4, "state", jax.eval_shape(init, jax.random.key(0)))
    store.close()
    both = {"ema": state.ema, "live": state.params}
    jax.tree.map(np.testing.assert_array_equal, saved(run)["params"], both.pop(weights))
    (other,) = both.values()
    same = jax.tree.map(np.array_equal, saved(run)["params"], other)
    assert not any(jax.tree.leaves(same))


def of_epochs(path):
    """Return a pipeline whose return model sees 800 rows three times, in batches of 300."""
    section = {"epochs": 3, "optimiser": {"steps": 0, "batch_size": 300}}
    return tiny_pipeline("hopper_mr", path, reward=section, training={"save_every": 8})


def test_epochs_of_whole_batches_go_on_where_they_were_stopped(tmp_path, capsys):
    run = tmp_path / "run" / "reward"
    train(of_epochs(tmp_path), "reward")
    assert [line["step"] for line in curve(run)] == [2, 4, 6, 8, 9]
    before = saved(run)
    (run / checkpoints.FINISHED).unlink()
    shutil.rmtree(run / "checkpoints" / "9")
    train(of_epochs(tmp_path), "reward", resume=True)
    assert "continues at update 8 of 9" in capsys.readouterr().out
    assert checkpoints.run_status(run) == checkpoints.FINISHED
    jax.tree.map(np.testing.assert_array_equal, saved(run), before)


def test_overwrite_trains_the_stage_anew_and_keeps_the_stages_it_needs(tmp_path):
    def of(steps):
        # With a reward it needs the return model.
        section = {"optimiser": {"steps": steps}, "method": {"reward_weight": 1.0}}
        return tiny_pipeline("hopper_mr", tmp_path, teacher=section)

    def began(stage):
        return (tmp_path / "run" / stage / checkpoints.CONFIG).stat().st_mtime_ns

    run = tmp_path / "run" / "teacher"
    train(of(4), "teacher")
    evaluations = [run / "eval.json", run / "eval_1_of_8.json"]
    for path in (*evaluations, run / "notes.txt"):
        path.touch()
    before = began("reward"), began("teacher")
    train(of(2), "teacher", overwrite=True)
    assert [line["step"] for line in curve(run)] == [2]
    assert not any(path.exists() for path in evaluations)
    assert (run / "notes.txt").exists()
    assert began("reward") == before[0]
    assert began("teacher") > before[1]


def test_a_run_does_not_go_on_with_other_data_under_the_same_name(tmp_path):
    sections = {"training": {"save_every": 2}, "reward": {"optimiser": {"steps": 4}}}
    job, run = tiny_pipeline("hopper_mr", tmp_path, **sections), tmp_path / "run" / "reward"
    train(job, "reward")
    (run / checkpoints.FINISHED).unlink()
    shutil.rmtree(run / "checkpoints" / "4")
    before = saved(run)
    columns = hdf5.read(tmp_path / "data.hdf5", job.task)
    scaled = columns._replace(observations=10 * columns.observations)
    hdf5.write(tmp_path / "data.hdf5", scaled._asdict(), {})
    again = opening.open_pipeline(job.config, tmp_path / "run")
    with pytest.raises(errors.UserError, match="was trained on other data"):
        train(again, "reward", resume=True)
    jax.tree.map(np.testing.assert_array_equal, saved(run), before)


def test_two_programs_do_not_train_in_one_folder(tmp_path):
    job, run = tiny_pipeline("hopper_mr", tmp_path), tmp_path / "run" / "reward"
    with checkpoints.alone(run), pytest.raises(errors.UserError, match="another program trains in"):
        train(job, "reward")
    train(job, "reward")  # it has ended
    assert checkpoints.run_status(run) == checkpoints.FINISHED


def test_a_number_of_updates_that_epochs_give_is_written_down_and_changes_no_configuration(
    tmp_path,
):
    job = of_epochs(tmp_path)
    train(job, "reward")
    recorded, _ = run_dir.read(job.run("reward"))
    assert recorded.stages["reward"].optimiser.steps == 9
    assert job.config.stages["reward"].optimiser.steps == 0
