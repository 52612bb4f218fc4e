"""The folder of a run: where it lies, what it records, whether it may go on there."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from ractd_jax.config import Config
from ractd_jax.data.identity import Identity
from ractd_jax.errors import UserError, one_line
from ractd_jax.method import Reads
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "gymnasium")
SUM = "sha256"  # of all else that config.json says


def describe(config: Config, stage: str, data: Identity | None = None) -> dict[str, Any]:
    """Return what config.json says: stage, configuration, data, versions, device.

    Args:
        config: the resolved configuration.
        stage: of the run.
        data: what it is trained on; None for a model that was imported.
    """
    known = {} if data is None else {"data": data._asdict()}
    return known | {
        "stage": stage,
        "config": registry.plain(config),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": str(jax.devices()[0].device_kind),
    }


def write(run: pathlib.Path, description: dict[str, Any]) -> None:
    """Write config.json, with a sum of what it says.

    Raises:
        UserError: it cannot be written.
    """
    summed = description | {SUM: _sum(description)}
    checkpoints.write_json(run / checkpoints.CONFIG, summed)


def _sum(description: dict[str, Any]) -> str:
    values = json.loads(json.dumps({k: v for k, v in description.items() if k != SUM}))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read(run: pathlib.Path) -> tuple[Config, str]:
    """Return the configuration and the stage of a run, as its config.json has them.

    Raises:
        UserError: there is none, another program or another version wrote it, or it is damaged.
    """
    path = run / checkpoints.CONFIG
    description = checkpoints.read_json(path)
    description = description if isinstance(description, dict) else {}
    values, stage = description.get("config"), description.get("stage")
    if not isinstance(values, dict) or not isinstance(stage, str):
        raise UserError(
            f"{path} has no config and stage, so {run} is no run of ractd_jax: choose the folder "
            "of one, such as runs/<task>/<...>/student"
        )
    known = registry.records()
    if stage not in known:
        raise UserError(
            f"{run} is of the stage {stage!r}, whose method is not known here: bring it with "
            "--method=FILE (methods.registry.load), or install the package that has it"
        )
    with of_this_version(run):
        # A stage of a method that is not here does not matter to the others.
        foreign = {n for n, v in values.items() if n not in known and _is_section(v)}
        config = registry.configure(
            {name: value for name, value in values.items() if name not in foreign}, whole=True
        )
        if stage not in config.stages:
            raise LookupError(f"a stage {stage!r}")
    if SUM in description and description[SUM] != _sum(description):
        raise UserError(
            f"{path} is not what was written, by its {SUM}: copy it again; if you changed it "
            f"yourself, remove {SUM} from it"
        )
    return config, stage


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and {"method", "network", "optimiser"} <= value.keys()


@contextlib.contextmanager
def of_this_version(run: pathlib.Path) -> Iterator[None]:
    """Name the run in the error, if its configuration does not have this version's fields."""
    try:
        yield
    except Exception as error:  # whatever such a file may hold
        reason = one_line(error)[:300]
        raise UserError(
            f"{run} was written by another version of ractd_jax, or changed by hand ({reason}): "
            "use that version, or train it again"
        ) from error


def training_seconds(workdir: pathlib.Path, config: Config, names: Iterable[str]) -> float | None:
    """Return how long some stages and all they need were trained; None if one does not say.

    Args:
        workdir: folder of the pipeline.
        config: its configuration.
        names: stages.
    """
    stages = {need for name in names for need in (name, *registry.all_needs(config, name))}
    paths = [workdir / stage / checkpoints.TIMING for stage in stages]
    if not all(path.exists() for path in paths):  # imported
        return None
    return sum(seconds(path.parent) for path in paths)


def seconds(run: pathlib.Path) -> float:
    """Return how long a run was trained.

    Raises:
        UserError: it does not say.
    """
    path = run / checkpoints.TIMING
    try:
        timing = checkpoints.read_json(path) if path.exists() else None
        value: Any = timing["seconds"] if isinstance(timing, dict) else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and 0 <= value < math.inf:
            return float(value)
        reason = f"{path} does not say for how many seconds {run} was trained"
    except (UserError, LookupError, OverflowError) as error:
        reason = f"{path} cannot be used ({one_line(error)})"
    raise UserError(
        f'{reason}: write {{"seconds": <number>}} into it, or train again with --overwrite'
    )


def check_same(
    run: pathlib.Path,
    config: Config,
    stage: str,
    data: Callable[[], Identity] | None = None,
) -> None:
    """Refuse to go on in a folder whose run was configured otherwise, or saw other data.

    Data are the same if their numbers are, wherever they lie (`data.identity`).

    Args:
        run: the folder.
        config: the new configuration.
        stage: of the run.
        data: returns what the new data are known by; None if they do not matter.

    Raises:
        UserError: with what differs: the data, or the first field that matters.
    """
    old, _ = read(run)
    known = _data_of(run)
    if data and known and known != data():
        raise UserError(
            f"{run} was trained on other data ({known}) than source={config.source} holds "
            f"({data()}): --overwrite trains it again, --workdir=DIR puts the new one elsewhere"
        )
    if data and not known and config.source != old.source:
        raise UserError(
            f"{run} was trained with source = {old.source}, now it is {config.source}: --overwrite "
            "trains it again, --workdir=DIR puts the new one elsewhere"
        )
    finished = checkpoints.run_status(run) == checkpoints.FINISHED
    for name, now, then in differences(config, old, stage, finished=finished):
        raise UserError(
            f"{run} was trained with {name} = {then}, now it is {now}: --overwrite trains it "
            "again, --workdir=DIR puts the new one elsewhere"
        )


def _data_of(run: pathlib.Path) -> Identity | None:
    """Return what the data of a run are known by; None if it was imported."""
    data = checkpoints.read_json(run / checkpoints.CONFIG).get("data")
    if data is None:
        return None
    with of_this_version(run):
        return Identity(**data)


def differences(
    config: Config, old: Config, stage: str, *, finished: bool
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, new value, old value) of everything that a stage depends on and that differs.

    How a model acts may differ: fields that only acting heeds, how candidates are chosen, and the
    environment, unless its data were simulated there.

    Args:
        config: the new configuration.
        old: that of a run.
        stage: of the run.
        finished: it is; then its network may act in any precision.
    """
    method, parts = registry.get(stage), (stage, *registry.all_needs(config, stage))
    new_values, old_values = (json.loads(json.dumps(registry.plain(c))) for c in (config, old))
    sections = ["task", "size", "preset", "seed", *parts]
    if method.reads is not Reads.TRANSITIONS:
        sections.append("data")
        if method.reads not in (Reads.RETURNS, Reads.PAIRS):  # the models that never see noise
            sections.append("noise")
    changes = list(_differences(new_values, old_values, sections))
    if method.reads is Reads.TRANSITIONS:  # of the data's fields they heed one
        counts = config.data.transitions, old.data.transitions
        changes += _differences(*counts, prefix="data.transitions")
    if method.heeds_precision and not finished:
        precisions = config.training.precision, old.training.precision
        changes += _differences(*precisions, prefix="training.precision")
    if "reward" in registry.needs(config, stage):
        changes += _differences(config.critic, old.critic, prefix="critic")
    changes += _differences(dict(method.depends(config)), dict(method.depends(old)))
    ignored = {  # fields that do not concern this method or these data
        "data.history": not method.uses_history,
        "data.goal_relabel": method.reads in (Reads.RETURNS, Reads.PAIRS),  # single states, pairs
        "task.env_id": config.source != "simulated",
    }
    for name, now, then in changes:
        if name.endswith("optimiser.steps") and not (now and then):
            continue  # 0 stands for the epochs that the other has worked out
        if ignored.get(name):
            continue
        part, _, field = name.partition(".")
        if part in parts and field.startswith("selection."):
            continue
        if part in parts and field.removeprefix("method.") in registry.get(part).sampling_fields:
            continue
        yield name, now, then


def _differences(
    new: Any, old: Any, sections: Iterable[str] | None = None, prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, new value, old value) of every field that differs."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in sections or sorted(new.keys() | old.keys()):
            yield from _differences(new.get(name), old.get(name), None, f"{prefix}{name}.")
    elif new != old:
        yield prefix.rstrip("."), new, old
