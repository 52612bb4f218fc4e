"""Figures of a run: learning curves, distributions of scores, milliseconds per action.

Drawn with matplotlib's object-oriented API: no display, no global state, safe in any process.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from ractd_jax import errors
from ractd_jax.data import cache
from ractd_jax.report import style

_DPI = 150
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")  # 0.02, not 2 x 10^-2
TERMS = ("#3d74b8", "#e39a2d", "#2a9d8f", "#8c6bb1", "#c8384f", "#7a5c45")
# Scalars that a run logs beside its loss terms.
_NOT_LOSSES = ("step", "seconds", "per_second", "speed", "lr", "learning_rate", "norm", "epoch")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`, in the order of their steps.

    A run that is killed while it writes leaves a cut line, which is left out. One that resumes from
    an earlier checkpoint repeats some steps; the later record of a step counts.

    Raises:
        UserError: if the file is missing or holds no record at all.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.UserError(f"no metrics at {path}; has this stage been trained?")
    records: list[dict[str, Any]] = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            step = record["step"]
        except (ValueError, KeyError, TypeError):
            continue
        while records and records[-1]["step"] >= step:
            records.pop()
        records.append(record)
    if not records:
        raise errors.UserError(f"{path} holds no record of metrics")
    return records


def learning_curves(path: str | Path, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the loss terms of each stage over its updates, one panel a stage.

    Terms that stay positive share a logarithmic axis on the left; others, such as a reward, have a
    linear one on the right and dashed lines.

    Args:
        path: of the PNG file.
        runs: stage -> records of `read_metrics`, each with `step` and named scalars.
    """
    columns = min(2, max(1, len(runs)))
    rows = max(1, math.ceil(len(runs) / columns))
    figure = Figure(figsize=(5.6 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (stage, records) in zip(panels, runs.items(), strict=False):
        _loss_panel(panel, stage, records)
    for panel in panels[len(runs) :]:
        panel.set_axis_off()
    save(figure, path)


def return_distributions(path: str | Path, scores: dict[str, np.ndarray], title: str) -> None:
    """Write `distributions` to a PNG file."""
    save(distributions(scores, title), path)


def distributions(scores: dict[str, np.ndarray], title: str) -> Figure:
    """Draw the distribution of episode scores of each policy as a ridge, as in RACTD's Figure 3.

    Every ridge is a kernel density, scaled to the same height; a tick is an episode, the line with
    a dot the mean.

    Args:
        scores: stage -> normalised scores (batch,), drawn from top to bottom.
        title: says the task and the data source.
    """
    figure = Figure(figsize=(7.6, 0.9 + 1.05 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    everything = np.concatenate([np.ravel(values) for values in scores.values()])
    low, high = float(everything.min()), float(everything.max())
    margin = 0.05 * max(high - low, 1.0)
    grid = np.linspace(low - margin, high + margin, 600)
    for row, (stage, values) in enumerate(scores.items()):
        base, color = float(-row), style.color(stage)
        density = _density(np.ravel(values), grid, smallest=margin / 5)
        top = base + 0.6 * density / density.max()
        axes.fill_between(grid, base, top, color=color, alpha=0.28, lw=0)
        axes.plot(grid, top, color=color, lw=1.6)
        strength = float(np.clip(40 / np.size(values), 0.08, 0.8))  # of a tick: many are fainter
        axes.vlines(values, base - 0.13, base - 0.03, color=color, alpha=strength, lw=0.9)
        mean = float(np.mean(values))
        axes.plot([mean, mean], [base, base + 0.73], color=style.INK, lw=1.3)
        axes.plot(mean, base + 0.73, "o", color=color, mec=style.INK, ms=5.5)
        side = 1 if mean < (low + high) / 2 else -1
        axes.annotate(
            f"mean {mean:.1f}",
            (mean, base + 0.73),
            (7 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=9,
            color=style.INK,
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
        )
    names = [f"{style.label(stage)}\n{np.size(v):,} episodes" for stage, v in scores.items()]
    axes.set_yticks([-float(row) for row in range(len(scores))], names)
    axes.set(xlim=(grid[0], grid[-1]), ylim=(-len(scores) + 0.75, 0.95))
    dress(axes, "", "normalised score of an episode", grid="x")
    # Over the whole figure, for long names leave the axes little width.
    look = {"fontsize": 11, "fontweight": "bold", "color": style.INK}
    figure.suptitle(title, x=0.012, ha="left", **look)
    axes.spines["left"].set_visible(False)
    return figure


def latency_bars(path: str | Path, entries: Sequence[dict[str, Any]]) -> None:
    """Draw milliseconds per action at batch 1 as bars, slowest on top, against the student's.

    Args:
        path: of the PNG file.
        entries: dicts with `stage`, `nfe` and `action_ms`, as in eval.json; entries whose
            `action_ms` is None (a dataset) are left out.
    """
    timed = sorted((e for e in entries if e["action_ms"]), key=lambda e: e["action_ms"])
    figure = Figure(figsize=(7.2, 1.3 + 0.55 * len(timed)), layout="constrained")
    axes = figure.add_subplot()
    times = [float(entry["action_ms"]) for entry in timed]
    unit = next((e["action_ms"] for e in timed if e["stage"] == "student"), None)
    colors = [style.color(entry["stage"]) for entry in timed]
    left = min(times, default=1.0) / 3  # a logarithmic bar has no zero to start from
    right = max(times, default=1.0) ** 1.6 / left**0.6  # leaves a third of the width to the labels
    axes.barh(range(len(timed)), [t - left for t in times], 0.62, left=left, color=colors)
    for row, (entry, time) in enumerate(zip(timed, times, strict=True)):
        ratio = f"   {time / unit:.3g} x student" if unit and entry["stage"] != "student" else ""
        axes.annotate(
            f"{time:.3g} ms{ratio}",
            (time, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=style.INK,
        )
    axes.set_yticks(
        range(len(timed)),
        [f"{style.label(e['stage'].partition(',')[0])}\nNFE {e['nfe']}" for e in timed],
    )
    axes.set(xscale="log", xlim=(left, right))
    axes.xaxis.set_major_formatter(_PLAIN)
    decided = next((entry["decides"] for entry in timed if "decides" in entry), "action")
    dress(axes, f"Time to decide one {decided}", "milliseconds, batch 1 (log scale)", grid="x")
    axes.tick_params(axis="y", length=0)
    save(figure, path)


def _loss_panel(panel: Axes, stage: str, records: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    names = [n for n in names if not any(n == x or n.endswith(f"_{x}") for x in _NOT_LOSSES)]
    right, lines = None, []
    for index, name in enumerate(names):
        points = [(r["step"], r[name]) for r in records if isinstance(r.get(name), int | float)]
        steps, values = np.array(points, float).reshape(-1, 2).T
        if not np.isfinite(values).any():
            continue
        positive = bool((values > 0).all())
        if not positive and right is None:
            right = panel.twinx()
        axes = panel if positive or right is None else right
        look: dict[str, Any] = {"color": TERMS[index % len(TERMS)], "ls": "-" if positive else "--"}
        smooth = _smooth(values)
        if smooth is not values:
            faint: dict[str, Any] = {**look, "ls": "-", "lw": 0.7, "alpha": 0.3}
            axes.plot(steps, values, **faint)
        note = name if positive else f"{name} (right)"
        lines += axes.plot(steps, smooth, **look, lw=1.7, label=note)
        if positive:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(_PLAIN)
            panel.yaxis.set_minor_locator(NullLocator())
    dress(panel, style.label(stage), "updates", grid="both")
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if right is not None:
        dress(right, "", "", grid="")
        right.spines["right"].set_visible(True)
    if lines:
        above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        compact = {"fontsize": 8.5, "frameon": False, "handlelength": 1.3, "columnspacing": 1.2}
        panel.legend(handles=lines, ncols=min(3, len(lines)), **above, **compact)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return a centred moving average over 1/20 of the record; a short one as it is."""
    width = len(values) // 20
    if width < 2:
        return values
    window = np.ones(2 * (width // 2) + 1)
    counts = np.convolve(np.ones_like(values), window, "same")
    return np.convolve(values, window, "same") / counts


def _density(values: np.ndarray, grid: np.ndarray, smallest: float) -> np.ndarray:
    """Return a Gaussian kernel density on the grid, with half of Silverman's bandwidth.

    Returns of an agent that falls have several modes, which the full bandwidth would wash out.
    """
    quarter, three = np.percentile(values, [25, 75])
    spread = min(float(values.std()), float(three - quarter) / 1.34)
    width = max(0.45 * spread * values.size**-0.2, smallest)
    return np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(1)


def dress(axes: Axes, title: str, xlabel: str, grid: Literal["x", "y", "both", ""]) -> None:
    """Give axes the house's look.

    Args:
        axes: what to dress.
        title: above, to the left.
        xlabel: below.
        grid: "x", "y", "both", or "" for no lines.
    """
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=style.INK)
    axes.set_xlabel(xlabel, fontsize=9.5, color=style.MUTED)
    axes.tick_params(which="both", labelsize=9, color=style.RULE, labelcolor=style.INK)
    for spine in axes.spines.values():
        spine.set_color(style.RULE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=style.RULE, lw=0.6)


def note(figure: Figure, text: str) -> None:
    """Write a line below a figure, small and to the right; "" writes none."""
    if text:
        figure.supxlabel(text, x=0.995, ha="right", fontsize=7.5, color=style.MUTED)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, which appears once complete; its folder is made if need be.

    Raises:
        UserError: the file cannot be written.
    """
    with cache.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor="white")
