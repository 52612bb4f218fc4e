"""Evaluate what a pipeline has trained, and show it: table, figures, animation.

Protocol: the return of an episode is the plain sum of the environment's rewards to the episode's
own end; episode i starts from seed first_seed + i and is counted once; the score is D4RL's. The
checkpoint is the last one (offline selection), one action is executed of every plan.
"""

import pathlib
import time
from typing import Any

import numpy as np

from ractd_jax import checkpoints, policy, stages, tasks
from ractd_jax.data import episodes, sources
from ractd_jax.envs import rollouts
from ractd_jax.experiment import Experiment
from ractd_jax.report import animation, plots, tables

ACTING = ("ddpm", "teacher", "ctd", "student")
SELECTION = "last checkpoint (offline)"


def action_ms(acting: policy.Policy, repeats: int = 30) -> float:
    """Return the median time of one decision for one observation, in milliseconds.

    From an observation in numpy to an action in numpy, compiled before the clock starts.
    """
    obs = np.zeros((1, acting.task.obs_dim), np.float32)
    times = []
    for step in range(repeats + 2):
        begun = time.perf_counter()
        acting.act(obs, np.zeros(1, np.int32), step)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times[2:]))


def evaluate_data(experiment: Experiment) -> dict[str, Any]:
    """Return the dataset's own returns, as an entry of the table."""
    returns = episodes.returns(experiment.transitions)
    return _entry(experiment, "dataset", returns) | {
        "nfe": None,
        "candidates": None,
        "selection": None,
        "seeds": [],
        "score_released": None,
        "action_ms": None,
    }


def evaluate_stage(experiment: Experiment, stage: str) -> dict[str, Any]:
    """Roll a trained stage out and write its eval.json."""
    method = experiment.config[stage]["method"]
    sampling = {name: method[name] for name in stages.SAMPLING[stage]}
    acting = policy.load_policy(experiment.workdir / stage, **sampling)
    settings, task = experiment.config["eval"], experiment.task
    seeds = [settings["first_seed"] + i for i in range(settings["episodes"])]
    limit = task.max_episode_steps
    with experiment.progress.task(f"evaluate {stage}", len(seeds) * limit) as bar:

        def on_step(steps: int, finished: int) -> None:
            done = finished * limit + (len(seeds) - finished) * steps
            bar.update(done, episodes=finished)

        result = rollouts.rollout(acting.act, task, seeds, on_step=on_step)
    entry = _entry(experiment, stage, result.returns) | {
        "nfe": stages.nfe(experiment.config, stage),
        "candidates": 1,
        "selection": SELECTION,
        "seeds": seeds,
        "score_released": float(task.score(result.returns_released).mean()),
        "action_ms": action_ms(acting),
    }
    if "sampler" in method:
        entry["sampler"] = method["sampler"]
    checkpoints.write_json(experiment.workdir / stage / "eval.json", entry)
    return entry


def _entry(experiment: Experiment, stage: str, returns: np.ndarray) -> dict[str, Any]:
    config = experiment.config
    return {
        "task": config["task"],
        "source": sources.label(config["source"], experiment.task),
        "stage": stage,
        "size": config["size"],
        "preset": config["preset"],
        "training_seed": config["seed"],
        "returns": [float(r) for r in returns],
        **rollouts.statistics(returns, experiment.task),
    }


def evaluate_all(experiment: Experiment) -> list[dict[str, Any]]:
    """Evaluate the data and every finished stage; print the table, write summary and figures."""
    trained = [
        stage
        for stage in ACTING
        if checkpoints.run_status(experiment.workdir / stage) == checkpoints.FINISHED
    ]
    entries = [evaluate_data(experiment)]
    entries += [evaluate_stage(experiment, stage) for stage in trained]
    summary = experiment.workdir / "summary.json"
    checkpoints.write_json(summary, entries)
    figures = draw(experiment, entries)
    tables.print_results(entries, experiment.console)
    for path in (summary, *figures):
        experiment.say(f"wrote {path}")
    return entries


def draw(experiment: Experiment, entries: list[dict[str, Any]]) -> list[pathlib.Path]:
    """Draw learning curves, return distributions, latencies and one rollout; return the paths."""
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
    plots.return_distributions(paths[1], scores, title)
    acting = [entry["stage"] for entry in entries[1:]]
    if acting:
        plots.latency_bars(paths[2], entries)
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
