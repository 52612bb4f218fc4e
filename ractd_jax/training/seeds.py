"""Several training seeds in one program: `seeds=5` trains five students side by side.

Each seed is an `Experiment` of its own, with the folder, checkpoints and metrics that a run of that
seed alone would have written (to rounding: products are batched over the seeds). What they share is
the data, the compiled program and the time: small networks leave a machine idle, a stack of them
does not. The states of all seeds must fit in memory together, and one device trains them.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from ractd_jax import stages
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Experiment


def experiments(
    config: dict[str, Any], count: int, workdir: str | None, **settings
) -> list[Experiment]:
    """Return the experiments with seeds `seed`, ..., `seed + count - 1`.

    Args:
        config: the configuration as nested plain dicts.
        count: how many seeds.
        workdir: of a single seed; of several it holds a folder `seed<k>` for each. None for the
            default of each.
        **settings: of every `Experiment`.
    """
    if count == 1:
        return [Experiment(config, workdir, **settings)]
    found = []
    for seed in range(config["seed"], config["seed"] + count):
        folder = str(pathlib.Path(workdir) / f"seed{seed}") if workdir else None
        found.append(Experiment(config | {"seed": seed, "seeds": 1}, folder, **settings))
    return found


def share_data(jobs: Sequence[Experiment]) -> None:
    """Let the first experiment load its data for all."""
    for job in jobs[1:]:
        job.transitions = jobs[0].transitions


def ensure(jobs: Sequence[Experiment], stage: str, *, wanted: bool = True) -> None:
    """Train a stage of every experiment, and before it what it needs; see `Experiment.ensure`.

    Runs that are at the same update are trained together.
    """
    missing = [job for job in jobs if job.missing(stage, wanted)]
    if not missing:
        return
    for need in stages.needs(missing[0].config, stage).values():
        ensure(missing, need, wanted=False)
    again = missing[0].overwrite and wanted
    if stages.make(missing[0].config, missing[0].task, stage).prepare:
        for job in missing:  # whose data are its own
            with checkpoints.alone(job.workdir / stage):
                job.train(stage, again=again)
        return
    at = {job: 0 if again else _newest(job.workdir / stage) for job in missing}
    for _, group in itertools.groupby(sorted(missing, key=at.get), at.get):
        first, *others = group
        first.say(f"{stage}: {1 + len(others)} seeds in one program")
        with contextlib.ExitStack() as locks:
            for job in (first, *others):
                locks.enter_context(checkpoints.alone(job.workdir / stage))
            first.train(stage, others, again=again)


def _newest(run: pathlib.Path) -> int:
    store = checkpoints.Checkpoints(run)
    step = store.latest() or 0
    store.close()
    return step
