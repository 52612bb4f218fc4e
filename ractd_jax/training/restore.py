"""A trained model, read from its checkpoint: what acting and later stages need of it."""

import pathlib
from typing import Any

import jax
import numpy as np

from ractd_jax.config import Config
from ractd_jax.data import normalization
from ractd_jax.errors import UserError
from ractd_jax.methods import registry
from ractd_jax.tasks import TaskSpec
from ractd_jax.training import checkpoints
from ractd_jax.types import Algorithm, Params

TRIES = 20  # where the run trains on, and each checkpoint is removed while it is read


def template(algorithm: Algorithm, task: TaskSpec, frozen: Params = None) -> dict[str, Any]:
    """Return shapes and types of {"params", "normalizer"}, without allocating them.

    Args:
        algorithm: whose model it is.
        task: sizes of observations and actions.
        frozen: shapes of the models it needs (`frozen_shapes`).
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key,) if frozen is None else (key, frozen)
    state = jax.eval_shape(algorithm.init, *arguments)
    normalizer = jax.eval_shape(lambda: normalization.identity(task.obs_dim, task.act_dim))
    params = state.params
    if algorithm.inference_params:
        params = jax.eval_shape(algorithm.inference_params, params, state.frozen, normalizer)
    return {"params": params, "normalizer": normalizer}


def frozen_shapes(config: Config, stage: str) -> Params:
    """Return shapes and types of the weights a stage needs of earlier stages, None if none."""
    needs = registry.needs(config, stage)
    return {role: stage_template(config, need)["params"] for role, need in needs.items()} or None


def stage_template(config: Config, stage: str) -> dict[str, Any]:
    """Return the `template` of a stage."""
    return template(registry.make(config, stage), config.task, frozen_shapes(config, stage))


def restore(run: pathlib.Path, like: Params, update: int | None = None) -> dict[str, Any]:
    """Return the `policy` item of a run's newest checkpoint, or of that of some update.

    Args:
        run: folder of the run.
        like: its `template`.
        update: after which it was saved; None for the last.

    Raises:
        UserError: there is none, it is damaged or does not fit, or its weights are not finite.
    """
    for _ in range(TRIES - 1):
        step = _choose(run, update)
        try:
            return _read(run, step, like)
        except UserError:
            if update is not None or checkpoints.steps(run)[-1:] in ([], [step]):
                raise  # no newer one has taken its place
    return _read(run, _choose(run, update), like)


def _choose(run: pathlib.Path, update: int | None) -> int:
    steps = checkpoints.steps(run)
    if not steps:
        raise UserError(f"{run} holds no whole checkpoint; train it again with --resume")
    step = steps[-1] if update is None else update
    if step not in steps:
        raise UserError(
            f"{run} holds no checkpoint of update {step:,}, only of "
            f"{', '.join(f'{s:,}' for s in steps)}; training.save_every and training.keep say which"
        )
    return step


def _read(run: pathlib.Path, step: int, like: Params) -> dict[str, Any]:
    saved = checkpoints.restore(run, step, "policy", like)
    for path, leaf in jax.tree_util.tree_leaves_with_path(saved["params"]):
        if not np.isfinite(leaf).all():
            raise UserError(
                f"the weights of update {step:,} in {run} are not all finite "
                f"({jax.tree_util.keystr(path)}): load an earlier update, or train the stage "
                f"{run.name} again with a lower optimiser.learning_rate"
            )
    return saved


def restore_stage(config: Config, workdir: pathlib.Path, stage: str) -> dict[str, Any]:
    """Return weights and normalizer of a finished stage of a pipeline."""
    return restore(workdir / stage, stage_template(config, stage))
