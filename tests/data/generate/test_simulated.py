"""Simulated data: reproducible, readable, and true to the environment it claims to come from."""

import dataclasses
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from helpers import ROOT

from ractd_jax import errors, tasks
from ractd_jax.data import cache, d4rl, episodes, hdf5
from ractd_jax.data.generate import sac_rollout, simulated
from ractd_jax.envs.make import make_env

TASK = tasks.get("hopper-medium-replay-v2")
STEPS = 2000
ENVS = ("hopper", "walker2d", "halfcheetah")


def tool_module(name):
    return runpy.run_path(str(ROOT / "tools" / f"{name}.py"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulated") / "data.hdf5"
    simulated.make(TASK, path, transitions=STEPS, seed=0, workers=1)
    return path


def arrays(path):
    columns = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                columns.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return columns


def test_same_seed_gives_the_same_arrays_whatever_the_workers(path, tmp_path):
    seen = []
    simulated.make(TASK, tmp_path / "again.hdf5", transitions=STEPS, workers=2, advance=seen.append)
    first, again = arrays(path), arrays(tmp_path / "again.hdf5")
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    assert seen == sorted(seen)
    assert seen[-1] == STEPS


def test_other_seed_gives_other_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "RECIPES", {TASK.name: simulated.Recipe(300, {10_000: 1})})
    simulated.make(TASK, tmp_path / "other.hdf5", seed=1, workers=1)
    simulated.make(TASK, tmp_path / "same.hdf5", seed=0, workers=1)
    first = [hdf5.read(tmp_path / name, TASK).actions[:5] for name in ("other.hdf5", "same.hdf5")]
    assert np.abs(first[0] - first[1]).max() > 0.1


def test_reads_back_as_complete_episodes_of_about_the_size_asked_for(path):
    transitions = hdf5.read(path, TASK)
    lengths = episodes.lengths(transitions)
    assert lengths.sum() == len(arrays(path)["rewards"])  # no unfinished tail in the file
    assert STEPS <= lengths.sum() < STEPS + lengths[-1]
    assert lengths.max() <= TASK.max_episode_steps
    assert np.abs(transitions.actions).max() <= 1.0
    np.testing.assert_array_equal(
        transitions.timeouts[np.cumsum(lengths) - 1], lengths == TASK.max_episode_steps
    )


def retrace(data, rows):
    """Assert that each of these rows' actions leads from its state to what the row says."""
    env = make_env(TASK.env_id)
    env.reset(seed=0)
    for row in rows:
        env.unwrapped.set_state(data["infos/qpos"][row], data["infos/qvel"][row])
        observation, reward, terminal, _, _ = env.step(data["actions"][row])
        assert reward == pytest.approx(data["rewards"][row], abs=5e-3)
        np.testing.assert_allclose(observation, data["next_observations"][row], atol=5e-3)
        assert terminal == data["terminals"][row]
    env.close()


def test_rewards_and_next_observations_follow_from_the_stored_states(path):
    data = arrays(path)
    retrace(data, np.random.default_rng(0).integers(0, len(data["rewards"]), 200))


def test_every_lane_records_its_own_actions():
    lanes = 3
    found = sac_rollout.collect(sac_rollout.Block(TASK.env_id, None, 1000 * lanes, (0,)))
    firsts = [episode["observations"][0] for episode in found[:lanes]]
    assert len(np.unique(firsts, axis=0)) == lanes
    for episode in found[:lanes]:
        retrace(episode, range(0, len(episode["rewards"]), 5))


def test_next_observations_are_the_next_rows_inside_an_episode(path):
    data = arrays(path)
    inside = ~(data["terminals"] | data["timeouts"])[:-1]
    np.testing.assert_array_equal(
        data["next_observations"][:-1][inside], data["observations"][1:][inside]
    )
    positions = data["infos/qpos"][:, 1:]  # Hopper sees where it is, but for how far it has come
    np.testing.assert_array_equal(data["observations"][:, :5], positions)


def test_time_limit_is_a_timeout_and_a_fall_is_a_terminal():
    def ends(saved_at):
        with np.load(simulated.SNAPSHOTS / "hopper.npz") as archive:
            actor = simulated.actor(dict(archive), saved_at)
        found = sac_rollout.collect(sac_rollout.Block(TASK.env_id, actor, 1, (3, saved_at), 0.25))
        assert len(found) == 1
        return len(found[0]["rewards"]), found[0]["terminals"], found[0]["timeouts"]

    length, terminals, timeouts = ends(980_000)
    assert length == TASK.max_episode_steps
    assert timeouts[-1]
    assert not terminals.any()
    length, terminals, timeouts = ends(10_000)
    assert length < 200
    assert terminals.tolist() == [False] * (length - 1) + [True]
    assert not timeouts.any()


def test_an_actor_may_act_with_less_than_its_own_noise():
    with np.load(simulated.SNAPSHOTS / "hopper.npz") as archive:
        actor = simulated.actor(dict(archive), 980_000)
    block = sac_rollout.Block(TASK.env_id, actor, 1, (0, 980_000), 0.0)
    (episode,) = sac_rollout.collect(block)
    calm = sac_rollout.act(actor, episode["observations"], np.zeros_like(episode["actions"]))
    np.testing.assert_allclose(episode["actions"], calm, atol=1e-5)
    (noisy,) = sac_rollout.collect(block._replace(noise=0.5))
    assert np.abs(noisy["actions"][0] - calm[0]).max() > 1e-3


def test_actor_is_a_squashed_gaussian():
    rng = np.random.default_rng(0)
    sizes = {"hidden0": (4, 8), "hidden1": (8, 8), "mean": (8, 2), "log_std": (8, 2)}
    actor = {
        f"{name}/{part}": rng.normal(size=shape).astype(np.float32)
        for name, size in sizes.items()
        for part, shape in (("kernel", size), ("bias", size[1:]))
    }
    actor["log_std/kernel"][:] = 0.0
    actor["log_std/bias"][:] = np.log([0.1, 1e9])  # the second is clipped to exp(2)
    obs = rng.normal(size=(1, 4)).astype(np.float32)
    mean = np.arctanh(sac_rollout.act(actor, obs, np.zeros((1, 2), np.float32)))
    moved = sac_rollout.act(actor, obs, np.array([[1.0, 1e-3]], np.float32))
    shift = np.array([[0.1, 1e-3 * np.exp(2)]])
    np.testing.assert_allclose(moved, np.tanh(mean + shift), atol=1e-5)


def test_dead_worker_process_ends_in_one_line():
    with (
        pytest.raises(errors.UserError, match="a simulation process died") as caught,
        simulated._mapped(os._exit, [1, 1], workers=2) as results,
    ):
        list(results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("env", ENVS)
def test_recipes_name_exactly_the_shipped_snapshots(env):
    with np.load(simulated.SNAPSHOTS / f"{env}.npz") as archive:
        shipped = set(archive["steps"].tolist())
    recipes = [recipe for name, recipe in simulated.RECIPES.items() if name.startswith(f"{env}-")]
    assert {saved_at for recipe in recipes for saved_at in recipe.shares} - {0} == shipped
    assert (simulated.SNAPSHOTS / f"{env}.npz").stat().st_size < 700_000


def test_every_locomotion_task_has_a_recipe_of_its_size_in_learning_order():
    locomotion = [name for name in tasks.TASKS if name.split("-")[0] in ENVS]
    assert set(simulated.RECIPES) == set(locomotion)
    for name, recipe in simulated.RECIPES.items():
        if name.endswith("medium-replay-v2"):
            assert list(recipe.shares) == sorted(recipe.shares)
        assert recipe.transitions == d4rl.PUBLISHED[name].steps or "replay" not in name
        assert abs(recipe.transitions - d4rl.PUBLISHED[name].steps) < 1000
        if name.endswith("medium-replay-v2"):
            medium = simulated.RECIPES[name.replace("-replay", "")]
            assert set(medium.shares) & set(list(recipe.shares)[-2:])  # where the learner was
        assert set(recipe.noise) <= set(recipe.shares)


def test_medium_expert_as_published_is_medium_and_expert_in_one():
    whole = d4rl.PUBLISHED["halfcheetah-medium-expert-v2"]
    rng = np.random.default_rng(0)
    parts = d4rl._MEASURED["halfcheetah-medium"], d4rl._MEASURED["halfcheetah-expert"]
    draws = [rng.normal(p.return_mean, p.return_std, 200_000) for p in parts]  # of equal numbers
    assert whole.trajectories == 2000
    assert whole.return_mean == pytest.approx(np.concatenate(draws).mean(), rel=1e-3)
    assert whole.return_std == pytest.approx(np.concatenate(draws).std(), rel=1e-3)
    assert (whole.return_max, whole.return_min) == (11252.04, -310.23)


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RACTD_DATA_DIR", str(tmp_path / "file" / "folder"))
    with pytest.raises(errors.UserError, match="cannot write"):
        cache.keep(TASK, 1, pytest.fail, 10, 0)


def test_comparison_prints_what_the_file_holds(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RACTD_DATA_DIR", str(tmp_path))
    cache.path_of(TASK, simulated.VERSION, STEPS, 0).write_bytes(path.read_bytes())
    arguments = ["compare", "--env=hopper", "--quality=medium-replay", f"--transitions={STEPS}"]
    monkeypatch.setattr("sys.argv", arguments)
    tool_module("compare_simulated")["main"]()
    returns = episodes.returns(hdf5.read(path, TASK))
    header, rule, simulated_row, published_row = capsys.readouterr().out.splitlines()
    assert (
        header.count("|") == rule.count("|") == simulated_row.count("|") == published_row.count("|")
    )
    assert f"| {len(returns):,} |" in simulated_row
    assert f"{returns.mean():,.1f} +- {returns.std():,.1f}" in simulated_row
    assert "467.3 +- 511.0" in published_row


def test_comparison_of_the_snapshots_by_themselves(monkeypatch, capsys):
    arguments = ["compare", "--snapshots", "--env=hopper", "--quality=medium", "--transitions=2000"]
    monkeypatch.setattr("sys.argv", arguments)
    tool_module("compare_simulated")["main"]()
    header, rule, row, *_ = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    name, noise, users, count, returns, *_ = (word.strip() for word in row.strip("|").split("|"))
    assert (name, noise) == ("hopper after 320,000 steps", "1")
    assert users == "medium-replay, medium, medium-expert"
    assert 1 < int(count) < 10
    assert 1_000 < float(returns.split(" +- ")[0].replace(",", "")) < 2_500


@pytest.mark.parametrize("env", ENVS[1:])
def test_snapshots_of_the_other_robots_act_as_their_recipe_says(env):
    """The last of medium-replay beats a random policy many times over."""
    task = tasks.get(f"{env}-medium-v2")
    with np.load(simulated.SNAPSHOTS / f"{env}.npz") as archive:
        snapshots = dict(archive)

    def mean_reward(saved_at):
        actor = simulated.actor(snapshots, saved_at)
        (episode,) = sac_rollout.collect(sac_rollout.Block(task.env_id, actor, 1, (0, saved_at)))
        assert episode["observations"].shape[1] == task.obs_dim
        return episode["rewards"].mean()

    medium = max(simulated.RECIPES[task.name].shares)
    assert mean_reward(medium) > 2 > mean_reward(0)


def test_cache_is_made_once_under_a_telling_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RACTD_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(simulated, "RECIPES", {TASK.name: simulated.Recipe(400, {0: 1})})
    path = simulated.cached(TASK, seed=5)
    assert "simulating hopper-medium-replay-v2" in capsys.readouterr().out
    assert [f.name for f in tmp_path.glob("[!.]*")] == [path.name]
    assert all(part in path.name for part in (TASK.name, "400", "seed5"))
    before = path.stat().st_mtime_ns
    assert simulated.cached(TASK, seed=5) == path
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().err == ""
    assert simulated.cached(TASK, seed=6) != path


def test_of_two_processes_that_want_the_same_file_one_makes_it(tmp_path):
    program = (
        "import sys, time, pathlib; from ractd_jax import tasks; "
        "from ractd_jax.data.generate import simulated; "
        f"task = tasks.get({TASK.name!r}); "
        "simulated.RECIPES = {task.name: simulated.Recipe(3000, {0: 1})}; "
        "folder = pathlib.Path(sys.argv[1]); (folder / sys.argv[2]).touch(); "
        "[time.sleep(0.01) for _ in iter(lambda: len(list(folder.glob('ready*'))) < 2, False)]; "
        "print(simulated.cached(task, seed=1))"
    )
    run = [sys.executable, "-c", program, str(tmp_path)]
    options = {
        "cwd": ROOT,
        "env": os.environ | {"RACTD_DATA_DIR": str(tmp_path / "cache")},
        "text": True,
    }
    made = [
        subprocess.Popen([*run, f"ready{i}"], stdout=subprocess.PIPE, **options) for i in range(2)
    ]
    seen = 0
    while any(process.poll() is None for process in made):
        for file in (tmp_path / "cache").glob("*.hdf5"):  # never half of it
            seen = len(hdf5.read(file, TASK).rewards)
            assert seen >= 3000
        time.sleep(0.05)
    lines = [process.communicate()[0].splitlines() for process in made]
    assert [process.returncode for process in made] == [0, 0]
    made_it = [any(line.startswith("simulating") for line in said) for said in lines]
    assert sorted(made_it) == [False, True]
    paths = {said[-1] for said in lines}
    assert [str(file) for file in (tmp_path / "cache").glob("[!.]*")] == list(paths)
    assert len(hdf5.read(paths.pop(), TASK).rewards) >= 3000


@pytest.mark.parametrize("options", [{"transitions": 0}, {"transitions": -5}, {"seed": -1}])
def test_numbers_that_make_no_sense(tmp_path, options):
    with pytest.raises(errors.UserError, match="transitions start at 1, seeds at 0"):
        simulated.make(TASK, tmp_path / "x.hdf5", workers=1, **options)


@pytest.mark.parametrize("name", sorted(simulated.RECIPES))
@pytest.mark.parametrize("transitions", [1, 2000, 402_000])
def test_plan_adds_up_in_learning_order(name, transitions):
    plan = list(simulated.plan(simulated.RECIPES[name], transitions))
    assert sum(steps for _, _, steps in plan) == transitions
    assert all(0 < steps <= simulated.BLOCK for _, _, steps in plan)
    order = list(simulated.RECIPES[name].shares)  # of medium-expert: medium, then the expert
    assert plan == sorted(plan, key=lambda block: (order.index(block[0]), block[1]))
    assert len({block[:2] for block in plan}) == len(plan)  # no two share their randomness


def test_task_without_snapshots_says_what_would_work(tmp_path):
    ant = dataclasses.replace(TASK, name="ant-medium-v2")
    with pytest.raises(errors.UserError, match="source=d4rl, or one of hopper-medium") as caught:
        simulated.make(ant, tmp_path / "x.hdf5")
    assert "\n" not in str(caught.value)


def test_thinning_keeps_the_snapshots_of_the_recipes(tmp_path, monkeypatch):
    tool = tool_module("thin_snapshots")
    monkeypatch.setattr(simulated, "SNAPSHOTS", tmp_path / "out")
    steps = np.arange(10_000, 1_100_001, 10_000)
    np.savez(tmp_path / "sac_actors_hopper.npz", steps=steps, **{"mean/bias": steps[:, None] / 1e5})
    with np.load(tool["thin"](tmp_path, "hopper")) as archive:
        assert archive["mean/bias"].dtype == np.float16
        np.testing.assert_allclose(archive["mean/bias"][:, 0], archive["steps"] / 1e5, rtol=1e-3)
        assert 320_000 in archive["steps"]
        assert len(archive["steps"]) < 20
    np.savez(tmp_path / "sac_actors_hopper.npz", steps=steps[:5])
    with pytest.raises(SystemExit, match="hopper: wanted"):
        tool["thin"](tmp_path, "hopper")


PARENT = """
import os, signal, sys, time
from ractd_jax.data.generate import simulated

def work(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    try:
        with simulated._mapped(work, [100, 100], 2) as results:
            list(results)
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # all of them, as a terminal does
    else:
        parent.send_signal(number)
    # Their end closes what they share with the parent, which is what this waits for.
    _, err = parent.communicate(timeout=60)
    assert "Traceback" not in err
    assert number == signal.SIGKILL or err == "stopped\n"
    for worker in workers:
        assert not is_running(worker)


def is_running(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
