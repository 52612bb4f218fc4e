"""A suite of runs with their dependencies, scheduled by Ray.

Every entry is one stage of one pipeline (task and seed), in the folder that `main.py` would give
it, so a suite and single commands can finish each other's work. Which entry waits for which is what
`Method.needs` says; the rest, where and when and what to try again, is Ray's.
"""

import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ractd_jax.cli import configs
from ractd_jax.cli.fields import set_fields
from ractd_jax.errors import UserError, choose
from ractd_jax.evaluation import evaluate
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, compilation_cache, opening, pipeline
from ractd_jax.training.trainer import Trainer

EVAL = "eval"
LABELS = ("task", "stage", "seed", "size", "source", "env", "preset")  # what others follow


class Entry(NamedTuple):
    """One stage of one pipeline.

    Attributes:
        name: for people, unique.
        config: its configuration, as nested plain dicts.
        workdir: folder of the pipeline.
        needs: names of the entries that must be finished first.
    """

    name: str
    config: dict[str, Any]
    workdir: str
    needs: tuple[str, ...]


def entries(suite: dict[str, Any], root: str | None = None) -> Iterator[Entry]:
    """Yield the entries of a suite, every one after those that it needs.

    Args:
        suite: `configs/suite.py` as a plain dict.
        root: folder in the place of `runs`.

    Raises:
        UserError: a task, a stage or a field is none.
    """
    for stage in suite["stages"]:
        choose("stage", stage, (*registry.records(), EVAL))
    known = set(configs.names()) - {"suite"}
    for variant, fields in (suite["variants"] or {"": ()}).items():
        place, fields = root, (*suite["fields"], *fields)
        if variant:  # other fields, other folders
            place = pathlib.Path(root or "runs") / suite["suite"] / variant
        for task in suite["tasks"]:
            choose("task", task, known)
            for seed in suite["seeds"]:
                title = f"{task} seed {seed}" + f" {variant}" * bool(variant)
                yield from _pipeline(suite, place, task, seed, fields, title)


def _pipeline(
    suite: dict[str, Any],
    root: str | pathlib.Path | None,
    task: str,
    seed: int,
    fields: tuple[str, ...],
    title: str,
) -> Iterator[Entry]:
    labels = ",".join(f"{name}={suite[name]}" for name in ("size", "source", "env", "preset"))
    values = configs.load(task, f"{labels},seed={seed}")
    for field in fields:
        _set(values, field)
    plain = values.to_dict()
    config = registry.configure(plain)
    folder = pipeline.default_workdir(config)
    if root:
        folder = pathlib.Path(root) / folder.relative_to("runs")
    done: dict[str, Entry] = {}

    def add(stage: str) -> None:
        if stage in done:
            return
        # What is trained is evaluated, whatever the order of the words.
        trained = [s for s in suite["stages"] if s != EVAL]
        needs = trained if stage == EVAL else list(registry.needs(config, stage).values())
        for need in needs:
            add(need)
        names = tuple(done[need].name for need in needs)
        entry_config = plain | {"stage": stage}
        done[stage] = Entry(f"{title} {stage}", entry_config, str(folder), names)

    for stage in suite["stages"]:
        add(stage)
    yield from done.values()


def _set(config: ConfigDict, field: str) -> None:
    """Set a field of a configuration by its full name, as `--config.<name>=<value>` does."""
    if field.partition("=")[0] in LABELS:
        raise UserError(
            f"fields of the suite, {field!r}: that would change the word and not what it stands "
            "for; a suite has tasks, stages, seeds, size, source, env and preset of its own"
        )
    try:
        set_fields(config, [field])
    except UserError as error:
        raise UserError(f"fields of the suite, {field!r}: {error}") from error


def finished(entry: Entry, skipped: set[str]) -> bool:
    """Return whether nothing is left to do for an entry.

    Args:
        entry: of a suite.
        skipped: names of the entries before it for which that is so.

    Raises:
        UserError: its folder holds a run with another configuration.
    """
    if entry.config["stage"] == EVAL:
        return skipped.issuperset(entry.needs) and _evaluated(entry)
    job = opening.open_pipeline(registry.configure(entry.config), entry.workdir)
    return not Trainer([job], resume=True).missing(job, entry.config["stage"])


def _evaluated(entry: Entry) -> bool:
    """Return whether the models that there are have been evaluated as an entry asks."""
    folder = pathlib.Path(entry.workdir)
    summary = folder / entry.config["eval"]["summary"]
    settings_file = evaluate.settings_file(summary)
    if not summary.exists() or not settings_file.exists():
        return False
    trained = (folder / name.rpartition(" ")[2] / checkpoints.FINISHED for name in entry.needs)
    if any(run.stat().st_mtime > summary.stat().st_mtime for run in trained):
        return False
    return checkpoints.read_json(settings_file) == evaluate.settings(
        registry.configure(entry.config)
    )


def work(config: dict[str, Any], workdir: str, folder: str, *needed: None) -> None:
    """Do an entry, in a process of Ray's.

    Args:
        config: see `Entry`.
        workdir: see `Entry`.
        folder: where the suite was started, from which paths count.
        *needed: what Ray waits for.
    """
    os.chdir(folder)
    compilation_cache.keep(config["training"]["compilation_cache"])
    job = opening.open_pipeline(registry.configure(config), workdir)
    if config["stage"] == EVAL:
        evaluate.evaluate_all(job)
    else:
        Trainer([job], resume=True).ensure(config["stage"])


def run(suite: dict[str, Any], root: str | None = None, address: str | None = None) -> None:
    """Do whatever of a suite is not finished.

    Args:
        suite: see `entries`.
        root: folder in the place of `runs`.
        address: of a Ray cluster; None starts one here, for as long as this lasts.

    Raises:
        UserError: Ray is missing or cannot be reached, or entries failed (the others are done).
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("a suite needs Ray: pip install ray (the extra suite)") from None
    everything, skipped = list(entries(suite, root)), set()
    for entry in everything:
        if finished(entry, skipped):
            skipped.add(entry.name)
    print(f"suite {suite['suite']}: {len(everything)} entries, {len(skipped)} finished before")
    if len(skipped) == len(everything):
        return
    try:
        with warnings.catch_warnings():
            # JAX warns of forks; Ray's become other programs at once.
            warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}},
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray: {str(error).splitlines()[0]}") from error
    try:
        failed = _schedule(ray, suite, [e for e in everything if e.name not in skipped])
    finally:
        ray.shutdown()
    if failed:
        raise UserError(
            f"{len(failed)} of {len(everything)} entries are not done: {', '.join(failed)}; the "
            "same command tries them again"
        )


def _schedule(ray: Any, suite: dict[str, Any], missing: list[Entry]) -> list[str]:
    """Hand all entries to Ray, report each as it ends, return the names of those that failed."""
    remote = ray.remote(
        num_cpus=suite["cpus"],
        num_gpus=suite["gpus"],
        max_retries=suite["retries"],
        retry_exceptions=True,
        max_calls=1,  # a process for each, so that none keeps an accelerator's memory
    )(work)
    running = {}
    for entry in missing:
        needed = [running[name] for name in entry.needs if name in running]
        running[entry.name] = remote.remote(entry.config, entry.workdir, os.getcwd(), *needed)
    names, needs = {ref: name for name, ref in running.items()}, {e.name: e.needs for e in missing}
    left, failed = list(names), []
    while left:
        (ref,), left = ray.wait(left)
        name, done = names[ref], len(missing) - len(left)
        said = "done"
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            waited = [need for need in needs[name] if need in failed]
            cause = getattr(error, "cause", None) or error
            said = f"not begun, for {waited[0]} failed" if waited else f"failed: {_line(cause)}"
            failed.append(name)
        print(f"{done}/{len(missing)}  {name}: {said}", flush=True)
    return failed


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
