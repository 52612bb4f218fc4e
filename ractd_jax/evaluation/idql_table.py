"""The table of Consistency-IDQL: its samplers at 1, 2 and 4 network calls, alone and chosen from.

It has the shape of the table in CleanDiffuser's tutorial on consistency policies. The tutorial's
scores stand beside: HalfCheetah, D4RL's data, the mean of 150 episodes of one trained model, each
action drawn by IQL out of 256 candidates. The protocol here is that of `evaluation`.
"""

from typing import Any

from rich import box
from rich.table import Table

from ractd_jax.config import Config
from ractd_jax.errors import UserError
from ractd_jax.evaluation import finished, policies
from ractd_jax.evaluation.rows import EvalRow, parse_row
from ractd_jax.report import style
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline

SAMPLERS = ("edm_bc", "cd", "ct")
# task: sampler: score by network calls
PUBLISHED = {
    "halfcheetah-medium-expert-v2": {
        "edm_bc": {1: 44.1, 2: 93.2, 4: 92.8},
        "cd": {1: 46.0, 2: 73.3, 4: 58.6},
        "ct": {1: 44.6, 2: 38.6, 4: 37.7},
    },
    "halfcheetah-medium-v2": {
        "edm_bc": {1: 49.9, 2: 44.7, 4: 49.7},
        "cd": {1: 50.6, 2: 52.2, 4: 53.3},
        "ct": {1: 53.2, 2: 54.0, 4: 54.1},
    },
    "halfcheetah-medium-replay-v2": {
        "edm_bc": {1: 43.8, 2: 42.8, 4: 46.3},
        "cd": {1: 42.2, 2: 47.8, 4: 48.3},
        "ct": {1: 46.7, 2: 48.5, 4: 48.7},
    },
}


def show(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Evaluate all of it, print the table, write idql.json.

    Raises:
        UserError: the task has no models of single actions, one of them or the critic is not
            trained, or they normalise observations differently.
    """
    for stage in ("iql", *SAMPLERS):
        if stage not in pipeline.config.stages:
            has = ", ".join(pipeline.config.stages)
            raise UserError(f"{pipeline.task.name} has no stage {stage}: it has {has}")
        finished.require(pipeline, stage, "idql_eval")
    published = PUBLISHED.get(pipeline.task.name, {})
    entries = []
    for row in rows(pipeline.config):
        entry = policies.evaluate_row(pipeline, row)
        score = published.get(row.stage, {}).get(row.nfe) if row.candidates > 1 else None
        entries.append(entry | {"published": score})
    path = pipeline.workdir / "idql.json"
    checkpoints.write_json(path, entries)
    pipeline.progress.console.print(table(entries))
    pipeline.say(f"wrote {path}")
    return entries


def rows(config: Config) -> list[EvalRow]:
    """Return the rows of the table: each sampler, one candidate and many, by network calls."""
    result = []
    for stage in SAMPLERS:
        for candidates in dict.fromkeys((1, config.idql_eval.candidates)):
            for calls in config.idql_eval.nfe:
                how = f"solver=euler sample_bins={calls + 1}"
                how = how if stage == "edm_bc" else f"nfe={calls}"
                result.append(parse_row(config, f"{stage} {how} candidates={candidates}"))
    return result


def table(entries: list[dict[str, Any]]) -> Table:
    """Return the table of some of `evaluate`'s entries."""
    first, calls = entries[0], list(dict.fromkeys(entry["nfe"] for entry in entries))
    by_sampler = {(e["model"], e["candidates"], e["nfe"]): e for e in entries}
    published = any(entry["published"] for entry in entries)
    result = Table(
        title=f"{first['task']}   data: {first['source']}",
        caption=(
            f"physics: {first['physics']}; "
            f"mean score of {len(first['seeds'])} episodes by network calls; size "
            f"{first['size']}, preset {first['preset']}, checkpoint: {first['selection']}"
            + ("\npublished: CleanDiffuser, D4RL's data, 1 of 256, 150 episodes" * published)
        ),
        title_style="bold",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    result.add_column("\nsampler", no_wrap=True)
    result.add_column("candi-\ndates", justify="right")
    for n in calls:
        result.add_column(f"NFE\n{n}", justify="right")
    for n in calls * published:
        result.add_column(f"published\n{n}", justify="right")
    for stage, count in dict.fromkeys((e["model"], e["candidates"]) for e in entries):
        row = [by_sampler[stage, count, n] for n in calls]
        beside = [e["published"] for e in row] * published
        result.add_row(
            style.label(stage),
            str(count),
            *(f"{e['score_mean']:.1f}" for e in row),
            *("-" if p is None else f"{p:.1f}" for p in beside),
        )
    return result
