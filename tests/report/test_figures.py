"""Figures and animations are written, of the right kind, and show something."""

import itertools
import json
import pathlib
import re

import numpy as np
import pytest
from helpers import shows_something
from matplotlib.colors import is_color_like, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ractd_jax import errors, tasks
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import rollouts
from ractd_jax.methods import registry
from ractd_jax.report import animation, maze, plots, style

TASK = tasks.get("hopper-medium-replay-v2")


def test_read_metrics_leaves_out_a_cut_line_and_repeated_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in ((1, 3.0), (2, 2.0))]
    path.write_text("\n".join([*lines, '{"step": 3, "lo']))
    assert [record["step"] for record in plots.read_metrics(path)] == [1, 2]
    with path.open("a") as file:  # resumed after step 1
        file.write('\n{"step": 2, "loss": 2.5}\n{"step": 3, "loss": 1.0}\n')
    assert [record["loss"] for record in plots.read_metrics(path)] == [3.0, 2.5, 1.0]


def test_read_metrics_names_a_file_it_cannot_use(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(errors.UserError, match=r"no metrics at .*metrics\.jsonl"):
        plots.read_metrics(path)
    path.write_text('{"st')
    with pytest.raises(errors.UserError, match="no record"):
        plots.read_metrics(path)


def test_learning_curves(tmp_path):
    steps = range(10, 610, 10)
    falling = [{"step": s, "loss": 5 / s, "seconds": 1.0} for s in steps]
    signed = [{"step": s, "dsm": 1 / s, "reward": -s / 600, "note": "text"} for s in steps]
    broken = [{"step": 1, "loss": float("nan")}, {"step": 2}]
    path = tmp_path / "new" / "curves.png"
    plots.learning_curves(path, {"teacher": falling, "student": signed, "ctd": broken})
    assert shows_something(path)


def test_return_distributions(tmp_path):
    rng = np.random.default_rng(0)
    scores = {
        "dataset": rng.gamma(1.5, 15.0, 1000),
        "teacher": np.full(50, 20.0),
        "student": np.array([95.0]),
    }
    plots.return_distributions(tmp_path / "scores.png", scores, "hopper, simulated data")
    assert shows_something(tmp_path / "scores.png")


def test_latency_bars(tmp_path):
    rows = (("dataset", None, None), ("teacher", 159, 35.0), ("student", 1, 0.2), ("new", 5, 1.0))
    entries = [{"stage": s, "nfe": n, "action_ms": ms} for s, n, ms in rows]
    plots.latency_bars(tmp_path / "latency.png", entries)
    assert shows_something(tmp_path / "latency.png")


def test_every_stage_has_its_own_label_and_colour():
    systems = style.systems()
    assert set(registry.records()) < set(systems)
    assert {"dataset", "ddim"} <= set(systems)
    labels, colours = zip(*systems.values(), strict=True)
    assert all(labels)
    assert len(set(labels)) == len(set(colours)) == len(systems)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    for a, b in itertools.combinations(map(to_rgb, colours), 2):
        assert 255 * np.linalg.norm(np.subtract(a, b)) > 20
    method = registry.get("student")
    assert (style.label("student"), style.color("student")) == (method.label, method.colour)
    assert style.label("student, NFE 2") == f"{method.label}, NFE 2"
    assert style.color("student, NFE 2") == method.colour


def test_what_is_no_stage_keeps_its_name_and_gets_a_colour():
    assert style.label("sarsa, NFE 2") == "sarsa, NFE 2"
    assert style.color("sarsa") == style.color("sarsa")
    assert is_color_like(style.color("sarsa"))


@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah"])
def test_gif_of_each_robot(tmp_path, env):
    task = tasks.get(f"{env}-medium-v2")

    def policy(obs, seeds, step):
        return np.full((len(obs), task.act_dim), np.sin(0.2 * step))

    episode = rollouts.record(policy, task, seed=0)
    path = tmp_path / f"{env}.gif"
    rewards = episode["rewards"]
    animation.save_gif(path, task, episode["qpos"], rewards=rewards, title=env, max_frames=12)
    with Image.open(path) as gif:
        assert gif.size == animation.SIZE
        assert 5 <= gif.n_frames <= 12
        first = np.asarray(gif.convert("RGB"), int)
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB"), int)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 15
    assert (first != last).any(-1).mean() > 0.005
    assert path.stat().st_size < 100_000


def test_gif_ends_with_the_last_step_in_real_time(tmp_path):
    qpos = np.zeros((48, 6))
    qpos[:, 1] = 1.25
    animation.save_gif(tmp_path / "still.gif", TASK, qpos)
    with Image.open(tmp_path / "still.gif") as gif:  # steps 3, 8, ... 48, each for 5 x 8 ms
        total = 0
        for frame in range(gif.n_frames):
            gif.seek(frame)
            total += gif.info["duration"]
    assert total == 9 * 40 + 1500


def test_pose_of_the_upright_hopper():
    env = make_env(TASK.env_id)
    robot = animation.pose(env.unwrapped.model, np.array([0.7, 1.25, 0.0, 0.0, 0.0, 0.0]))
    env.close()
    assert robot.part == ["torso", "near", "near", "near"]
    np.testing.assert_allclose(sorted([robot.start[0, 1], robot.end[0, 1]]), [1.05, 1.45])
    np.testing.assert_allclose(robot.start[:3, 0], 0.7)  # torso, thigh and leg in one line
    assert robot.radius.tolist() == [0.05, 0.05, 0.04, 0.06]


def test_frame_keeps_the_robot_in_the_middle():
    env = make_env(TASK.env_id)
    robot = animation.pose(env.unwrapped.model, np.array([12.3, 1.25, 0.0, 0.0, 0.0, 0.0]))
    env.close()
    frame = np.asarray(animation.draw_frame(robot), int)
    red = (frame[..., 0] - frame[..., 1]) > 100
    assert frame.shape == (*animation.SIZE[::-1], 3)
    assert abs(np.nonzero(red)[1].mean() - animation.SIZE[0] / 2) < 10


WAY, MAZE = np.linspace([3.0, 1.0], [3.0, 3.0], 10), tasks.get("maze2d-umaze-v1")
FILES = {
    "plot.png": lambda path: plots.save(Figure(), path),
    "robot.gif": lambda path: animation.save_gif(path, TASK, np.full((9, 6), 1.25)),
    "maze.png": lambda path: maze.save(path, MAZE),
    "ways.png": lambda path: maze.save_each(path, MAZE, {"one": ([], [WAY])}),
    "ball.gif": lambda path: maze.save_gif(path, MAZE, WAY),
}


@pytest.mark.parametrize("name", FILES)
def test_a_picture_appears_once_complete(tmp_path, monkeypatch, name):
    path = tmp_path / "figures" / name
    FILES[name](path)
    with Image.open(path) as image:
        assert image.format == path.suffix[1:].upper()
    before = path.read_bytes()

    def half(image, file, *args, **kwargs):
        (pathlib.Path(file) if isinstance(file, str | pathlib.Path) else path).write_text("half")
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(errors.UserError, match=f"cannot write .*{name}: .*No space left on device"):
        FILES[name](path)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("name", FILES)
def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, name):
    (tmp_path / "figures").touch()
    with pytest.raises(errors.UserError, match=f"cannot write .*figures/{name}: ") as caught:
        FILES[name](tmp_path / "figures" / name)
    assert "\n" not in str(caught.value)


def test_positions_of_another_robot_are_refused(tmp_path):
    with pytest.raises(errors.UserError, match="Hopper-v2"):
        animation.save_gif(tmp_path / "x.gif", TASK, np.zeros((5, 9)))
    with pytest.raises(errors.UserError, match="Hopper-v2"):
        animation.save_gif(tmp_path / "x.gif", TASK, np.zeros((0, 6)))
