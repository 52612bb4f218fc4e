"""What a dataset looks like: its numbers beside the published ones, and histograms.

A task family that has something else to look at, as Maze2d has its map, has a drawing in `MAPS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from rich import box
from rich.table import Table

from ractd_jax.data import episodes
from ractd_jax.data.d4rl import Published
from ractd_jax.report import maze, plots, style
from ractd_jax.tasks import TaskSpec

# family (the task's name up to its first hyphen) -> `(path of a PNG, transitions, task, label of
# the source)` draws it
MAPS: dict[str, Callable[[Path, episodes.Transitions, TaskSpec, str], None]] = {
    "maze2d": maze.save_density
}

ROWS = {
    "trajectories": ",d",
    "steps": ",d",
    "return_mean": ",.1f",
    "return_std": ",.1f",
    "return_max": ",.1f",
    "return_min": ",.1f",
}


def facts_table(facts: dict[str, Any], published: Published | None) -> Table:
    """Return the table of a dataset's numbers, beside D4RL's where they are published.

    Args:
        facts: from `data.statistics.inspect`.
        published: of D4RL's own set of this name.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("complete episodes", no_wrap=True)
    table.add_column("here", justify="right")
    if published:
        table.add_column("D4RL's", justify="right")
        table.add_column("difference", justify="right")
    for name, form in ROWS.items():
        row = [name.replace("_", " "), format(facts[name], form)]
        if published:
            known = getattr(published, name)
            apart = format((facts[name] - known) / abs(known), "+.1%")
            # The smallest return lies about 0, where a ratio says nothing.
            row += [format(known, form), "" if name == "return_min" else apart]
        table.add_row(*row)
    return table


def histograms(
    path: str | Path, transitions: episodes.Transitions, task: TaskSpec, title: str
) -> None:
    """Draw how returns, rewards and each action dimension are distributed.

    Args:
        path: of the PNG file.
        transitions: complete episodes.
        task: names the action limits.
        title: says the task and the source.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=style.INK)
    left, middle, right = figure.subplots(1, 3)
    returns = episodes.returns(transitions)
    _bars(left, returns, "Returns", "sum of an episode's rewards", "episodes")
    left.axvline(returns.mean(), color=style.INK, lw=1.3)
    left.annotate(
        f"mean {returns.mean():,.1f}",
        (returns.mean(), 1),
        (4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=style.INK,
    )
    _bars(middle, transitions.rewards, "Rewards", "reward of a step", "steps (log scale)")
    middle.set_yscale("log")
    middle.set_ylim(bottom=0.7)  # a bar's height counts from one step, however rare the others are

    low, high = task.action_limits()
    span = np.where(high > low, high - low, 1.0)
    dims = (2 * (transitions.actions - low) / span - 1).T
    edges = np.linspace(-1 - 1e-6, 1 + 1e-6, 61)
    for i, values in enumerate(dims[:12]):  # more lines than that say nothing
        color = plots.TERMS[i % len(plots.TERMS)]
        right.hist(
            values,
            edges,
            histtype="step",
            color=color,
            lw=1.2,
            ls="-" if i < 6 else "--",
            label=f"dim {i}",
        )
    for limit in (-1, 1):
        right.axvline(limit, color=style.MUTED, lw=0.8, ls=":")
    right.set_xlim(-1.05, 1.05)
    more = f", first 12 of {len(dims)} dimensions" if len(dims) > 12 else ""
    unit = (low == -1).all() and (high == 1).all()
    xlabel = "action" if unit else "action, its limits at -1 and 1"
    plots.dress(right, f"Actions{more}", xlabel, "y")
    right.set_ylabel("steps", fontsize=9.5, color=style.MUTED)
    right.yaxis.set_major_formatter(EngFormatter(sep=""))
    look = {"fontsize": 8, "frameon": False, "ncols": 2 if len(dims) > 4 else 1}
    lines = [Line2D([], [], color=p.get_edgecolor(), ls=p.get_linestyle()) for p in right.patches]
    right.legend(lines, [p.get_label() for p in right.patches], loc="upper center", **look)
    plots.save(figure, path)


def _bars(axes: Axes, values: np.ndarray, title: str, xlabel: str, ylabel: str) -> None:
    axes.hist(values, 60, color=style.color("dataset"))
    plots.dress(axes, title, xlabel, "y")
    axes.set_ylabel(ylabel, fontsize=9.5, color=style.MUTED)
    for axis, largest in ((axes.xaxis, np.abs(values).max()), (axes.yaxis, axes.get_ylim()[1])):
        if largest >= 1000:
            axis.set_major_formatter(EngFormatter(sep=""))
