"""Run a stage: get the data, train what is missing, save, resume.

Everything of one pipeline lies in one folder, the workdir (by default
`runs/<task>/<size>[-<source>][-<preset>]-seed<k>`), with a folder for each stage:

    reward/ teacher/ ctd/ student/    config.json, metrics.jsonl, checkpoints/, timing.json,
                                      eval.json
    summary.json, figures/            written by the stages eval and all (`evaluation`)
"""

import contextlib
import functools
import json
import math
import pathlib
import signal
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from ractd_jax import stages, tasks
from ractd_jax.console import Progress
from ractd_jax.data import normalization, sources, transitions, validation, windows
from ractd_jax.data.generate import maze2d
from ractd_jax.errors import UserError
from ractd_jax.policies import policy
from ractd_jax.training import checkpoints, config_checks, loop, multihost, run_dir
from ractd_jax.training.run import Clock, Started

GAP = 0.01  # between normalisers, where the range of a dimension is 2, that is worth a line
SLOW = 2 * 3600  # seconds of training on a CPU from which the smaller sizes are named


class Experiment:
    """A configuration, its folder, and its data (loaded at first use).

    Args:
        config: the configuration as nested plain dicts.
        workdir: folder of the pipeline; None for the default.
        resume: continue a run that was stopped, keep one that is finished.
        overwrite: train again in a folder that holds a run.
        console: where to print.
    """

    def __init__(
        self,
        config: dict[str, Any],
        workdir: str | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        console: Console | None = None,
    ):
        self.config = json.loads(json.dumps(config))  # tuples become lists, as after saving
        self.task = sources.environment(tasks.from_config(self.config), self.config["source"])
        config_checks.check(self.config, self.task)
        self.workdir = pathlib.Path(workdir) if workdir else run_dir.default_workdir(self.config)
        self.resume, self.overwrite = resume, overwrite
        self.progress = Progress(console if multihost.first() else Console(quiet=True))
        self.console = self.progress.console
        self._ready: set[str] = set()  # stages trained or found by this experiment
        self._warned = False
        if self.task.name == tasks.CUSTOM:  # its sizes are those of its data
            self.config["custom"] = validation.measure(self.task, self.transitions)
            self.task = tasks.from_config(self.config)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)

    # ---- data ----------------------------------------------------------------------------------

    @functools.cached_property
    def transitions(self):
        """All complete episodes."""
        config = self.config
        found = sources.load(
            self.task, config["source"], transitions=config["data"]["transitions"] or None
        )
        s, label = windows.summary(found, self.task), sources.label(config["source"], self.task)
        self.say(
            f"data: {self.task.name}, {label}: {s['trajectories']:,} "
            f"episodes, {s['steps']:,} steps, return {s['return_mean']:.1f} +- "
            f"{s['return_std']:.1f} (max {s['return_max']:.0f})"
            + (
                f", mean score {s['score_mean']:.1f}"
                if self.task.env_id and self.task.kind == "policy"
                else ""
            )
        )
        return found

    def examples(self, stage: str, limits: windows.Normalizer | None = None):
        """Return the training set and the normaliser of a stage: `limits`, or the data's own."""
        if stage in stages.SINGLE:
            fields = self.config[stage]["data"]
            return transitions.build(self.transitions, **fields, limits=limits)
        data, recorded, arrived = self.config["data"], self.transitions, None
        if self.task.kind == "planner":  # learns from every way that ended at the goal
            recorded, arrived = maze2d.cut_at_goal(recorded)
        return windows.build(
            recorded,
            horizon=stages.window(self.config, self.task, stage)[0],
            discount=data["discount"],
            termination_penalty=data["termination_penalty"],
            drop_last=data["drop_last_window"],
            limits=limits,
            arrived=arrived,
        )

    # ---- training ------------------------------------------------------------------------------

    def ensure(self, stage: str, *, wanted: bool = True) -> None:
        """Train a stage, and before it what it needs, unless a finished run is there.

        Args:
            stage: one of `stages.TRAINED`.
            wanted: the user asked for this stage, rather than for one that needs it.

        Raises:
            UserError: the folder holds another run, or one that may not be touched, or the task has
                no such stage.
        """
        if not self.missing(stage, wanted):
            return
        for need in stages.needs(self.config, stage).values():
            if not checkpoints.run_status(self.workdir / need):
                self.say(f"{stage} needs the {need}, which is not trained yet: training it first")
            self.ensure(need, wanted=False)
        multihost.meet(f"{stage}: ready")
        with checkpoints.alone(self.workdir / stage):
            self.train(stage, again=self.overwrite and wanted)

    def missing(self, stage: str, wanted: bool) -> bool:
        """Return whether a stage is to be trained; `ensure` says when and what it raises."""
        if stage in self._ready:
            return False
        if stage not in self.config:
            has = ", ".join(stages.of(self.config))
            raise UserError(f"{self.task.name} has no stage {stage}: it has {has}")
        run = self.workdir / stage
        found = checkpoints.run_status(run)
        multihost.meet(f"{stage}: seen")  # before anyone changes it
        if found and not (self.overwrite and wanted):
            run_dir.check_same(run, self.config, stage)
            if found == "finished" and (self.resume or not wanted):
                self.say(f"{stage}: finished run found in {run}, kept")
                self._ready.add(stage)
                return False
            if not self.resume:
                raise UserError(
                    f"{run} holds a run ({found}): --resume continues or keeps it, --overwrite "
                    "trains it again, --workdir=DIR puts the new one elsewhere"
                )
        return True

    def train(
        self, stage: str, others: Sequence["Experiment"] = (), *, again: bool = False
    ) -> None:
        """Train a stage from its newest checkpoint, or from the start, to the end.

        Args:
            stage: one of `stages.TRAINED`.
            others: the same pipeline with other seeds, trained beside in the same program, from
                checkpoints of the same update (`seeds.ensure`).
            again: remove the run that is there, once all is known that could be wrong with the new.
        """
        config, runs = self.config, (self, *others)
        clock = Clock(time.monotonic(), len(runs))
        saved = [run.needed(stage) for run in runs]
        examples, limits = self.examples(stage, self._given_limits(stage, saved[0]))
        optimiser = config[stage]["optimiser"]
        if not optimiser["steps"]:
            per_epoch = math.ceil(len(examples.starts) / optimiser["batch_size"])
            optimiser["steps"] = config[stage]["epochs"] * per_epoch
        wanted = 1 if others else config["training"]["devices"]
        devices = loop.devices_for(wanted, optimiser["batch_size"])
        axis = loop.AXIS if len(devices) > 1 else ""
        algorithm = stages.make(config, self.task, stage, axis)
        if algorithm.prepare:
            self.say(f"{stage}: preparing its data")
            frozen = {role: item["params"] for role, item in saved[0].items()}
            key = jax.random.fold_in(jax.random.key(config["seed"]), 1)
            examples = algorithm.prepare(frozen, examples, key)
        if again:
            for run in runs:
                checkpoints.clear_run(run.workdir / stage)
            multihost.meet(f"{stage}: cleared")
        started = [
            Started(run, stage, algorithm, needed, limits, optimiser["steps"], clock)
            for run, needed in zip(runs, saved, strict=True)
        ]
        state, key, start = started[0].state, started[0].key, started[0].step
        if others:
            state = loop.stack([s.state for s in started])
            key = loop.stack([s.key for s in started])
            for each in started:
                each.state = None  # room for the stack

        steps, dispatch = optimiser["steps"], config["training"]["updates_per_dispatch"]
        if config["size"] == "paper" and jax.default_backend() == "cpu":
            dispatch = 1  # each takes seconds to minutes; how long it all takes is wanted soon
        horizon, draw = stages.window(config, self.task, stage)
        batch_size = optimiser["batch_size"] // len(devices)
        draw = algorithm.sample or draw
        sample = functools.partial(draw, batch_size=batch_size, horizon=horizon)
        updates = loop.fit(
            algorithm,
            state,
            examples,
            sample,
            steps=steps,
            updates_per_dispatch=dispatch,
            key=key,
            devices=devices,
        )
        if start:
            self.say(f"{stage}: continues at update {start:,} of {steps:,}")
        with self.progress.task(f"{stage:8}", steps, start) as bar, _Stop() as stop:
            begun, saved = None, start
            for state, report in updates:
                if not report.finite:
                    raise UserError(
                        f"{stage}: the loss stopped being a finite number at update "
                        f"{report.step:,}; {_kept(saved)}; lower the learning rate or the reward "
                        "weight"
                    )
                for i, each in enumerate(started):
                    metrics = {k: v[i] if others else v for k, v in report.metrics.items()}
                    each.log.write({"step": report.step, **metrics})
                bar.update(report.step, **jax.tree.map(float, metrics))
                stopped = multihost.any_of(bool(stop))
                due = report.step // config["training"]["save_every"]
                if (
                    due > saved // config["training"]["save_every"]
                    or report.step == steps
                    or stopped
                ):
                    state_here = state if multihost.several() else loop.one_copy(state)
                    for i, each in enumerate(started):
                        mine = loop.row(state_here, i) if others else state_here
                        each.save(report.step, mine)
                    saved = report.step
                if stopped:
                    for each in started:
                        each.store.close()
                    raise UserError(
                        f"{stage}: stopped at update {report.step:,} of {steps:,}, saved; "
                        "--resume continues"
                    )
                if begun is None:
                    begun = time.monotonic(), report.step
                elif jax.default_backend() == "cpu":
                    self._warn_if_slow(stage, begun, report.step, steps)
        for run, each in zip(runs, started, strict=True):
            each.finish()
            run._ready.add(stage)
        multihost.meet(f"{stage}: finished")

    def needed(self, stage: str) -> dict[str, Any]:
        """Return acting weights and normaliser of every model that a stage needs, by its role."""
        needs = stages.needs(self.config, stage)
        return {role: self._saved(need) for role, need in needs.items()}

    def _saved(self, stage: str):
        """Return the acting weights and the normaliser of a finished stage."""
        like = policy.template(
            stages.make(self.config, self.task, stage),
            self.task,
            policy.abstract_frozen(self.config, self.task, stage),
        )
        return policy.restore(self.workdir / stage, like)

    def _given_limits(self, stage: str, saved: dict[str, Any]) -> windows.Normalizer | None:
        """Return the normaliser of the first model a stage needs, in which it must see its data.

        It is the data's own, unless that model was imported; then another may have yet another,
        and how far they lie apart is said.
        """
        if not saved:
            return None
        needs = stages.needs(self.config, stage)
        frames = {s: stages.frame(self.config, s) for s in (*needs.values(), stage)}
        if len(set(frames.values())) > 1:
            raise UserError(
                f"{stage}: it and what it needs see observations in different frames, {frames}; "
                "train them with the same data.frame"
            )
        (first, item), *others = saved.items()
        limits = jax.tree.map(np.asarray, item["normalizer"])
        for role, item in others:
            other = jax.tree.map(np.asarray, item["normalizer"])
            gap = max(map(normalization.gap, limits[:2], other[:2]))
            if gap > GAP:
                self.say(
                    f"{stage}: the normalisers of {first} and {role} differ by up to "
                    f"{50 * gap:.1f} % of a dimension's range; that of the {first} is used"
                )
        if needs.get("reward") == "reward":  # advantages are differences of its returns
            returns = saved["reward"]["normalizer"].returns
            limits = limits._replace(returns=jax.tree.map(np.asarray, returns))
        return limits

    def _warn_if_slow(self, stage: str, begun: tuple[float, int], step: int, steps: int) -> None:
        """Say once how long this will take, where that is long, and what would be shorter."""
        seconds, first = begun
        left = (time.monotonic() - seconds) / (step - first) * (steps - step)
        if left > SLOW and not self._warned:
            self._warned = True
            smaller = {"paper": "size=small or size=demo", "small": "size=demo"}
            self.say(
                f"{stage}: about {left / 3600:,.0f} hours to go on this CPU; an accelerator, or "
                f"{smaller.get(self.config['size'], 'fewer optimiser.steps')}, is faster"
            )


# ---- helpers -------------------------------------------------------------------------------------


def _kept(step: int) -> str:
    return f"the checkpoint of update {step:,} is kept" if step else "no checkpoint was due before"


class _Stop(contextlib.AbstractContextManager):
    """True once SIGINT or SIGTERM came; a second one ends the program at once."""

    def __enter__(self):
        self.seen = False
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self):
        return self.seen

    def _note(self, number, frame):
        self.seen = True
        signal.signal(number, self._before[number])
