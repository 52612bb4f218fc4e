"""The finished runs of a pipeline, and the configuration they were trained with."""

import pathlib

from ractd_jax import config as configuration
from ractd_jax.config import Config
from ractd_jax.errors import UserError
from ractd_jax.evaluation.rows import acting_stages
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, run_dir
from ractd_jax.training.pipeline import Pipeline


def trained(pipeline: Pipeline) -> list[str]:
    """Return the stages with a finished policy, in the order of the table."""
    return [s for s in acting_stages(pipeline.config) if is_finished(pipeline.run(s))]


def is_finished(run: pathlib.Path) -> bool:
    """Tell if a folder holds a finished run."""
    return checkpoints.run_status(run) == checkpoints.FINISHED


def require(pipeline: Pipeline, stage: str, why: str) -> None:
    """Refuse to go on where a stage is not trained.

    Raises:
        UserError: it is not; the command that trains it is named.
    """
    if not is_finished(pipeline.run(stage)):
        raise UserError(f"{why}: {stage} is not trained; {command(pipeline, stage)} trains it")


def command(pipeline: Pipeline, stage: str) -> str:
    """Return the command line that trains a stage of a pipeline."""
    config = pipeline.config
    words = [stage, f"size={config.size}", f"source={config.source}"]
    if config.preset != "default":
        words.append(f"preset={config.preset}")
    if config.seed:
        words.append(f"seed={config.seed}")
    return (
        f"`python main.py --config=<configuration of {config.task.name}>:{','.join(words)} "
        f"--workdir={pipeline.workdir} --resume`"
    )


def saved_config(workdir: pathlib.Path) -> Config:
    """Return the configuration that the finished runs of a pipeline were trained with.

    Each stage's section is that of its own run; the rest is that of the run that needs most.

    Raises:
        UserError: nothing is trained there.
    """
    found: Config | None = None
    sections = {}
    for run in sorted(workdir.glob(f"*/{checkpoints.CONFIG}")):
        folder = run.parent
        if not is_finished(folder):
            continue
        config, stage = run_dir.read(folder)
        sections[stage] = config.stages[stage]
        order = registry.get(stage).order
        if found is None or order >= registry.get(found.stage).order:
            found = configuration.replace(config, stage=stage)
    if found is None:
        raise UserError(
            f"nothing is trained in {workdir}: train first, for example `python main.py "
            f"--config=configs/hopper_mr.py:all,size=demo,source=simulated --workdir={workdir}`"
        )
    return configuration.replace(found, stages=dict(found.stages) | sections)
