"""Evaluate and draw models that act: roll them out, and time a decision."""

import pathlib
from typing import Any

import numpy as np

from ractd_jax import tasks
from ractd_jax.data import episodes
from ractd_jax.envs import choice
from ractd_jax.evaluation import measure, rollouts
from ractd_jax.evaluation.rows import EvalRow
from ractd_jax.policies.load import load_policy
from ractd_jax.policies.policy import Policy
from ractd_jax.report import animation
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline


def action_ms(policy: Policy) -> float:
    """Return the median time of one decision for one observation, in milliseconds."""
    obs = np.zeros((1, policy.task.obs_dim), np.float32)
    return measure.median_ms(lambda step: policy.act(obs, np.zeros(1, np.int32), step))


def evaluate_data(pipeline: Pipeline) -> dict[str, Any]:
    """Return the dataset's own returns, as an entry of the table."""
    returns = episodes.returns(pipeline.recorded.episodes)
    return measure.entry(pipeline, "dataset", returns) | {
        "physics": None,  # nothing acted; `source` says what is known of the data's
        "nfe": None,
        "candidates": None,
        "selection": None,
        "seeds": [],
        "score_released": None,
        "action_ms": None,
    }


def evaluate_row(pipeline: Pipeline, row: EvalRow) -> dict[str, Any]:
    """Roll a trained stage out and write its eval.json (`EvalRow.file`)."""
    run, chosen = pipeline.run(row.stage), row.selection
    policy = load_policy(
        run,
        update=row.update,
        candidates=chosen.candidates,
        critic=pipeline.run(chosen.critic),
        inverse_temperature=chosen.inverse_temperature,
        **row.fields,
    )
    entry = measure.play(pipeline, row, policy.act) | {"action_ms": action_ms(policy)}
    if row.candidates > 1:
        entry["critic"] = chosen.critic
    checkpoints.write_json(run / row.file(), entry)
    return entry


def draw(pipeline: Pipeline, stage: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw an episode of a stage; return the path."""
    path, config = folder / f"{stage}.gif", pipeline.config
    policy = load_policy(pipeline.run(stage))
    physics = choice.short(choice.physics(config.task.env_id))
    episode = rollouts.record(policy.act, config.task, config.eval.first_seed)
    animation.save_gif(
        path,
        tasks.TASKS.get(config.task.name, config.task),  # this robot, whatever it acted in
        episode["qpos"],
        rewards=episode["rewards"],
        title=f"{config.task.name}: {stage}, {physics}",
    )
    return [path]
