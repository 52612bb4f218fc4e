"""Pictures of a maze from above: where the data has been, what was planned, what was done.

Rows of the layout run downwards, as it is written, and walls are drawn where the ball meets them.
Axes are positions (see `envs.maze2d`): x downwards, y to the right.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image, ImageDraw

from ractd_jax import tasks
from ractd_jax.data import cache
from ractd_jax.data.episodes import Transitions
from ractd_jax.envs import maze2d
from ractd_jax.report import style

BIN = 0.05  # metres, of the density map
_WALL = "#c9cfd6"
_PATHS = ("#c8384f", "#2a9d8f", "#8c6bb1", "#e39a2d", "#5f8f3e")

Positions = Float[np.ndarray, "n 2"]


def save(
    path: str | Path,
    task: tasks.TaskSpec,
    *,
    density: Positions | None = None,
    plans: Sequence[Positions] = (),
    paths: Sequence[Positions] = (),
    target: Float[np.ndarray, "2"] | None = None,
    title: str = "",
) -> None:
    """Draw a maze into a PNG file.

    Args:
        path: of the file.
        task: a Maze2d task.
        density: visited positions, drawn as a map of how often (logarithmic).
        plans: planned ways, dashed; the i-th in the colour of the i-th of `paths`.
        paths: ways that were gone, with a dot where they began.
        target: position of the goal; by default the layout's.
        title: says task and data source.

    Raises:
        UserError: no Maze2d task, or the file cannot be written.
    """
    maze = maze2d.of_task(task)
    height, width = len(maze.rows), len(maze.rows[0])
    figure = _figure(height, width, 5.0, margin=0.9 if density is None else 1.7)
    axes = figure.add_subplot()
    draw_maze(axes, maze, np.array(maze.goal if target is None else target, np.float64))
    if density is not None:
        shown = _draw_density(axes, density, height, width)
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label("steps in a square of 5 cm", fontsize=8.5, color=style.MUTED)
        bar.ax.tick_params(labelsize=8, color=style.RULE, labelcolor=style.INK)
        bar.outline.set_edgecolor(style.RULE)
    _draw_ways(axes, plans, paths)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=style.INK)
    with cache.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, facecolor="white")


def save_each(
    path: str | Path,
    task: tasks.TaskSpec,
    ways: Mapping[str, tuple[Sequence[Positions], Sequence[Positions]]],
    *,
    title: str = "",
) -> None:
    """Draw a maze for each way of planning, all from the same starts, into one PNG file.

    Args:
        path: of the file.
        task: a Maze2d task.
        ways: name -> plans, dashed, and the paths that were gone; the i-th of each from one start.
        title: of the whole.

    Raises:
        UserError: as `save`.
    """
    layout = maze2d.of_task(task)
    height, width = len(layout.rows), len(layout.rows[0])
    across = min(len(ways), 3 if width > height else 4)
    down = -(-len(ways) // across)
    panel = 3.0 * (width - 1.4) / (height - 1.4), 3.0
    figure = Figure(
        figsize=(across * (panel[0] + 0.2), down * (panel[1] + 0.4) + 0.5), layout="constrained"
    )
    for axes, (name, (plans, paths)) in zip(
        figure.subplots(down, across, squeeze=False).flat, ways.items(), strict=False
    ):
        draw_maze(axes, layout, np.array(layout.goal, np.float64))
        axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
        axes.set_title(name, loc="left", fontsize=10, color=style.INK)
        _draw_ways(axes, plans, paths)
    for axes in figure.axes[len(ways) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=style.INK)
    with cache.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90, facecolor="white")


def save_density(
    path: str | Path, transitions: Transitions, task: tasks.TaskSpec, source: str
) -> None:
    """Draw where a dataset has been into a PNG file; `source` is the label of the data."""
    title = f"{task.name}: {len(transitions.rewards):,} steps\ndata: {source}"
    save(path, task, density=transitions.observations[:, :2], title=title)


def save_gif(
    path: str | Path,
    task: tasks.TaskSpec,
    positions: Positions,
    *,
    plans: Sequence[Positions] = (),
    rewards: Float[np.ndarray, " n"] | None = None,
    title: str = "",
    fps: int = 20,
) -> None:
    """Animate an episode in real time: the ball, its trail, and the plan it follows.

    Args:
        path: of the GIF file.
        task: a Maze2d task.
        positions: after each step.
        plans: what was being followed at each step; () for none.
        rewards: of each step; if given, the caption carries the return so far.
        title: the caption's first phrase.
        fps: frames a second, as near as whole steps allow.

    Raises:
        UserError: as `save`.
    """
    maze = maze2d.of_task(task)
    height, width = len(maze.rows), len(maze.rows[0])
    figure = _figure(height, width, 3.6)
    figure.set_dpi(100)
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, 0.94))  # the rest is the caption's
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_maze(axes, maze, np.array(maze.goal, np.float64))
    canvas.draw()
    empty = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

    def pixels(places: Positions) -> list[tuple[float, float]]:
        across, up = axes.transData.transform(places[:, ::-1]).T
        return list(zip(across.tolist(), (empty.height - up).tolist(), strict=True))

    radius = maze2d.RADIUS * np.diff(axes.transData.transform([(0, 0), (1, 0)])[:, 0])[0]
    stride = max(1, round(1 / (fps * maze2d.TIMESTEP)))
    frames = []
    for step in range(0, len(positions), stride):
        frame = empty.copy()
        draw = ImageDraw.Draw(frame)
        if len(plans):
            for place in pixels(plans[step]):
                draw.circle(place, 1.2, style.color("student"))
        draw.line(pixels(positions[: step + 1]), style.color("teacher"), 2)
        draw.circle(pixels(positions[step : step + 1])[0], radius, style.color("teacher"))
        phrase = f"{title}   step {step + 1}"
        if rewards is not None:
            phrase += f"   return {rewards[: step + 1].sum():.0f}"
        draw.text((10, 5), phrase, style.INK, font_size=12)
        frames.append(frame)
    palette = frames[len(frames) // 2].quantize(48, kmeans=1)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [round(1000 * stride * maze2d.TIMESTEP)] * (len(frames) - 1) + [1500]
    with cache.atomic(path) as temporary:
        frames[0].save(
            temporary, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0
        )


def _draw_ways(axes: Axes, plans: Sequence[Positions], paths: Sequence[Positions]) -> None:
    """Draw plans dashed, paths with a dot where they begin."""
    dashed: dict[str, Any] = {"ls": (0, (3, 2)), "lw": 0.9, "alpha": 0.8}
    solid: dict[str, Any] = {"lw": 1.8}
    for ways, look in ((plans, dashed), (paths, solid)):
        for way, color in zip(ways, itertools.cycle(_PATHS), strict=False):
            axes.plot(way[:, 1], way[:, 0], color=color, solid_capstyle="round", **look)
    for way, color in zip(paths, itertools.cycle(_PATHS), strict=False):
        axes.plot(way[0, 1], way[0, 0], "o", color=color, mec="white", ms=6, zorder=4)


def draw_maze(axes: Axes, maze: maze2d.Maze, target: Float[np.ndarray, "2"]) -> None:
    """Draw walls, and the disk within which the reward is 1."""
    for i, row in enumerate(maze.rows):
        for j, tile in enumerate(row):
            if tile == "#":  # its box begins 0.7 before the integer position
                axes.add_patch(Rectangle((j - 0.7, i - 0.7), 1, 1, color=_WALL, lw=0.5))
    look = {"fc": "none", "ec": style.color("student"), "lw": 1.4, "zorder": 3}
    axes.add_patch(Circle((target[1], target[0]), maze2d.GOAL_RADIUS, ls=":", **look))
    axes.plot(target[1], target[0], "*", color=style.color("student"), ms=11, mec="white", zorder=4)
    height, width = len(maze.rows), len(maze.rows[0])
    # Of the walls all around a third is enough.
    axes.set(xlim=(0.0, width - 1.4), ylim=(height - 1.4, 0.0), aspect="equal")
    axes.set_xticks(range(1, width - 1))
    axes.set_yticks(range(1, height - 1))
    axes.set_xlabel("y (column)", fontsize=8.5, color=style.MUTED)
    axes.set_ylabel("x (row)", fontsize=8.5, color=style.MUTED)
    axes.tick_params(labelsize=8, color=style.RULE, labelcolor=style.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _figure(height: int, width: int, size: float, margin: float = 0.9) -> Figure:
    """Return an empty figure, the maze's longer side `size` inches, `margin` beside it."""
    scale = size / (max(height, width) - 1.4)
    inches = (width - 1.4) * scale + margin, (height - 1.4) * scale + 0.8
    return Figure(figsize=inches, layout="constrained")


def _draw_density(axes: Axes, positions: Positions, height: int, width: int):
    edges = [np.arange(round(n / BIN) + 1) * BIN - 0.7 for n in (height, width)]
    count, *_ = np.histogram2d(positions[:, 0], positions[:, 1], bins=edges)
    norm = LogNorm(1, max(count.max(), 2.0))
    return axes.pcolormesh(edges[1], edges[0], np.ma.masked_less(count, 1), cmap="Blues", norm=norm)
