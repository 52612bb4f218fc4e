"""The picture of a maze has its walls, and what is asked for, in the right places."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ractd_jax import errors, tasks
from ractd_jax.data import episodes
from ractd_jax.envs import maze2d
from ractd_jax.report import data, maze

TASK = tasks.get("maze2d-large-v1")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def test_each_layer_adds_to_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    way = np.linspace([1.0, 1.0], [1.0, 4.0], 50)
    layers = {
        "density": {"density": rng.uniform([0.5, 0.5], [7.1, 10.1], (5000, 2))},
        "plans": {"plans": [way]},
        "paths": {"paths": [way, way + np.array([2.0, 0.0])]},
        "target": {"target": np.array([3.0, 3.0])},
    }
    maze.save(tmp_path / "new" / "plain.png", TASK, title="large")
    plain = pixels(tmp_path / "new" / "plain.png")
    assert min(plain.shape[:2]) > 200
    for name, layer in layers.items():
        maze.save(tmp_path / f"{name}.png", TASK, title="large", **layer)
        drawn = pixels(tmp_path / f"{name}.png")
        assert drawn.shape != plain.shape or (drawn != plain).any(axis=-1).sum() > 100, name


def test_walls_are_where_the_ball_stops():
    axes = Figure().add_subplot()
    layout = maze2d.get("umaze")
    maze.draw_maze(axes, layout, np.array(layout.goal, float))
    boxes = {patch.get_xy() for patch in axes.patches if hasattr(patch, "get_xy")}
    assert len(boxes) == sum(row.count("#") for row in layout.rows)
    assert (0.3, 1.3) in {(round(x, 6), round(y, 6)) for x, y in boxes}  # of cell (2, 1)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # rows run downwards


def test_the_map_of_a_dataset_shows_where_it_was(tmp_path):
    n = 300
    rng = np.random.default_rng(0)
    columns = rng.uniform(0.5, 3.0, (n, 4)), np.zeros((n, 2)), np.zeros(n)
    ends = np.arange(n) == n - 1
    transitions = episodes.Transitions(*(c.astype(np.float32) for c in columns), ends, ends)
    task = tasks.get("maze2d-umaze-v1")
    data.MAPS["maze2d"](tmp_path / "map.png", transitions, task, "a source")
    maze.save(tmp_path / "plain.png", task)
    seen, plain = pixels(tmp_path / "map.png"), pixels(tmp_path / "plain.png")
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > len(
        np.unique(plain.reshape(-1, 3), axis=0)
    )


def test_the_animation_moves_the_ball_and_counts_the_return(tmp_path):
    way = np.linspace([3.0, 1.0], [3.0, 3.0], 50)
    task = tasks.get("maze2d-umaze-v1")
    maze.save_gif(
        tmp_path / "ball.gif", task, way, plans=[way] * 50, rewards=np.ones(50), title="student"
    )
    with Image.open(tmp_path / "ball.gif") as gif:
        assert gif.n_frames == 10  # every fifth step: 20 a second
        frames = []
        for index in (0, 9):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB"), int))
    changed = np.abs(frames[0] - frames[1]).max(axis=-1) > 60
    assert 20 < changed.sum() < 0.1 * changed.size
    assert changed[:20].any()  # the caption
    assert changed[len(changed) // 2 :].any()  # the ball, in the lowest free row


def test_other_tasks_have_no_maze(tmp_path):
    with pytest.raises(errors.UserError, match="no Maze2d task"):
        maze.save(tmp_path / "x.png", tasks.get("hopper-medium-v2"))


def test_each_method_has_its_own_maze_in_the_picture(tmp_path):
    way = np.linspace([1.0, 1.0], [1.0, 4.0], 50)
    ways = {"one": ([way], [way]), "another": ([], [way]), "third": ([way], [])}
    sizes = []
    for count in (1, 2, 3):
        maze.save_each(tmp_path / "x.png", TASK, dict([*ways.items()][:count]), title="large")
        sizes.append(pixels(tmp_path / "x.png").shape)
    assert sizes[0][0] == sizes[2][0]  # side by side
    assert sizes[0][1] * 2.5 < sizes[2][1]
