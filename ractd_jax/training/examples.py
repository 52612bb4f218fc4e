"""What a stage is trained on: recorded episodes, cut and normalised as its method reads them."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ractd_jax.config import Config
from ractd_jax.data import episodes, transitions, windows
from ractd_jax.data.generate import maze2d
from ractd_jax.data.normalization import Normalizer
from ractd_jax.errors import UserError
from ractd_jax.method import Reads
from ractd_jax.methods import registry


def build(
    config: Config, stage: str, recorded: episodes.Transitions, normalizer: Normalizer | None = None
) -> tuple[Any, Normalizer]:
    """Return the training set of a stage, and its normalizer.

    Args:
        config: the configuration.
        stage: one of its stages.
        recorded: complete episodes.
        normalizer: how the stage must see its data; None for the data's own.
    """
    if registry.get(stage).reads is Reads.TRANSITIONS:
        steps = config.stages[stage].data
        assert steps is not None
        dataset, normalizer = transitions.build(
            recorded,
            normalization=steps.normalization,
            reward_scale=steps.reward_scale,
            normalizer=normalizer,
        )
        return _of_best_episodes(config, stage, dataset, recorded), normalizer
    reached = None
    if config.task.kind == "planner":  # learns from every way that ended at the goal
        recorded, reached = maze2d.cut_at_goal(recorded)
    dataset, normalizer = windows.build(
        recorded,
        horizon=registry.horizon(config, stage),
        discount=config.data.discount,
        termination_penalty=config.data.termination_penalty,
        drop_last=config.data.drop_last_window,
        normalization=config.data.normalization,
        normalizer=normalizer,
        reached=reached,
    )
    return _of_best_episodes(config, stage, dataset, recorded), normalizer


def _of_best_episodes(
    config: Config, stage: str, dataset: Any, recorded: episodes.Transitions
) -> Any:
    """Return the dataset with the examples alone that begin in a stage's best episodes."""
    share = config.stages[stage].best_episodes
    if share == 1:
        return dataset
    starts = np.asarray(dataset.starts)
    starts = starts[episodes.best(episodes.complete(recorded), share)[starts]]
    if not len(starts):
        raise UserError(
            f"{stage}.best_episodes is {share}: no example begins in so few episodes; raise it"
        )
    return dataset._replace(starts=jnp.asarray(starts))


def sampler(config: Config, stage: str) -> Callable[..., Any]:
    """Return `(dataset, key, *, batch_size, horizon) -> batch`, how a stage's batches are drawn."""
    reads, planner = registry.get(stage).reads, config.task.kind == "planner"
    relabel = config.data.goal_relabel
    if reads is Reads.TRANSITIONS:
        return transitions.sample
    if reads is Reads.PAIRS:
        return windows.sample_pairs
    if reads is Reads.STATE_ACTION:
        ends = 2 if planner else 1
        return functools.partial(windows.sample_state_action, ends=ends, goal_relabel=relabel)
    if reads is Reads.RETURNS:
        return windows.sample_plans if planner else windows.sample_windows
    if planner:
        return functools.partial(windows.sample_plans, goal_relabel=relabel)
    return functools.partial(windows.sample_windows, history=registry.history(config, stage))
