"""Figures of a study: scores by task, aggregates, performance profiles, score against time."""

import numpy as np
from matplotlib.figure import Figure

from ractd_jax import tasks as benchmark
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
        plots.dress(panel, title, "score; band: 95 % over training seeds", grid="x")
    return figure


def profiles(runs: Scores) -> Figure:
    """Draw the share of runs above each score; dashed: chosen from several candidates."""
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    top = max(float(np.concatenate(seeds).max()) for seeds in runs.values())
    levels = np.linspace(0, top, 200)
    for method, seeds in runs.items():
        share = study.profile(seeds, levels)
        axes.plot(
            levels,
            share,
            "--" if (method.candidates or 1) > 1 else "-",
            color=style.color(method.stage),
            lw=2.6 if method.stage == "student" else 1.5,
            label=method.label,
        )
    plots.dress(axes, "share of runs that score more", "normalised score", grid="both")
    figure.legend(fontsize=8.5, frameon=False, loc="outside right upper")  # the lines fill the axes
    return figure


def trade_off(entries: list[study.Entry], runs: Scores) -> Figure:
    """Draw mean score against the time of one decision (both over all tasks)."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    points = []
    for method, seeds in runs.items():
        times = [e["action_ms"] for e in entries if study.method(e) == method and e["action_ms"]]
        if not times:
            continue
        points.append((float(np.median(times)), study.mean(seeds), method.label))
        axes.plot(*points[-1][:2], "o", color=style.color(method.stage), ms=7)
    axes.set_xscale("log")
    axes.margins(0.2, 0.15)
    plots.dress(axes, "score and speed", "milliseconds a decision, batch 1 (log)", grid="both")
    axes.set_ylabel("mean score", fontsize=9.5, color=style.MUTED)
    _name(axes, points)
    return figure


def _name(axes, points: list[tuple[float, float, str]]) -> None:
    """Write each point's name beside it, from the top on, lower where one is in its way."""
    taken: list[tuple[float, float, float]] = []  # left, right and height of names, in pixels
    size, letter = 8.5 * axes.figure.dpi / 72, 0.55
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        left, height = axes.transData.transform((x, y))
        right, wanted = left + letter * size * len(name) + size, height
        while any(a < right and left < b and abs(height - h) < 1.2 * size for a, b, h in taken):
            height -= 0.2 * size
        taken.append((left, right, height))
        down = (height - wanted) * 72 / axes.figure.dpi
        axes.annotate(
            name, (x, y), (7, 3 + down), textcoords="offset points", fontsize=8.5, color=style.INK
        )


def over_training(entries: list[study.Entry]) -> Figure | None:
    """Draw the score of every checkpoint over the updates (RACTD Figure 4): a panel a task.

    A colour is a variant and a way to act; a thin line is a training seed, the thick one their mean
    at the updates that all of them have. None where no entry has the scores of its checkpoints
    (`eval.online`).
    """
    curves = [e for e in entries if "updates" in e]
    if not curves:
        return None
    stages, variants = (len({e[field] for e in curves}) > 1 for field in ("stage", "variant"))
    lines: dict[str, dict[str, list[study.Entry]]] = {}
    for e in curves:
        row = style.label(e["stage"].removesuffix(study.ONLINE))
        variant = e["variant"].partition("/")[2]
        label = ", ".join(filter(None, (variant * (variants or not stages), row * stages)))
        lines.setdefault(label, {}).setdefault(e["task"], []).append(e)
    tasks = [name for name in benchmark.TASKS if any(name in line for line in lines.values())]
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    size = (3.9 * columns, 2.4 * rows) if len(tasks) > 1 else (7.2, 3.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (label, by_task) in enumerate(lines.items()):
        color = plots.TERMS[i % len(plots.TERMS)]
        for task, runs in by_task.items():
            axes = panels[tasks.index(task)]
            points = [dict(zip(run["updates"], run["scores"], strict=True)) for run in runs]
            for curve in points:
                axes.plot([*curve], [*curve.values()], color=color, lw=0.8, alpha=0.4)
            common = sorted(set.intersection(*map(set, points)))
            middle = [np.mean([curve[update] for curve in points]) for update in common]
            axes.plot(common, middle, "o-", color=color, lw=2, ms=4, label=label)
    for i, (axes, task) in enumerate(zip(panels, tasks, strict=False)):
        plots.dress(axes, task.removesuffix("-v2"), "updates", grid="both")
        if i % columns == 0:
            axes.set_ylabel("normalised score", fontsize=9.5, color=style.MUTED)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    if len(lines) > 1:
        handles = {h.get_label(): h for axes in panels for h in axes.get_legend_handles_labels()[0]}
        where = {"loc": "outside lower center", "ncols": 2} if len(tasks) > 1 else {}
        place = figure if len(tasks) > 1 else panels[0]
        place.legend(handles=[*handles.values()], fontsize=8.5, frameon=False, **where)
    return figure


def modes(entries: list[study.Entry], task: str) -> Figure:
    """Draw how the returns of data, teacher and students are distributed (RACTD Figure 3).

    Args:
        entries: of the study, one candidate, some of them of the task.
        task: episodes of all its training seeds are put together.
    """
    of_task, scores = [e for e in entries if e["task"] == task], {}
    for stage in ("dataset", "teacher", "ctd", "student"):
        runs = [e["returns"] for e in of_task if e["stage"] == stage]
        if runs:  # the same data for all seeds
            runs = runs[:1] if stage == "dataset" else runs
            scores[stage] = benchmark.get(task).score(np.concatenate(runs))
    return plots.distributions(scores, f"{task}, {of_task[0]['source'].partition(' (')[0]} data")
