"""How a stage is trained: from its newest checkpoint, or from the start, to the end."""

import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ractd_jax import config as configuration
from ractd_jax.config import Config
from ractd_jax.data import normalization
from ractd_jax.data.normalization import Normalizer
from ractd_jax.errors import UserError
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, examples, guard, loop, multihost, restore, shape_check
from ractd_jax.training.interrupt import Interrupt
from ractd_jax.training.pipeline import Pipeline
from ractd_jax.training.run import Clock, TrainingRun

GAP = 0.01  # between normalizers, where the range of a dimension is 2, that is worth a line
SLOW = 2 * 3600  # seconds of training on a CPU from which the smaller sizes are named


def train(pipelines: Sequence[Pipeline], stage: str, *, again: bool = False) -> None:
    """Train a stage of one pipeline, or of several that differ in their seed alone, side by side.

    Args:
        pipelines: with checkpoints of the same update.
        stage: one of their stages; what it needs is trained.
        again: remove the runs that are there, once all is known that could be wrong with the new.

    Raises:
        UserError: something does not fit, the loss stopped being finite, or the user stopped it.
    """
    first, several = pipelines[0], len(pipelines) > 1
    clock = Clock(time.monotonic(), len(pipelines))
    needed = [_needed(pipeline, stage) for pipeline in pipelines]
    given = _given_normalizer(first, stage, needed[0])
    dataset, normalizer = examples.build(first.config, stage, first.recorded.episodes, given)
    config = with_steps(first.config, stage, len(dataset.starts))
    optimiser = config.stages[stage].optimiser
    wanted = 1 if several else config.training.devices
    devices = loop.devices_for(wanted, optimiser.batch_size)
    # As one device would train it: by shapes alone there are no others to average with.
    ours = registry.module_of(stage).__name__.startswith("ractd_jax.")
    shape_check.check(config, stage, registry.make(config, stage), updates=not ours)
    algorithm = registry.make(config, stage, loop.AXIS if len(devices) > 1 else "")
    if algorithm.prepare:
        first.say(f"{stage}: preparing its data")
        frozen = {role: item["params"] for role, item in needed[0].items()}
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        dataset = algorithm.prepare(frozen, dataset, key)
    if again:
        for pipeline in pipelines:
            checkpoints.clear_run(pipeline.run(stage))
        multihost.meet(f"{stage}: cleared")
    runs = []
    for pipeline, models in zip(pipelines, needed, strict=True):
        own = configuration.replace(config, seed=pipeline.config.seed)
        data = pipeline.recorded.identity
        runs.append(
            TrainingRun(pipeline.run(stage), own, stage, algorithm, models, normalizer, clock, data)
        )
    state, key = runs[0].state, runs[0].key
    if several:
        state = loop.stack([run.state for run in runs])
        key = loop.stack([run.key for run in runs])
        for run in runs:
            run.state = None  # room for the stack
    updates = loop.fit(
        algorithm,
        state,
        dataset,
        functools.partial(
            algorithm.sample or examples.sampler(config, stage),
            batch_size=optimiser.batch_size // len(devices),
            horizon=registry.horizon(config, stage),
        ),
        steps=optimiser.steps,
        updates_per_dispatch=_updates_per_dispatch(config),
        key=key,
        devices=devices,
    )
    if runs[0].step:
        first.say(f"{stage}: continues at update {runs[0].step:,} of {optimiser.steps:,}")
    _follow(first, config, stage, runs, updates)
    for run in runs:
        run.finish()
    multihost.meet(f"{stage}: finished")


def with_steps(config: Config, stage: str, examples_count: int) -> Config:
    """Return a configuration whose number of updates is worked out, where epochs are given.

    Args:
        config: the configuration.
        stage: one of its stages.
        examples_count: windows, or steps, of its training set.
    """
    section = config.stages[stage]
    if section.optimiser.steps:
        return config
    per_epoch = math.ceil(examples_count / section.optimiser.batch_size)
    steps = (section.epochs or 1) * per_epoch
    return configuration.replace(config, **{f"{stage}__optimiser__steps": steps})


def _updates_per_dispatch(config: Config) -> int:
    if config.size == "paper" and jax.default_backend() == "cpu":
        return 1  # each takes seconds to minutes; how long it all takes is wanted soon
    return config.training.updates_per_dispatch


def _follow(
    pipeline: Pipeline, config: Config, stage: str, runs: Sequence[TrainingRun], updates: Any
) -> None:
    """Log, show and save what the loop yields, to its end or until the user stops it."""
    several, steps = len(runs) > 1, config.stages[stage].optimiser.steps
    save_every, saved, begun, warned = config.training.save_every, runs[0].step, None, False
    with pipeline.progress.task(f"{stage:8}", steps, saved) as bar, Interrupt() as interrupt:
        for state, report in updates:
            if not report.finite:
                raise UserError(
                    f"{stage}: the loss stopped being a finite number at update "
                    f"{report.step:,}; {_kept(runs)}; lower the learning rate or the reward "
                    "weight"
                )
            metrics: dict[str, Any] = {}
            for i, run in enumerate(runs):
                metrics = {k: v[i] if several else v for k, v in report.metrics.items()}
                run.log.write({"step": report.step, **metrics})
                if left := guard.left_the_data(config, stage, metrics):
                    raise UserError(f"{left}. At update {report.step:,}; {_kept(runs)}")
            bar.update(report.step, **jax.tree.map(float, metrics))
            stopped = multihost.any_of(bool(interrupt))
            due = report.step // save_every > saved // save_every
            if due or report.step == steps or stopped:
                copy = state if multihost.several() else loop.one_copy(state)
                for i, run in enumerate(runs):
                    run.save(report.step, loop.row(copy, i) if several else copy)
                saved = report.step
            if stopped:
                for run in runs:
                    run.store.close()
                raise UserError(
                    f"{stage}: stopped at update {report.step:,} of {steps:,}, saved; "
                    "--resume continues"
                )
            if begun is None:
                begun = time.monotonic(), report.step
            elif not warned and jax.default_backend() == "cpu":
                warned = _warn_if_slow(pipeline, stage, begun, report.step, steps)


def _warn_if_slow(
    pipeline: Pipeline, stage: str, begun: tuple[float, int], step: int, steps: int
) -> bool:
    """Say how long this will take, where that is long, and what would be shorter."""
    seconds, first = begun
    left = (time.monotonic() - seconds) / (step - first) * (steps - step)
    if left <= SLOW:
        return False
    smaller = {"paper": "size=small or size=demo", "small": "size=demo"}
    pipeline.say(
        f"{stage}: about {left / 3600:,.0f} hours to go on this CPU; an accelerator, or "
        f"{smaller.get(pipeline.config.size, 'fewer optimiser.steps')}, is faster"
    )
    return True


def _kept(runs: Sequence[TrainingRun]) -> str:
    """Wait for what all are writing; say which checkpoint is there."""
    first, *_ = [run.store.kept() for run in runs]
    return first


# ---- what earlier stages hand on -----------------------------------------------------------------


def _needed(pipeline: Pipeline, stage: str) -> dict[str, Any]:
    """Return weights and normalizer of every model that a stage needs, by its role."""
    needs = registry.needs(pipeline.config, stage)
    return {
        role: restore.restore_stage(pipeline.config, pipeline.workdir, need)
        for role, need in needs.items()
    }


def _given_normalizer(pipeline: Pipeline, stage: str, saved: dict[str, Any]) -> Normalizer | None:
    """Return the normalizer of the first model a stage needs, in which it must see its data.

    It is the data's own, unless that model was imported; then another may have yet another, and how
    far they lie apart is said.
    """
    if not saved:
        return None
    config = pipeline.config
    needs = registry.needs(config, stage)
    kinds = {name: registry.normalization(config, name) for name in (*needs.values(), stage)}
    if len(set(kinds.values())) > 1:
        raise UserError(
            f"{stage}: it and what it needs normalise observations differently, {kinds}; train "
            "them with the same data.normalization"
        )
    (role, item), *rest = saved.items()
    normalizer = jax.tree.map(np.asarray, item["normalizer"])
    for other_role, other_item in rest:
        other = jax.tree.map(np.asarray, other_item["normalizer"])
        gap = max(map(normalization.gap, normalizer[:2], other[:2]))
        if gap > GAP:
            pipeline.say(
                f"{stage}: the normalizers of {role} and {other_role} differ by up to "
                f"{50 * gap:.1f} % of a dimension's range; that of the {role} is used"
            )
    if needs.get("reward") == "reward":  # advantages are differences of its returns
        returns = saved["reward"]["normalizer"].returns
        normalizer = normalizer._replace(returns=jax.tree.map(np.asarray, returns))
    return normalizer
