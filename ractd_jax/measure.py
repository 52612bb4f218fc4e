"""What an evaluation measures: the returns of a list of episodes, and the time of a decision."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ractd_jax import provenance, samplers
from ractd_jax.data import sources
from ractd_jax.envs import rollouts
from ractd_jax.experiment import Experiment

SELECTION = "last checkpoint (offline)"


def play(
    experiment: Experiment, sampler: samplers.Sampler, act: rollouts.Policy, *manner: str
) -> dict[str, Any]:
    """Return the entry of a row's episodes.

    Args:
        experiment: the pipeline.
        sampler: whose model acts.
        act: how.
        *manner: words for that, where there is more than one way; part of the entry's name.
    """
    settings, task = experiment.config["eval"], experiment.task
    seeds = [settings["first_seed"] + i for i in range(settings["episodes"])]
    limit, name = task.max_episode_steps, ", ".join((sampler.name, *manner))
    with experiment.progress.task(f"evaluate {name}", len(seeds) * limit) as bar:

        def on_step(steps: int, finished: int) -> None:
            done = finished * limit + (len(seeds) - finished) * steps
            bar.update(done, episodes=finished)

        result = rollouts.rollout(act, task, seeds, on_step=on_step)
    trained = [sampler.stage]
    if sampler.candidates > 1:
        trained.append(sampler.reselect["judge"])
    seconds = provenance.training_seconds(experiment.workdir, experiment.config, trained)
    return entry(experiment, name, result.returns) | {
        "model": sampler.stage,
        "name": sampler.name,
        "nfe": sampler.nfe,
        "candidates": sampler.candidates,
        "selection": SELECTION,
        "seeds": seeds,
        "training_seconds": seconds,
        "score_released": float(task.score(result.returns_released).mean()),
    }


def entry(experiment: Experiment, stage: str, returns: np.ndarray) -> dict[str, Any]:
    """Return what the table and eval.json say of some episodes' returns."""
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


def median_ms(decide: Callable[[int], Any], repeats: int = 30) -> float:
    """Return the median time of a call in milliseconds, from numpy to numpy.

    It is compiled before the clock starts.
    """
    times = []
    for step in range(repeats + 2):
        begun = time.perf_counter()
        decide(step)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times[2:]))
