"""Evaluate what a pipeline has trained, and show it: table, figures, animation.

Protocol: the return of an episode is the plain sum of the environment's rewards to the episode's
own end; episode i starts from seed first_seed + i and is counted once; the score is D4RL's. The
checkpoint is the last one (offline selection), one action is executed of every sampled trajectory.
For the stages of `eval.online` the best of all checkpoints kept is a row too (online selection).
Models that plan states are evaluated, and drawn, by `plan_evaluation`.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ractd_jax import errors, stages, tasks
from ractd_jax.data import episodes
from ractd_jax.evaluation import measure, plans, rollouts
from ractd_jax.evaluation.rows import EvalRow, parse_row
from ractd_jax.policies import policy
from ractd_jax.report import animation, plots, tables
from ractd_jax.training import checkpoints, run_dir
from ractd_jax.training.pipeline import Experiment

ONLINE = "best checkpoint (online)"


def action_ms(acting: policy.Policy) -> float:
    """Return the median time of one decision for one observation, in milliseconds."""
    obs = np.zeros((1, acting.task.obs_dim), np.float32)
    return measure.median_ms(lambda step: acting.act(obs, np.zeros(1, np.int32), step))


def evaluate_data(experiment: Experiment) -> dict[str, Any]:
    """Return the dataset's own returns, as an entry of the table."""
    returns = episodes.returns(experiment.transitions)
    return measure.entry(experiment, "dataset", returns) | {
        "nfe": None,
        "candidates": None,
        "selection": None,
        "seeds": [],
        "score_released": None,
        "action_ms": None,
    }


def evaluate_row(experiment: Experiment, sampler: EvalRow) -> dict[str, Any]:
    """Roll a trained stage out and write its eval.json (`Sampler.file`)."""
    run, chosen = experiment.workdir / sampler.stage, dict(sampler.reselect)
    chosen["judge"] = experiment.workdir / chosen["judge"]
    acting = policy.load_policy(run, update=sampler.update, **chosen, **sampler.fields)
    entry = measure.play(experiment, sampler, acting.act) | {"action_ms": action_ms(acting)}
    if sampler.candidates > 1:
        entry["judge"] = sampler.reselect["judge"]
    checkpoints.write_json(run / sampler.file(), entry)
    return entry


def evaluate(experiment: Experiment, sampler: EvalRow) -> list[dict[str, Any]]:
    """Return a row's entries: one of a policy, of a planner one for each way to follow plans."""
    if experiment.task.kind == "planner":
        return plans.evaluate(experiment, sampler)
    return [evaluate_row(experiment, sampler)]


def evaluate_online(experiment: Experiment, stage: str) -> list[dict[str, Any]]:
    """Evaluate every checkpoint of a stage that is kept; return the best one's `evaluate`.

    The episodes that select are those that are reported, as where papers select online: a best
    case, which wants an environment. Each way to follow plans has a best checkpoint of its own.
    `updates` and `scores` of an entry are of all of them.
    """
    store = checkpoints.Checkpoints(experiment.workdir / stage)
    updates = store.steps()
    store.close()
    if not updates:
        raise errors.UserError(f"eval.online: {store.directory} holds no checkpoint")
    found = [
        evaluate(experiment, parse_row(experiment.config, f"{stage} update={update}"))
        for update in updates
    ]
    return [_best(stage, updates, entries) for entries in zip(*found, strict=True)]


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


def beside(summary: pathlib.Path) -> pathlib.Path:
    """Return the file beside a summary that has what was `asked` for."""
    return summary.with_suffix(".config.json")


def asked(config: dict[str, Any]) -> dict[str, Any]:
    """Return, as JSON has it, what an evaluation goes by besides the models: how they act, on what.

    Args:
        config: the resolved configuration.
    """
    acting = {
        stage: stages.sampling(config, stage) | stages.reselection(config, stage)
        for stage in stages.ACTING
        if stage in config
    }
    return json.loads(json.dumps(acting | {"eval": config["eval"]}))


def trained(experiment: Experiment) -> list[str]:
    """Return the stages with a finished policy, in the order of the table."""
    runs = {stage: experiment.workdir / stage for stage in stages.ACTING}
    return [s for s, run in runs.items() if checkpoints.run_status(run) == checkpoints.FINISHED]


def rows(experiment: Experiment) -> list[EvalRow]:
    """Return the rows that `eval.samplers` lists, after training what is missing; or all there are.

    All: every stage with a finished run, as its method acts, and once more with `eval.candidates`,
    or with one where its method has several of its own.
    """
    config = experiment.config
    if config["eval"]["samplers"]:
        found = [parse_row(config, text) for text in config["eval"]["samplers"]]
        for sampler in found:
            experiment.ensure(sampler.stage, wanted=False)
            if sampler.candidates > 1:
                experiment.ensure(sampler.reselect["judge"], wanted=False)
        return found
    found = []
    for stage in trained(experiment):
        run_dir.check_same(experiment.workdir / stage, config, stage)
        found.append(parse_row(config, stage))
        if found[-1].candidates > 1:
            found.append(parse_row(config, f"{stage} candidates=1"))
        elif several(experiment, found[-1]):
            wanted = config["eval"]["candidates"]
            found.append(parse_row(config, f"{stage} candidates={wanted}"))
    return found


def several(experiment: Experiment, sampler: EvalRow) -> bool:
    """Tell if a row is also to be evaluated with `eval.candidates` candidates.

    It is if it samples, and its judge is trained and sees observations in the same frame.
    """
    if experiment.config["eval"]["candidates"] < 2:
        return False
    if sampler.stage in stages.DETERMINISTIC or experiment.task.kind == "planner":
        return False
    judge = sampler.reselect["judge"]
    if checkpoints.run_status(experiment.workdir / judge) != checkpoints.FINISHED:
        experiment.say(f"{sampler.stage}: no {judge} is trained that could choose a candidate")
        return False
    frames = {s: stages.frame(experiment.config, s) for s in (sampler.stage, judge)}
    if len(set(frames.values())) > 1:
        experiment.say(f"{sampler.stage}: one candidate only, {judge} sees another frame: {frames}")
        return False
    return True


def evaluate_all(experiment: Experiment) -> list[dict[str, Any]]:
    """Evaluate the data and all `rows`; print the table, write summary and figures."""
    found = rows(experiment)
    entries = _data_row(experiment) if experiment.task.kind == "policy" else []
    for row in found:
        entries += evaluate(experiment, row)
    for stage in experiment.config["eval"]["online"]:
        experiment.ensure(stage, wanted=False)
        entries += evaluate_online(experiment, stage)
    summary = experiment.workdir / experiment.config["eval"]["summary"]
    checkpoints.write_json(summary, entries)
    checkpoints.write_json(beside(summary), asked(experiment.config))
    tables.print_results(entries, experiment.console)  # before drawing, which a full disk stops
    figures = draw(experiment, entries, found)
    for path in (summary, *figures):
        experiment.say(f"wrote {path}")
    return entries


def _data_row(experiment: Experiment) -> list[dict[str, Any]]:
    """Return the entry of the data, none where they cannot be had: trained policies act without."""
    try:
        return [evaluate_data(experiment)]
    except errors.UserError as error:
        experiment.say(f"without a row for the data: {error}")
        return []


def draw(
    experiment: Experiment, entries: list[dict[str, Any]], found: list[EvalRow]
) -> list[pathlib.Path]:
    """Draw learning curves, return distributions, latencies and rollouts; return the paths.

    Args:
        experiment: the pipeline.
        entries: of the table.
        found: the rows among them that act.
    """
    folder, task, config = experiment.workdir / "figures", experiment.task, experiment.config
    folder.mkdir(exist_ok=True)
    logs = {
        stage: plots.read_metrics(experiment.workdir / stage / "metrics.jsonl")
        for stage in stages.of(config)
        if (experiment.workdir / stage / "metrics.jsonl").exists()
    }
    paths = [folder / f"{name}.png" for name in ("learning_curves", "returns", "latency")]
    if logs:
        plots.learning_curves(paths[0], logs)
    title = f"{task.name}, source {config['source']}, size {config['size']}"
    scores = {e["stage"]: task.score(np.asarray(e["returns"])) for e in entries}
    if scores:
        plots.return_distributions(paths[1], scores, title)
    acting = [stage for stage in stages.ACTING if any(e.get("model") == stage for e in entries)]
    if acting:  # the ways to follow a plan do not change the time to make one
        last = [e for e in entries if e["selection"] == measure.SELECTION]
        timed = {e["name"]: e for e in reversed(last)}
        plots.latency_bars(paths[2], [*timed.values()])
    if task.kind == "planner":
        paths += plans.draw(experiment, found)
    elif acting:
        best = "student" if "student" in acting else acting[-1]
        paths.append(folder / f"{best}.gif")
        actor = policy.load_policy(experiment.workdir / best)
        episode = rollouts.record(actor.act, task, config["eval"]["first_seed"])
        animation.save_gif(
            paths[-1],
            tasks.get(task.name),  # drawn in Gymnasium's model, whatever it was played in
            episode["qpos"],
            rewards=episode["rewards"],
            title=f"{task.name}: {best}",
        )
    return [path for path in paths if path.exists()]
