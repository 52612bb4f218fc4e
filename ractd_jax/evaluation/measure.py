"""What an evaluation measures: the returns of a list of episodes, and the time of a decision."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ractd_jax.data import labels
from ractd_jax.envs import choice
from ractd_jax.evaluation import rollouts
from ractd_jax.evaluation.rows import EvalRow
from ractd_jax.training import run_dir
from ractd_jax.training.pipeline import Pipeline

SELECTION = "last checkpoint (offline)"


def play(pipeline: Pipeline, row: EvalRow, act: rollouts.Act, *manner: str) -> dict[str, Any]:
    """Return the entry of a row's episodes.

    Args:
        pipeline: the pipeline.
        row: whose model acts.
        act: how.
        *manner: words for that, where there is more than one way; part of the entry's name.
    """
    settings, task = pipeline.config.eval, pipeline.task
    seeds = [settings.first_seed + i for i in range(settings.episodes)]
    limit, name = task.max_episode_steps, ", ".join((row.name, *manner))
    with pipeline.progress.task(f"evaluate {name}", len(seeds) * limit) as bar:

        def on_step(steps: int, finished: int) -> None:
            done = finished * limit + (len(seeds) - finished) * steps
            bar.update(done, episodes=finished)

        result = rollouts.rollout(act, task, seeds, on_step=on_step)
    trained = [row.stage]
    if row.candidates > 1:
        trained.append(row.selection.critic)
    seconds = None  # of a run that is stopped early, unknown
    if row.update is None:
        seconds = run_dir.training_seconds(pipeline.workdir, pipeline.config, trained)
    return entry(pipeline, name, result.returns) | {
        "model": row.stage,
        "name": row.name,
        "nfe": row.nfe,
        "candidates": row.candidates,
        "selection": SELECTION if row.update is None else f"update {row.update}",
        "seeds": seeds,
        "training_seconds": seconds,
        "score_released": float(task.score(result.returns_released).mean()),
    }


def entry(pipeline: Pipeline, row: str, returns: np.ndarray) -> dict[str, Any]:
    """Return what the table and eval.json say of some episodes' returns.

    Its `stage` is the name of the table's row, "student, NFE 2, closed loop". Where a model acted,
    `play` adds which, as `model`, and as `name` the row's name without the manner.
    """
    config = pipeline.config
    return {
        "task": config.task.name,
        "source": labels.label(config.source, config.task),
        "physics": choice.physics(config.task.env_id),
        "stage": row,
        "size": config.size,
        "preset": config.preset,
        "training_seed": config.seed,
        "returns": [float(r) for r in returns],
        **rollouts.statistics(returns, config.task),
    }


def median_ms(decide: Callable[[int], Any], seconds: float = 0.5) -> float:
    """Return the median time of a call in milliseconds, from numpy to numpy.

    It is compiled before the clock starts. The first half of the calls is not counted, as
    processors take a while to speed up.

    Args:
        decide: what to time, given the number of the call.
        seconds: how long to count, though 10 calls at least.
    """
    decide(0)
    times = []
    begun = time.perf_counter()
    while len(times) < 20 or time.perf_counter() - begun < 2 * seconds:
        start = time.perf_counter()
        decide(len(times) + 1)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[len(times) // 2 :]))
