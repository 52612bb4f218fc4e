"""The command `data`: fetch or make a dataset, say and draw what it holds, train nothing.

Writes `data.json` and `figures/data.png` into the pipeline's folder; a Maze2d task's map, or what
else `report.data.MAPS` knows, as `figures/map.png`.
"""

import dataclasses
from typing import Any

import numpy as np

from ractd_jax.data import d4rl, dimensions, labels, sources, statistics
from ractd_jax.report import data as report
from ractd_jax.report import data_page
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline


def show(pipeline: Pipeline) -> dict[str, Any]:
    """Print the facts and what deserves a second look, draw the figures; return the facts.

    Raises:
        UserError: the data cannot be had, read or used.
    """
    transitions, task = pipeline.recorded.episodes, pipeline.task
    source = labels.label(pipeline.config.source, pipeline.task)
    facts = statistics.inspect(transitions, task)
    settings = pipeline.config.data
    horizon = settings.horizon if task.kind == "policy" else 1  # plans go on from way to way
    remarks = statistics.remarks(facts, horizon, settings.termination_penalty)
    described = dimensions.describe(
        transitions, task, sources.dimension_names(pipeline.config.source)
    )
    remarks += [note for dimension in described for note in dimension.notes]
    title = f"{task.name}   data: {source}"
    pipeline.progress.console.print(report.facts_table(facts, d4rl.PUBLISHED.get(task.name)))
    for line in (
        f"episodes: {facts['length_min']:,} to {facts['length_max']:,} steps, mean "
        f"{facts['length_mean']:,.1f}; {facts['terminals']:,} end in a terminal, "
        f"{facts['timeouts']:,} in a timeout",
        f"observations: {transitions.observations.shape[1]} numbers, all finite",
        f"actions: {transitions.actions.shape[1]} numbers, "
        f"{_pairs(transitions.actions.min(axis=0), transitions.actions.max(axis=0))}; within their "
        f"limits {_pairs(*task.action_limits())}; {facts['actions_at_limit']:.1%} at one",
        f"rewards: {facts['reward_min']:.4g} to {facts['reward_max']:.4g}, mean "
        f"{facts['reward_mean']:.4g}",
        *(f"note: {remark}" for remark in remarks),
    ):
        pipeline.say(line)

    sheet, folder = pipeline.workdir / "data.json", pipeline.workdir / "figures"
    known = {name: value for name, value in facts.items() if value == value}  # no score, no NaN
    about = {"task": task.name, "source": source, "facts": known, "remarks": remarks}
    about["dimensions"] = [dataclasses.asdict(dimension) for dimension in described]
    checkpoints.write_json(sheet, about)
    data_page.save(folder / "data.png", transitions, task, title, described)
    written = [sheet, folder / "data.png"]
    if draw := report.MAPS.get(task.name.split("-")[0]):
        draw(folder / "map.png", transitions, task, source)
        written.append(folder / "map.png")
    for path in written:
        pipeline.say(f"wrote {path}")
    return facts


def _pairs(low: np.ndarray, high: np.ndarray) -> str:
    """Return the ranges of all dimensions, or the range over all of them where they are many."""
    if len(low) > 4:
        return f"{low.min():.4g} to {high.max():.4g}"
    return ", ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True))
