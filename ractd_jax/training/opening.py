"""From a configuration to a pipeline: what is wrong is found, what is open is filled in."""

import dataclasses
import pathlib

from ractd_jax import config as configuration
from ractd_jax import tasks
from ractd_jax.config import Config
from ractd_jax.console import Progress
from ractd_jax.data import sources, validation
from ractd_jax.data.recorded import Recorded
from ractd_jax.training import config_checks
from ractd_jax.training.pipeline import Pipeline, default_workdir


def open_pipeline(
    config: Config,
    workdir: str | pathlib.Path | None = None,
    progress: Progress | None = None,
) -> Pipeline:
    """Return the pipeline of a configuration, after looking for what cannot work in it.

    Args:
        config: the configuration. Sizes of a task of one's own that it leaves open are those of the
            data, which are loaded for that.
        workdir: its folder; None for the default.
        progress: where to show what goes on; by default the standard output.

    Raises:
        UserError: something in the configuration cannot work, or the data cannot be had.
    """
    task = sources.environment(config.task, config.source, config.env)
    config = configuration.replace(config, task=task)
    progress = progress or Progress()
    recorded = Recorded(config.task, config.source, config.data.transitions, progress)
    if config.task.name == tasks.CUSTOM:
        config = configuration.replace(
            config, task=validation.measure(config.task, recorded.episodes)
        )
    config_checks.check(config)
    folder = pathlib.Path(workdir) if workdir else default_workdir(config)
    return Pipeline(config, folder, recorded, progress)


def open_seeds(
    config: Config, workdir: str | pathlib.Path | None = None, progress: Progress | None = None
) -> list[Pipeline]:
    """Return the pipelines with seeds `config.seed`, ..., as many as `config.seeds`, on one data.

    Args:
        config: the configuration.
        workdir: of a single seed; of several it holds a folder `seed<k>` for each. None for the
            default of each.
        progress: see `open_pipeline`.
    """
    if config.seeds == 1:
        return [open_pipeline(config, workdir, progress)]
    pipelines: list[Pipeline] = []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = pathlib.Path(workdir) / f"seed{seed}" if workdir else None
        one = configuration.replace(config, seed=seed, seeds=1)
        if pipelines:
            one = configuration.replace(one, task=pipelines[0].task)
            place = folder or default_workdir(one)
            pipelines.append(dataclasses.replace(pipelines[0], config=one, workdir=place))
        else:
            pipelines.append(open_pipeline(one, folder, progress))
    return pipelines
