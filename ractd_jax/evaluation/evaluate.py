"""Evaluate what a pipeline has trained, and show it: table, figures, animation.

Protocol: the return of an episode is the plain sum of the environment's rewards to the episode's
own end; episode i starts from seed first_seed + i and is counted once; the score is D4RL's. The
checkpoint is the last one (offline selection), one action is executed of every sampled trajectory.
For the stages of `eval.online` the best of all checkpoints kept is a row too (online selection).
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.config import Config
from ractd_jax.envs import choice
from ractd_jax.evaluation import finished, measure, plans, policies
from ractd_jax.evaluation.rows import EvalRow, acting_stages, parse_row
from ractd_jax.methods import registry
from ractd_jax.report import plots, tables
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline

ONLINE = "best checkpoint (online)"


def evaluate(pipeline: Pipeline, row: EvalRow) -> list[dict[str, Any]]:
    """Return a row's entries: one of a policy, of a planner one for each way to follow plans."""
    if pipeline.task.kind == "planner":
        return plans.evaluate(pipeline, row)
    return [policies.evaluate_row(pipeline, row)]


def evaluate_online(pipeline: Pipeline, stage: str) -> list[dict[str, Any]]:
    """Evaluate every checkpoint of a stage that is kept; return the best one's `evaluate`.

    The episodes that select are those that are reported, as where papers select online: a best
    case, which wants an environment. Each way to follow plans has a best checkpoint of its own.
    `updates` and `scores` of an entry are of all of them.
    """
    updates = checkpoints.steps(pipeline.run(stage))
    if not updates:
        raise errors.UserError(f"eval.online: {pipeline.run(stage)} holds no checkpoint")
    by_update = [
        evaluate(pipeline, parse_row(pipeline.config, f"{stage} update={update}"))
        for update in updates
    ]
    return [_best(stage, updates, entries) for entries in zip(*by_update, strict=True)]


def _best(stage: str, updates: list[int], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    best = max(entries, key=lambda entry: entry["score_mean"])
    manner = best["stage"].removeprefix(best["name"])
    return best | {
        "stage": f"{stage}{manner}, best checkpoint",
        "name": f"{stage}, best checkpoint",
        "selection": ONLINE,
        "updates": updates,
        "scores": [entry["score_mean"] for entry in entries],
    }


def settings_file(summary: pathlib.Path) -> pathlib.Path:
    """Return the file beside a summary that has its `settings`."""
    return summary.with_suffix(".config.json")


def settings(config: Config) -> dict[str, Any]:
    """Return, as JSON has it, what an evaluation depends on besides the models.

    That is how they act, and on which episodes.
    """
    acting = {
        stage: registry.sampling(config, stage)
        | configuration.plain(registry.selection(config, stage))
        for stage in acting_stages(config)
    }
    return json.loads(json.dumps(acting | {"eval": configuration.plain(config.eval)}))


def rows(pipeline: Pipeline) -> list[EvalRow]:
    """Return the rows that `eval.rows` lists, or all there are.

    All: every stage with a finished run, as its method acts, and once more with `eval.candidates`,
    or with one where its method has several of its own.

    Raises:
        UserError: nothing is trained, or what a row needs is not.
    """
    config = pipeline.config
    if config.eval.rows:
        listed = [parse_row(config, text) for text in config.eval.rows]
        for row in listed:
            finished.require(pipeline, row.stage, "eval.rows")
            if row.candidates > 1:
                finished.require(pipeline, row.selection.critic, f"eval.rows: {row.name}")
        return listed
    result = []
    for stage in finished.trained(pipeline):
        row = parse_row(config, stage)
        result.append(row)
        if row.candidates > 1:
            result.append(parse_row(config, f"{stage} candidates=1"))
        elif is_sampled_again(pipeline, row):
            result.append(parse_row(config, f"{stage} candidates={config.eval.candidates}"))
    if not result:
        how = finished.command(config, "all", pipeline.workdir)
        raise errors.UserError(
            f"nothing that acts is trained in {pipeline.workdir}; {how} trains the pipeline"
        )
    return result


def is_sampled_again(pipeline: Pipeline, row: EvalRow) -> bool:
    """Tell if a row is also to be evaluated with `eval.candidates` candidates.

    It is if it samples, and its critic is trained.
    """
    config = pipeline.config
    if config.eval.candidates < 2:
        return False
    if registry.get(row.stage).deterministic or pipeline.task.kind == "planner":
        return False
    critic = row.selection.critic
    if not finished.is_finished(pipeline.run(critic)):
        pipeline.say(f"{row.stage}: no {critic} is trained that could choose a candidate")
        return False
    return True


def evaluate_all(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Evaluate the data and all `rows`; print the table, write summary and figures.

    Raises:
        UserError: something of it is not trained; nothing is trained here.
    """
    table = rows(pipeline)
    for stage in pipeline.config.eval.online:
        finished.require(pipeline, stage, "eval.online")
    entries = _data_row(pipeline) if pipeline.task.kind == "policy" else []
    for row in table:
        entries += evaluate(pipeline, row)
    for stage in pipeline.config.eval.online:
        entries += evaluate_online(pipeline, stage)
    summary = pipeline.workdir / pipeline.config.eval.summary
    checkpoints.write_json(summary, entries)
    checkpoints.write_json(settings_file(summary), settings(pipeline.config))
    # Before drawing, which a full disk stops.
    tables.print_results(entries, pipeline.progress.console)
    figures = draw(pipeline, entries, table)
    for path in (summary, *figures):
        pipeline.say(f"wrote {path}")
    return entries


def _data_row(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return the entry of the data, none where they cannot be had: trained policies act without."""
    try:
        return [policies.evaluate_data(pipeline)]
    except errors.UserError as error:
        pipeline.say(f"without a row for the data: {error}")
        return []


def draw(
    pipeline: Pipeline, entries: list[dict[str, Any]], table: list[EvalRow]
) -> list[pathlib.Path]:
    """Draw learning curves, return distributions, latencies and rollouts; return the paths.

    Args:
        pipeline: the pipeline.
        entries: of the table.
        table: the rows among them that act.
    """
    folder, task, config = pipeline.workdir / "figures", pipeline.task, pipeline.config
    folder.mkdir(exist_ok=True)
    logs = {
        stage: plots.read_metrics(pipeline.run(stage) / "metrics.jsonl")
        for stage in config.stages
        if (pipeline.run(stage) / "metrics.jsonl").exists()
    }
    paths = [folder / f"{name}.png" for name in ("learning_curves", "returns", "latency")]
    if logs:
        plots.learning_curves(paths[0], logs)
    title = f"{task.name}, source {config.source}, size {config.size}"
    title += f", {choice.short(choice.physics(task.env_id))}"
    scores = {e["stage"]: task.score(np.asarray(e["returns"])) for e in entries}
    if scores:
        plots.return_distributions(paths[1], scores, title)
    acting = [s for s in acting_stages(config) if any(e.get("model") == s for e in entries)]
    if acting:  # the ways to follow a plan do not change the time to make one
        last = [e for e in entries if e["selection"] == measure.SELECTION]
        timed = {e["name"]: e for e in reversed(last)}
        plots.latency_bars(paths[2], [*timed.values()])
    if task.kind == "planner":
        paths += plans.draw(pipeline, table)
    elif acting:
        best = "student" if "student" in acting else acting[-1]
        paths += policies.draw(pipeline, best, folder)
    return [path for path in paths if path.exists()]
