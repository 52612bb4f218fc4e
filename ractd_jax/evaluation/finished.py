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


def runs(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of all finished runs of a pipeline."""
    folders = sorted(path.parent for path in workdir.glob(f"*/{checkpoints.CONFIG}"))
    return [folder for folder in folders if is_finished(folder)]


def require(pipeline: Pipeline, stage: str, why: str) -> None:
    """Refuse to go on where a stage is not trained.

    Raises:
        UserError: it is not; the command that trains it is named.
    """
    if not is_finished(pipeline.run(stage)):
        how = command(pipeline.config, stage, pipeline.workdir)
        raise UserError(f"{why}: {stage} is not trained; {how} trains it")


def command(config: Config, stage: str, workdir: pathlib.Path, named: str = "") -> str:
    """Return the command line that trains a stage of a pipeline.

    Args:
        config: of the pipeline.
        stage: to be trained, or "all".
        workdir: of the pipeline.
        named: the file or name of its configuration; "" where that is not known.
    """
    parts = [stage, f"size={config.size}", f"source={config.source}"]
    if config.env:
        parts.append(f"env={config.env}")
    if config.preset != "default":
        parts.append(f"preset={config.preset}")
    if config.seed:
        parts.append(f"seed={config.seed}")
    named = named or f"<configuration of {config.task.name}>"
    return f"`python main.py --config={named}:{','.join(parts)} --workdir={workdir} --resume`"


def saved_config(workdir: pathlib.Path) -> Config:
    """Return the configuration that the finished runs of a pipeline were trained with.

    Each stage's section is that of its own run; the rest is that of the run that is last in the
    order of tables, which needs most.

    Raises:
        UserError: nothing is trained there, or another version of this project trained it.
    """
    sections, last = {}, None
    for folder in runs(workdir):
        config, stage = run_dir.read(folder)
        sections[stage] = config.stages[stage]
        if last is None or registry.get(stage).order >= registry.get(last.stage).order:
            last = configuration.replace(config, stage=stage)
    if last is None:
        raise UserError(
            f"nothing is trained in {workdir}: train first, for example `python main.py "
            f"--config=configs/hopper_mr.py:all,size=demo,source=simulated --workdir={workdir}`"
        )
    return configuration.replace(last, stages=dict(last.stages) | sections)
