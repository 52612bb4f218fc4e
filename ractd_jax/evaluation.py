"""Evaluate what a pipeline has trained, and show it: table, figures, animation.

Protocol: the return of an episode is the plain sum of the environment's rewards to the episode's
own end; episode i starts from seed first_seed + i and is counted once; the score is D4RL's. The
checkpoint is the last one (offline selection), one action is executed of every sampled trajectory.
Models that plan states are evaluated, and drawn, by `plan_evaluation`.
"""

import pathlib
from typing import Any

import numpy as np

from ractd_jax import checkpoints, measure, plan_evaluation, policy, stages, tasks
from ractd_jax.data import episodes
from ractd_jax.envs import rollouts
from ractd_jax.experiment import Experiment
from ractd_jax.report import animation, plots, tables

# in the order of the table
ACTING = ("ddpm", "teacher", "ctd", "student", "iql", "eda_behavior", "eda")


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


def evaluate_stage(experiment: Experiment, stage: str, candidates: int = 0) -> dict[str, Any]:
    """Roll a trained stage out and write its eval.json, or eval_of_<candidates>.json.

    Args:
        experiment: the pipeline.
        stage: whose policy acts.
        candidates: samples of which the stage's judge chooses each action; 0 for its own number.
    """
    config, run = experiment.config, experiment.workdir / stage
    words = stages.reselection(config, stage)
    count = candidates or words["candidates"]
    acting = policy.load_policy(
        run,
        candidates=count,
        judge=experiment.workdir / words["judge"],
        inverse_temperature=words["inverse_temperature"],
        **stages.sampling(config, stage),
    )
    manner = f"1 of {count}" if candidates > 1 else ""
    entry = measure.play(experiment, stage, acting.act, manner, count)
    entry |= {"action_ms": action_ms(acting)}
    if count > 1:
        entry["judge"] = words["judge"]
    if "sampler" in config[stage]["method"]:
        entry["sampler"] = config[stage]["method"]["sampler"]
    file = f"eval_of_{count}.json" if manner else "eval.json"
    checkpoints.write_json(run / file, entry)
    return entry


def counts(experiment: Experiment, stage: str) -> list[int]:
    """Return the numbers of candidates a stage is evaluated with: its own, and `eval.candidates`.

    The latter only where it samples, its own is 1, and its judge is trained.
    """
    config = experiment.config
    words, wanted = stages.reselection(config, stage), config["eval"]["candidates"]
    if wanted < 2 or words["candidates"] > 1 or stage in stages.DETERMINISTIC:
        return [0]
    judge = checkpoints.run_status(experiment.workdir / words["judge"])
    if judge != checkpoints.FINISHED:
        experiment.say(f"{stage}: no {words['judge']} is trained that could choose a candidate")
        return [0]
    return [0, wanted]


def trained(experiment: Experiment) -> list[str]:
    """Return the stages with a finished policy, in the order of the table."""
    finished = checkpoints.FINISHED
    return [s for s in ACTING if checkpoints.run_status(experiment.workdir / s) == finished]


def evaluate_all(experiment: Experiment) -> list[dict[str, Any]]:
    """Evaluate the data and every finished stage; print the table, write summary and figures."""
    finished = trained(experiment)
    if experiment.task.kind == "planner":
        entries = [e for stage in finished for e in plan_evaluation.evaluate(experiment, stage)]
    else:
        entries = [evaluate_data(experiment)]
        for stage in finished:
            entries += [evaluate_stage(experiment, stage, n) for n in counts(experiment, stage)]
    summary = experiment.workdir / "summary.json"
    checkpoints.write_json(summary, entries)
    figures = draw(experiment, entries)
    tables.print_results(entries, experiment.console)
    for path in (summary, *figures):
        experiment.say(f"wrote {path}")
    return entries


def draw(experiment: Experiment, entries: list[dict[str, Any]]) -> list[pathlib.Path]:
    """Draw learning curves, return distributions, latencies and rollouts; return the paths."""
    folder, task, config = experiment.workdir / "figures", experiment.task, experiment.config
    folder.mkdir(exist_ok=True)
    logs = {
        stage: plots.read_metrics(experiment.workdir / stage / "metrics.jsonl")
        for stage in stages.TRAINED
        if (experiment.workdir / stage / "metrics.jsonl").exists()
    }
    paths = [folder / f"{name}.png" for name in ("learning_curves", "returns", "latency")]
    if logs:
        plots.learning_curves(paths[0], logs)
    title = f"{task.name}, source {config['source']}, size {config['size']}"
    scores = {e["stage"]: task.score(np.asarray(e["returns"])) for e in entries}
    if scores:
        plots.return_distributions(paths[1], scores, title)
    acting = [stage for stage in ACTING if stage in scores]
    if acting:
        plots.latency_bars(paths[2], [e for e in entries if e["stage"] in acting])
    if task.kind == "planner":
        paths += plan_evaluation.draw(experiment, acting)
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
