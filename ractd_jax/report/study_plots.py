"""Figures of a study: scores by task, aggregates, performance profiles, score against time."""

import numpy as np
from matplotlib.figure import Figure

from ractd_jax.report import plots, study, style

Scores = dict[study.Method, list[np.ndarray]]  # method -> scores of the seeds of each task


def by_task(runs: Scores, tasks: list[str]) -> Figure:
    """Draw every training seed's score as a dot and the mean as a bar, a panel a task."""
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    height = 0.7 + 0.24 * len(runs)
    figure = Figure(figsize=(3.9 * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (panel, task) in enumerate(zip(panels, tasks, strict=False)):
        for row, (method, seeds) in enumerate(runs.items()):
            color, values = style.color(method.stage), seeds[i]
            if len(values):
                panel.barh(-row, values.mean(), 0.66, color=color, alpha=0.35, lw=0)
                panel.plot(values, np.full(len(values), -row), "o", color=color, ms=3.6)
        first = i % columns == 0
        names = [method.label for method in runs] if first else [""] * len(runs)
        panel.set_yticks([-row for row in range(len(runs))], names)
        plots.dress(panel, task.removesuffix("-v2"), "", grid="x")
        panel.set_ylim(0.6 - len(runs), 0.6)  # methods that are missing keep their row
        panel.tick_params(axis="y", length=0)
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    return figure


def aggregates(runs: Scores) -> Figure:
    """Draw mean and interquartile mean over all tasks with their 95 % bootstrap intervals."""
    figure = Figure(figsize=(8.4, 0.9 + 0.3 * len(runs)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (title, statistic) in zip(
        panels, (("mean score", study.mean), ("interquartile mean", study.iqm)), strict=True
    ):
        for row, (method, seeds) in enumerate(runs.items()):
            low, high = study.interval(statistic, seeds)
            color = style.color(method.stage)
            panel.plot([low, high], [-row, -row], color=color, lw=7, alpha=0.35)
            panel.plot(statistic(seeds), -row, "o", color=color, ms=5.5)
        panel.set_yticks([-row for row in range(len(runs))], [m.label for m in runs])
        plots.dress(panel, title, "normalised score, 95 % interval over training seeds", grid="x")
    return figure


def profiles(runs: Scores) -> Figure:
    """Draw the share of runs above each score."""
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    top = max(float(np.concatenate(seeds).max()) for seeds in runs.values())
    levels = np.linspace(0, top, 200)
    for method, seeds in runs.items():
        share = study.profile(seeds, levels)
        axes.plot(levels, share, color=style.color(method.stage), lw=1.8, label=method.label)
    plots.dress(axes, "share of runs that score more", "normalised score", grid="both")
    axes.legend(fontsize=8.5, frameon=False)
    return figure


def trade_off(entries: list[study.Entry], runs: Scores) -> Figure:
    """Draw mean score against the time of one decision (both over all tasks)."""
    figure = Figure(figsize=(6.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for method, seeds in runs.items():
        times = [e["action_ms"] for e in entries if study.method(e) == method and e["action_ms"]]
        if not times:
            continue
        x, y, color = float(np.median(times)), study.mean(seeds), style.color(method.stage)
        axes.plot(x, y, "o", color=color, ms=7)
        axes.annotate(
            method.label, (x, y), (7, 3), textcoords="offset points", fontsize=8.5, color=style.INK
        )
    axes.set_xscale("log")
    axes.margins(0.2, 0.15)
    plots.dress(axes, "score and speed", "milliseconds a decision, batch 1 (log)", grid="both")
    axes.set_ylabel("mean score", fontsize=9.5, color=style.MUTED)
    return figure
