"""Kitchen's demonstrations, from D4RL's schema and from Minari's, to a policy that acts."""

import json

import gymnasium
import numpy as np
import pytest
from helpers import load

import ractd_jax
from ractd_jax import errors, tasks
from ractd_jax.cli import app, flags
from ractd_jax.data import d4rl, download, hdf5, normalization, sources, statistics
from ractd_jax.envs import kitchen, make
from ractd_jax.methods import registry
from ractd_jax.report import animation
from ractd_jax.training import opening, trainer

TASK = tasks.get("kitchen-mixed-v0")
LENGTHS = 40, 30, 35


@pytest.fixture(scope="module")
def demonstrations():
    """Columns as D4RL has them: the goal in every row, no timeouts, rewards that pile up."""
    rng, n = np.random.default_rng(0), sum(LENGTHS)
    joints = kitchen.START + 0.2 * rng.normal(size=(n, 30)).cumsum(axis=0) / np.sqrt(n)
    ends = np.isin(np.arange(n), np.cumsum(LENGTHS) - 1)
    return {
        "observations": np.concatenate(
            [joints, np.tile(kitchen.goal(kitchen.subtasks(TASK)), (n, 1))], axis=1
        ),
        "actions": rng.uniform(-1, 1, (n, 9)),
        "rewards": rng.integers(0, 5, n).astype(float),
        "terminals": ends,
    }


@pytest.fixture
def file(demonstrations, tmp_path):
    hdf5.write(tmp_path / "kitchen.hdf5", demonstrations, {})
    return tmp_path / "kitchen.hdf5"


def minari_set(columns, name, subtasks, width=59):
    """Write the demonstrations as Minari's kitchen sets are."""
    minari = pytest.importorskip("minari")
    rng = np.random.default_rng(1)
    joints, buffers = columns["observations"][:, :30], []
    for last, n in zip(np.cumsum(LENGTHS), LENGTHS, strict=True):
        rows = np.append(np.arange(last - n, last), last - 1)  # one more than actions
        velocities = rng.normal(size=(n + 1, 29))
        seen = np.concatenate(
            [joints[rows, :9], velocities[:, :9], joints[rows, 9:], velocities[:, 9:]], axis=1
        )
        where = {k: kitchen.GOALS[k] for k in subtasks}
        achieved = {k: joints[rows, a : a + len(v)] for k, (a, v) in where.items()}
        desired = {k: np.tile(v, (n + 1, 1)) for k, (_, v) in where.items()}
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                observations={
                    "observation": seen[:, :width],
                    "achieved_goal": achieved,
                    "desired_goal": desired,
                },
                actions=columns["actions"][last - n : last],
                rewards=columns["rewards"][last - n : last],
                terminations=np.arange(n) == n - 1,
                truncations=np.zeros(n, bool),
            )
        )

    def box(*shape):
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float64)

    goals = gymnasium.spaces.Dict({k: box(len(kitchen.GOALS[k][1])) for k in subtasks})
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=gymnasium.spaces.Dict(
            {"observation": box(width), "achieved_goal": goals, "desired_goal": goals}
        ),
        action_space=gymnasium.spaces.Box(-1, 1, (9,), np.float64),
    )


@pytest.mark.filterwarnings("ignore")
def test_minaris_episodes_are_d4rls_rows(demonstrations, file, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    minari_set(demonstrations, "D4RL/kitchen/mixed-v9", kitchen.subtasks(TASK))
    theirs = sources.load(TASK, "minari:D4RL/kitchen/mixed-v9")
    ours = sources.load(TASK, str(file))
    assert ours.observations.shape == (sum(LENGTHS), 60)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(a, b)
    other = "not kitchen-partial-v0 data: its subtasks are bottom burner"
    with pytest.raises(errors.UserError, match=other) as caught:
        sources.load(tasks.get("kitchen-partial-v0"), "minari:D4RL/kitchen/mixed-v9")
    assert "\n" not in str(caught.value)

    minari_set(demonstrations, "D4RL/kitchen/narrow-v0", kitchen.subtasks(TASK), width=58)
    with pytest.raises(errors.UserError, match=r"observes \(58,\), FrankaKitchen \(59,\)"):
        sources.load(TASK, "minari:D4RL/kitchen/narrow-v0")


def test_rewards_that_pile_up_are_remarked_on(file):
    facts = statistics.inspect(sources.load(TASK, str(file)), TASK)
    assert facts["score_mean"] > 100
    remarks = statistics.remarks(facts, 16, 0.0)
    assert any("mean score is above 100" in remark for remark in remarks)
    assert any("never changes" in remark for remark in remarks)  # the goal


@pytest.mark.parametrize("kind", kitchen.SUBTASKS)
def test_simulated_kitchen_data_are_refused(kind, tmp_path, monkeypatch):
    task = tasks.get(f"kitchen-{kind}-v0")
    with pytest.raises(errors.UserError, match=f"minari:D4RL/kitchen/{kind}-v2") as caught:
        sources.load(task, "simulated")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setattr(d4rl, "SERVER", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", ())
    with pytest.raises(errors.UserError, match=r"by hand$") as caught:
        d4rl.locate(task)
    assert task.file in str(caught.value)
    assert "source=simulated" not in str(caught.value)


TINY = {"hidden": 8, "blocks": 1}


def small(name, arg):
    """Return the configuration of a task, with networks and plans that compile in a blink."""
    config, _ = load(name, arg)
    config.training.update(updates_per_dispatch=2, compilation_cache="")
    config.reward.network.dims = (8,)
    config.eval.episodes = 1
    for stage in ("reward", "teacher", "ctd", "student"):
        config[stage].optimiser.update(steps=2, batch_size=8)
        if stage != "reward":
            config[stage].network.update(TINY)
    config.teacher.method.sample_bins = 3
    config.bc.optimiser.update(steps=2, batch_size=8)
    config.bc.network.hidden = (8,)
    return config


@pytest.mark.parametrize(
    ("name", "stage", "trained"),
    [("kitchen_mixed", "all", ["teacher", "ctd", "student"]), ("kitchen_partial", "bc", ["bc"])],
)
def test_from_demonstrations_to_the_table(name, stage, trained, file, tmp_path, capsys):
    pytest.importorskip("gymnasium_robotics")
    config = small(name, f"{stage},size=demo,source={file}")
    assert config.data.history == 4
    options = flags.Options(config, workdir=str(tmp_path / "run"))
    app.run(options)
    if stage != "all":  # which evaluates besides
        config.stage = "eval"
        app.run(options)
    out = capsys.readouterr().out
    assert ("RACTD student" in out) == ("student" in trained)
    assert f"{config.task.name}   data: file kitchen.hdf5" in out
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["stage"] for entry in entries] == ["dataset", *trained]
    for entry in entries[1:]:
        assert entry["score_mean"] in (0, 25, 50, 75, 100)  # of four subtasks
    figures = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"learning_curves.png", "returns.png", "latency.png"}  # no animation


def test_from_demonstrations_to_actions_in_the_kitchen(file, tmp_path):
    pytest.importorskip("gymnasium_robotics")
    config = small("kitchen_mixed", f"teacher,size=demo,source={file}")
    config.data.horizon = 4
    job = opening.open_pipeline(registry.configure(config.to_dict()), tmp_path / "run")
    trainer.Trainer([job]).ensure("teacher")

    policy = ractd_jax.load_policy(tmp_path / "run" / "teacher")
    assert policy.history == 4
    env = make.make_env(policy.task.env_id)
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        action = policy(obs)
        assert action.shape == (9,)
        obs, _, terminated, truncated, _ = env.step(action)
        assert not terminated
        assert not truncated
    policy.reset()
    assert policy(np.stack([obs, obs])).shape == (2, 9)
    # The goal never changes, so that the normalizer only shifts it, to 0.
    seen = normalization.normalize(obs, policy._normalizer.observations)
    np.testing.assert_allclose(seen[30:], 0, atol=1e-6)

    assert animation.save_gif(tmp_path / "x.gif", TASK, env.unwrapped.data.qpos[None]) is None
    assert not (tmp_path / "x.gif").exists()
    env.close()
