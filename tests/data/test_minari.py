"""Minari's episodes become D4RL's rows; what cannot be had or read ends in one line."""

import builtins
import json

import gymnasium
import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, sources
from ractd_jax.data import minari as minari_reader
from ractd_jax.envs import maze2d

minari = pytest.importorskip("minari")

HOPPER = tasks.get("hopper-medium-v2")
ANY = tasks.TaskSpec(tasks.CUSTOM)
LENGTHS = {"falls": 5, "times out": 7, "is cut off": 3}


def box(*shape):
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float64)


def goal_space(obs, goal=None):
    goal = goal or box(2)
    parts = {"observation": box(obs), "achieved_goal": goal, "desired_goal": goal}
    return gymnasium.spaces.Dict(parts)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Minari's own folder, empty, and no network."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr("minari.storage.remotes.huggingface.HfApi", lambda token: Refused())
    return tmp_path


class Refused:
    """What `HfApi` does without a network: its client raises errors of its own."""

    def list_datasets(self, **options):
        raise ConnectionError("[Errno 111] Connection\nrefused")


class Empty:
    """What `HfApi` does when the server knows no such dataset."""

    def list_datasets(self, **options):
        return iter(())


def make(name, observation_space, observe, action_space=None):
    """Write the episodes of LENGTHS; `observe(rng, rows)` gives an episode's observations."""
    rng = np.random.default_rng(0)
    buffers = []
    for kind, n in LENGTHS.items():
        last = np.arange(n) == n - 1
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                observations=observe(rng, n + 1),
                actions=rng.uniform(-1, 1, (n, 3)).astype(np.float32),
                rewards=rng.normal(size=n),
                terminations=last & (kind == "falls"),
                truncations=last & (kind == "times out"),
            )
        )
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=observation_space,
        action_space=action_space or gymnasium.spaces.Box(-1, 1, (3,), np.float32),
    )
    return buffers


@pytest.fixture
def hopper(root):
    with pytest.warns():  # minari would like to know the author
        return make("mujoco/hopper/test-v0", box(11), lambda rng, n: rng.normal(size=(n, 11)))


def refused(source, task, text):
    with pytest.raises(errors.UserError, match=text) as caught:
        sources.load(task, source)
    assert "\n" not in str(caught.value)


def test_episodes_are_read_by_id_and_by_folder(hopper, root):
    read = sources.load(HOPPER, "minari:mujoco/hopper/test-v0")
    expected = [
        np.concatenate([getattr(b, name) for b in hopper]) for name in ("actions", "rewards")
    ]
    np.testing.assert_allclose(read.actions, expected[0])
    np.testing.assert_allclose(read.rewards, expected[1], rtol=1e-6)
    observations = np.concatenate([b.observations[:-1] for b in hopper])
    np.testing.assert_allclose(read.observations, observations, rtol=1e-6)
    assert episodes.lengths(read).tolist() == list(LENGTHS.values())
    last = np.cumsum(list(LENGTHS.values())) - 1
    assert np.flatnonzero(read.terminals).tolist() == [last[0]]
    assert np.flatnonzero(read.timeouts).tolist() == last[1:].tolist()
    for folder in ("mujoco/hopper/test-v0", "mujoco/hopper/test-v0/data"):
        again = sources.load(HOPPER, str(root / folder))
        np.testing.assert_array_equal(again.actions, read.actions)
    assert sources.load(ANY, "minari:mujoco/hopper/test-v0").observations.shape[1] == 11


def test_data_of_another_robot(hopper):
    refused(
        "minari:mujoco/hopper/test-v0",
        tasks.get("walker2d-medium-v2"),
        r"Minari dataset mujoco/hopper/test-v0 is not walker2d-medium-v2 data: observations is "
        r"\(15, 11\), expected \(15, 17\)",
    )


@pytest.mark.filterwarnings("ignore")
def test_pointmaze_observes_what_maze2d_does(root):
    def observe(rng, n):
        where = rng.normal(size=(n, 4))
        goal = np.tile(rng.normal(size=2), (n, 1))  # another one in each episode
        return {"observation": where, "achieved_goal": where[:, :2], "desired_goal": goal}

    buffers = make("D4RL/pointmaze/test-v0", goal_space(4), observe)
    read = sources.load(ANY, "minari:D4RL/pointmaze/test-v0")
    expected = np.concatenate([b.observations["observation"][:-1] for b in buffers])
    np.testing.assert_allclose(read.observations, expected, rtol=1e-6)

    make("D4RL/antmaze/test-v0", goal_space(4), observe)
    refused("minari:D4RL/antmaze/test-v0", ANY, "observes a goal that changes")


@pytest.mark.filterwarnings("ignore")
def test_pointmaze_becomes_the_coordinates_of_a_maze2d_task(root):
    """What gymnasium-robotics' ball does, ours does from the same place with the same push."""
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    env = gymnasium.make("PointMaze_Large-v3", max_episode_steps=100)
    cell = {"reset_cell": np.array([5, 6]), "goal_cell": np.array([1, 1])}
    states = [env.reset(seed=0, options=cell)[0]]
    rng = np.random.default_rng(0)
    actions = np.repeat(rng.uniform(-1, 1, (4, 2)), 10, axis=0).astype(np.float32)
    states += [env.step(action)[0] for action in actions]
    buffer = minari.data_collector.EpisodeBuffer(
        observations={k: np.array([s[k] for s in states]) for k in states[0]},
        actions=actions,
        rewards=np.ones(len(actions)),
        terminations=np.zeros(len(actions), bool),
        truncations=np.arange(len(actions)) == len(actions) - 1,
    )
    minari.create_dataset_from_buffers(
        "D4RL/pointmaze/large-v0",
        [buffer],
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    task = tasks.get("maze2d-large-v1")
    read = sources.load(task, "minari:D4RL/pointmaze/large-v0")
    assert not read.rewards.any()  # it is far from D4RL's goal, whatever the file's was

    ours = maze2d.Maze2d("large")
    ours.reset()
    ours.data.qpos[:], ours.data.qvel[:] = read.observations[0, :2], read.observations[0, 2:]
    followed = [ours.step(action)[0] for action in read.actions[:-1]]
    np.testing.assert_allclose(read.observations[1:], followed, atol=1e-4)
    assert np.ptp(read.observations[:, :2], axis=0).min() > 0.1  # it went somewhere

    refused(
        "minari:D4RL/pointmaze/large-v0",
        tasks.get("maze2d-umaze-v1"),
        r"is not maze2d-umaze-v1 data: \d+% of its positions lie in walls .* of another maze",
    )


@pytest.mark.filterwarnings("ignore")
def test_a_goal_that_never_changes_is_left_out(root):
    inner = gymnasium.spaces.Dict({"kettle": box(2), "microwave": box(1)})

    def observe(rng, n):
        goal = {"kettle": np.full((n, 2), 0.5), "microwave": np.full((n, 1), -0.7)}
        return {
            "observation": rng.normal(size=(n, 59)),
            "achieved_goal": goal,
            "desired_goal": goal,
        }

    make("D4RL/kitchen/test-v0", goal_space(59, inner), observe)
    assert sources.load(ANY, "minari:D4RL/kitchen/test-v0").observations.shape == (15, 59)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("space", "observe", "text"),
    [
        (
            gymnasium.spaces.Dict({"camera": box(2), "joints": box(2)}),
            lambda rng, n: {"camera": rng.normal(size=(n, 2)), "joints": rng.normal(size=(n, 2))},
            "a dictionary of camera, joints: only a goal dictionary",
        ),
        (
            gymnasium.spaces.Discrete(4),
            lambda rng, n: rng.integers(0, 4, n),
            "no vectors of numbers: Discrete",
        ),
        (box(2), lambda rng, n: np.full((n, 2), np.nan), "observations is NaN or infinite in 15"),
    ],
    ids=["dictionary", "discrete", "nan"],
)
def test_observations_that_cannot_be_used(root, space, observe, text):
    make("robot/test-v0", space, observe)
    refused("minari:robot/test-v0", ANY, text)


@pytest.mark.parametrize("name", ["mujoco/hopper/medium", "hopper v0", "no/such/"])
def test_malformed_id_is_refused(root, name):
    refused(f"minari:{name}", HOPPER, "no Minari dataset: ids end in a version")


def test_without_network_is_one_line(root):
    refused("minari:mujoco/hopper/medium-v0", HOPPER, "Connection refused; `minari list remote`")


def test_unknown_id_is_refused(root, monkeypatch):
    monkeypatch.setattr("minari.storage.remotes.huggingface.HfApi", lambda token: Empty())
    refused("minari:mujoco/hoper/medium-v0", HOPPER, "Couldn't find any version.*`minari list rem")


@pytest.mark.parametrize("damage", ["cut", "gone", "not json", "fewer"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_dataset(hopper, root, damage):
    folder = root / "mujoco/hopper/test-v0/data"
    file = folder / "main_data.hdf5"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif damage == "gone":
        file.unlink()
    elif damage == "not json":
        (folder / "metadata.json").write_text("{")
    else:
        about = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps(about | {"total_episodes": 9}))
    for source in ("minari:mujoco/hopper/test-v0", str(folder)):
        refused(source, HOPPER, "cannot (get|read) Minari dataset")


def test_without_the_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name == "minari":
            raise ImportError("No module named 'minari'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    refused("minari:mujoco/hopper/medium-v0", HOPPER, "the extra minari")


def test_other_folders_are_not_minari(tmp_path):
    assert not minari_reader.is_folder(tmp_path)
