"""Which stages have to be trained, in which order, and what of it is already there.

Several seeds can be trained in one program: each is a pipeline of its own, with the folder,
checkpoints and metrics that a run of that seed alone would have written (to rounding: products are
batched over the seeds). What they share is the data, the compiled program and the time: small
networks leave a machine idle, a stack of them does not. The states of all seeds must fit in memory
together, and one device trains them.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Sequence

from ractd_jax.errors import UserError
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, multihost, run_dir
from ractd_jax.training import stage as training_stage
from ractd_jax.training.pipeline import Pipeline


class Trainer:
    """Trains stages of one pipeline, or of several that differ in their seed alone.

    Args:
        pipelines: the pipelines.
        resume: continue a run that was stopped, keep one that is finished.
        overwrite: train again where a run is.
    """

    def __init__(
        self, pipelines: Sequence[Pipeline], *, resume: bool = False, overwrite: bool = False
    ):
        self.pipelines, self._resume, self._overwrite = list(pipelines), resume, overwrite
        self._ready: set[pathlib.Path] = set()  # runs trained or found

    def ensure(self, stage: str, *, wanted: bool = True) -> None:
        """Train a stage, and before it what it needs, unless a finished run is there.

        Args:
            stage: one of the stages of the task.
            wanted: the user asked for this stage, rather than for one that needs it.

        Raises:
            UserError: a folder holds another run, or one that may not be touched, or the task has
                no such stage.
        """
        self._ensure(self.pipelines, stage, wanted)

    def _ensure(self, pipelines: Sequence[Pipeline], stage: str, wanted: bool) -> None:
        missing = [pipeline for pipeline in pipelines if self.missing(pipeline, stage, wanted)]
        if not missing:
            return
        for need in registry.needs(missing[0].config, stage).values():
            if not any(checkpoints.run_status(pipeline.run(need)) for pipeline in missing):
                missing[0].say(
                    f"{stage} needs the {need}, which is not trained yet: training it first"
                )
            self._ensure(missing, need, False)
        multihost.meet(f"{stage}: ready")
        again = self._overwrite and wanted
        for group in self._groups(missing, stage, again):
            if len(group) > 1:
                group[0].say(f"{stage}: {len(group)} seeds in one program")
            with contextlib.ExitStack() as locks:
                for pipeline in group:
                    locks.enter_context(checkpoints.alone(pipeline.run(stage)))
                training_stage.train(group, stage, again=again)
            self._ready |= {pipeline.run(stage) for pipeline in group}

    def missing(self, pipeline: Pipeline, stage: str, wanted: bool = True) -> bool:
        """Return whether a stage is to be trained; `ensure` says when and what it raises."""
        run = pipeline.run(stage)
        if run in self._ready:
            return False
        if stage not in pipeline.config.stages:
            has = ", ".join(pipeline.config.stages)
            raise UserError(f"{pipeline.task.name} has no stage {stage}: it has {has}")
        status = checkpoints.run_status(run)
        multihost.meet(f"{stage}: seen")  # before anyone changes it
        if status and not (self._overwrite and wanted):
            run_dir.check_same(run, pipeline.config, stage, lambda: pipeline.recorded.identity)
            if status == checkpoints.FINISHED and (self._resume or not wanted):
                pipeline.say(f"{stage}: finished run found in {run}, kept")
                self._ready.add(run)
                return False
            if not self._resume:
                raise UserError(
                    f"{run} holds a run ({status}): --resume continues or keeps it, --overwrite "
                    "trains it again, --workdir=DIR puts the new one elsewhere"
                )
        return True

    @staticmethod
    def _groups(missing: Sequence[Pipeline], stage: str, again: bool) -> list[list[Pipeline]]:
        """Return the pipelines that can be trained together: those at the same update."""
        if len(missing) == 1 or registry.make(missing[0].config, stage).prepare:
            return [[pipeline] for pipeline in missing]  # their prepared data are their own
        at = {p.run(stage): 0 if again else _newest(p.run(stage)) for p in missing}
        ordered = sorted(missing, key=lambda p: at[p.run(stage)])
        grouped = itertools.groupby(ordered, lambda p: at[p.run(stage)])
        return [list(group) for _, group in grouped]


def _newest(run: pathlib.Path) -> int:
    return max(checkpoints.steps(run), default=0)
