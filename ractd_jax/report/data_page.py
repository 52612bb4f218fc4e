"""The page of a dataset: histograms, a row for every dimension, and a few episodes as they ran."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import EngFormatter

from ractd_jax.data import episodes
from ractd_jax.data.dimensions import Dimension
from ractd_jax.report import plots, style
from ractd_jax.tasks import TaskSpec

ROWS = 40  # of the table at most; dimensions with a note come first
CURVES = 6  # dimensions of which episodes are drawn
ACTIONS = 12  # of which histograms are drawn
POINTS = 2000  # of a curve at most
WIDTH, ROW = 14.0, 0.21  # inches
# Of the table: where a column stands, its head, and how it is aligned.
COLUMNS = (
    (0.0, "dimension", "left"),
    (0.255, "smallest", "right"),
    (0.325, "1 %", "right"),
    (0.395, "median", "right"),
    (0.465, "99 %", "right"),
    (0.535, "largest", "right"),
    (0.745, "at low", "right"),
    (0.795, "at high", "right"),
    (0.84, "jumps", "right"),
    (0.855, "note", "left"),
)
BAR = (0.55, 0.70)  # of the table's width: the range, and the quantiles in it


def save(
    path: str | Path,
    recorded: episodes.Transitions,
    task: TaskSpec,
    title: str,
    described: Sequence[Dimension],
) -> None:
    """Draw the page.

    Args:
        path: of the PNG file.
        recorded: complete episodes.
        task: names the action limits.
        title: says the task and the source.
        described: its dimensions, from `data.dimensions.describe`.
    """
    shown = sorted(described, key=lambda d: not d.notes)[:ROWS]
    shown = [d for d in described if d in shown]
    heights = [2.6, ROW * (len(shown) + 3), 3.6]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.9), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=style.INK)
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    top, middle, bottom = parts
    _histograms(list(top.subplots(1, 5, width_ratios=(1, 1, 1, 1, 0.28))), recorded, task)
    _table(middle.subplots(), shown, len(described))
    _curves(bottom, recorded, [d for d in described if d.column == "observations"])
    plots.save(figure, path)


# ---- histograms ----------------------------------------------------------------------------------


def _histograms(panels: Sequence[Axes], recorded: episodes.Transitions, task: TaskSpec) -> None:
    left, lengths, rewards, actions, legend = panels
    returns = episodes.returns(recorded)
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
    _bars(lengths, episodes.lengths(recorded), "Lengths", "steps of an episode", "episodes")
    _bars(rewards, recorded.rewards, "Rewards", "reward of a step", "steps (log scale)")
    rewards.set_yscale("log")
    rewards.set_ylim(bottom=0.7)  # a bar's height counts from one step, however rare the others are

    low, high = task.action_limits()
    span = np.where(high > low, high - low, 1.0)
    scaled = (2 * (recorded.actions - low) / span - 1).T
    edges = np.linspace(-1 - 1e-6, 1 + 1e-6, 61).tolist()
    for i, values in enumerate(scaled[:ACTIONS]):  # more lines than that say nothing
        color, dash = plots.TERMS[i % len(plots.TERMS)], "-" if i < len(plots.TERMS) else "--"
        actions.hist(values, edges, histtype="step", color=color, lw=1.2, ls=dash)
        legend.plot([], [], color=color, ls=dash, label=f"dimension {i}")
    for limit in (-1, 1):
        actions.axvline(limit, color=style.MUTED, lw=0.8, ls=":")
    actions.set_xlim(-1.05, 1.05)
    unit = (low == -1).all() and (high == 1).all()
    more = f", first {ACTIONS} of {len(scaled)}" if len(scaled) > ACTIONS else ""
    plots.dress(actions, f"Actions{more}", "action" if unit else "action, limits at -1 and 1", "y")
    actions.set_ylabel("steps", fontsize=9.5, color=style.MUTED)
    actions.yaxis.set_major_formatter(EngFormatter(sep=""))
    _beside(legend)


def _bars(axes: Axes, values: np.ndarray, title: str, xlabel: str, ylabel: str) -> None:
    axes.hist(values, 60, color=style.color("dataset"))
    plots.dress(axes, title, xlabel, "y")
    axes.set_ylabel(ylabel, fontsize=9.5, color=style.MUTED)
    for axis, largest in ((axes.xaxis, np.abs(values).max()), (axes.yaxis, axes.get_ylim()[1])):
        if largest >= 1000:
            axis.set_major_formatter(EngFormatter(sep=""))


def _beside(axes: Axes) -> None:
    """Make axes the legend of the panel to their left."""
    axes.axis("off")
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.5), fontsize=8, frameon=False)


# ---- the table of dimensions ---------------------------------------------------------------------


def _table(axes: Axes, shown: Sequence[Dimension], count: int) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shown) + 0.3, -1.2)
    axes.axis("off")
    more = f", {len(shown)} of {count} (all are in data.json)" if len(shown) < count else ""
    axes.set_title(f"Dimensions{more}", loc="left", fontsize=11, fontweight="bold", color=style.INK)
    for x, text, align in COLUMNS:
        axes.text(x, -0.6, text, ha=align, va="center", fontsize=8.5, color=style.MUTED)
    middle = sum(BAR) / 2
    head = "range, 1 to 99 % in it"
    axes.text(middle, -0.6, head, ha="center", va="center", fontsize=8.5, color=style.MUTED)
    axes.axhline(-0.05, color=style.RULE, lw=0.8)
    for row, dimension in enumerate(shown):
        _row(axes, row + 0.45, dimension)


def _row(axes: Axes, y: float, d: Dimension) -> None:
    kind = "obs" if d.column == "observations" else "act"
    size, span = max(abs(d.low), abs(d.high)), d.high - d.low
    digits = 4 + max(0, int(np.log10(size / span))) if span else 4  # so that they differ
    cells = (
        f"{kind} {d.index}  {d.name[:24]}",
        *(f"{v:.{digits}g}" for v in (d.low, *d.quantiles, d.high)),
        f"{d.at_low:.1%}",
        f"{d.at_high:.1%}",
        f"{d.jumps:,}" if d.column == "observations" else "",
        _short(d),
    )
    color = plots.TERMS[4] if d.notes else style.INK
    for (x, _, align), text in zip(COLUMNS, cells, strict=True):
        axes.text(x, y, text, ha=align, va="center", fontsize=8.5, color=color)
    start, end = BAR
    if d.high > d.low:
        scale = (end - start) / (d.high - d.low)
        first, middle, last = (start + scale * (q - d.low) for q in d.quantiles)
        axes.plot([start, end], [y, y], color=style.RULE, lw=1.2, solid_capstyle="butt")
        axes.plot([first, last], [y, y], color=style.color("dataset"), lw=5, solid_capstyle="butt")
        axes.plot([middle], [y], "|", color=style.INK, ms=6)


def _short(d: Dimension) -> str:
    """Return the kinds of a dimension's notes; the command prints them whole."""
    if d.low == d.high:
        return "never changes"
    return ", ".join(d.kinds)


# ---- a few episodes ------------------------------------------------------------------------------


def _curves(
    figure: FigureBase, recorded: episodes.Transitions, described: Sequence[Dimension]
) -> None:
    """Draw a few dimensions over the steps of three episodes: of least, median and best return."""
    moving = [d for d in described if d.high > d.low]
    chosen = sorted(sorted(moving, key=lambda d: not d.notes)[:CURVES], key=lambda d: d.index)
    returns, lengths = episodes.returns(recorded), episodes.lengths(recorded)
    order, starts = np.argsort(returns, kind="stable"), np.cumsum(lengths) - lengths
    picked = dict.fromkeys((int(order[-1]), int(order[len(order) // 2]), int(order[0])))
    columns = max(1, -(-len(chosen) // 2))
    panels = figure.subplots(
        2, columns + 1, squeeze=False, width_ratios=(*[1] * columns, 0.45 * columns / 3)
    )
    grid = list(panels[:, :-1].T.flat)
    for axes, d in zip(grid, chosen, strict=False):
        for color, episode in zip(plots.TERMS, picked, strict=False):
            first, length = starts[episode], lengths[episode]
            steps = np.arange(0, length, max(1, length // POINTS))
            values = recorded.observations[first + steps, d.index]
            axes.plot(steps, values, color=color, lw=0.9, marker="." if length < 3 else "")
        plots.dress(axes, f"obs {d.index}  {d.name[:24]}", "step", "y")
        axes.title.set_fontsize(9.5)
    for axes in (*grid[len(chosen) :], panels[1, -1]):
        axes.axis("off")
    for color, episode in zip(plots.TERMS, picked, strict=False):
        label = f"episode {episode:,}\nreturn {returns[episode]:,.4g}"
        panels[0, -1].plot([], [], color=color, label=label)
    _beside(panels[0, -1])
