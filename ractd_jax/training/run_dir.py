"""What a run was configured as: where it lies, what it records, whether it may go on there."""

import contextlib
import importlib.metadata
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from ractd_jax import stages
from ractd_jax.errors import UserError
from ractd_jax.training import checkpoints


def default_workdir(config: dict[str, Any]) -> pathlib.Path:
    """Return `runs/<task>/<size>[-<source>][-<preset>]-seed<k>`; usual choices are not named."""
    source = config["source"]
    short = source if source.startswith("minari:") else pathlib.Path(source).stem
    source = "" if source == "d4rl" else f"-{short}"
    preset = "" if config["preset"] == "default" else f"-{config['preset']}"
    name = f"{config['size']}{source}{preset}-seed{config['seed']}"
    return pathlib.Path("runs") / config["task"] / re.sub(r"[^\w.-]", "_", name)


def describe(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return what config.json says: stage, resolved configuration, versions, device."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "gymnasium")
    return {
        "stage": stage,
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "device": str(jax.devices()[0].device_kind),
    }


def read(run: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Return the configuration and the stage of a run, as its config.json has them.

    Raises:
        UserError: there is none, it is not of ours, or its stage is unknown.
    """
    path = run / checkpoints.CONFIG
    found = checkpoints.read_json(path)
    found = found if isinstance(found, dict) else {}
    config, stage = found.get("config"), found.get("stage")
    if not isinstance(config, dict) or not isinstance(stage, str):
        raise UserError(
            f"{path} has no config and stage, so {run} holds no run of ours: choose the folder of "
            "one, such as runs/<task>/<...>/student"
        )
    with of_this_version(run):
        if stage not in stages.TRAINED:
            raise LookupError(f"a stage {stage!r}")
    return config, stage


@contextlib.contextmanager
def of_this_version(run: pathlib.Path) -> Iterator[None]:
    """Say which run it is, where its configuration has not the fields that this version has."""
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{run} was written by another version of ractd_jax ({reason}): use that one, or train "
            "it again"
        ) from error


def training_seconds(
    workdir: pathlib.Path, config: dict[str, Any], names: Iterable[str]
) -> float | None:
    """Return how long some stages and all they need were trained; None if one does not say.

    Args:
        workdir: folder of the pipeline.
        config: the resolved configuration.
        names: stages.
    """
    found, left = {}, list(names)
    while left:
        stage = left.pop()
        path = workdir / stage / checkpoints.TIMING
        if not path.exists():  # imported, or trained by an earlier version
            return None
        found[stage] = checkpoints.read_json(path)["seconds"]
        left += set(stages.needs(config, stage).values()) - found.keys()
    return sum(found.values())


def check_same(run: pathlib.Path, config: dict[str, Any], stage: str) -> None:
    """Refuse to go on in a folder whose run was configured otherwise.

    Raises:
        UserError: with the first field that differs and matters.
    """
    old, _ = read(run)
    with of_this_version(run):
        _check_same(run, config, old, stage)


def _check_same(run, config, old, stage) -> None:
    parts = (stage, *_needed(config, stage))  # of the models before it as it found them
    sections = ["task", "source", "size", "preset", "seed", "custom", *parts]
    if stage not in stages.SINGLE:
        sections.append("data")
        if stage not in ("reward", "inverse"):  # the models that never see noise
            sections.append("noise")
    differences = list(_differences(config, old, sections))
    if stage in stages.SINGLE:  # of the data's fields they heed one
        cuts = (c["data"].get("transitions") for c in (config, old))
        differences += _differences(*cuts, prefix="data.transitions")
    denoises = "kind" in config[stage].get("network", {})
    if denoises and checkpoints.run_status(run) != checkpoints.FINISHED:  # then it may act in any
        precisions = map(stages.precision, (config, old))
        differences += _differences(*precisions, prefix="training.precision")
    if "reward" in stages.needs(config, stage):
        kinds = (c["reward"].get("kind", "returns") for c in (config, old))
        differences += _differences(*kinds, prefix="reward.kind")
    if stage == "diffuser_value":  # it judges noisy ways: of the planner's schedule and length
        methods = (c["diffuser"]["method"] for c in (config, old))
        planned = ({name: m.get(name) for name in ("steps", "horizon")} for m in methods)
        differences += _differences(*planned, prefix="diffuser.method.")
    for name, now, then in differences:
        if name.endswith("optimiser.steps") and not (now and then):
            continue  # 0 stands for the epochs that the other has worked out
        if then is None and not now:
            continue  # a choice that earlier versions did not have
        if name == "data.history" and stages.history(config, stage) == stages.history(old, stage):
            continue  # 1 in earlier versions, and in models that see the present alone
        if name == "data.errands" and stage in ("reward", "inverse"):
            continue  # they see single states, and pairs of them
        part, _, field = name.partition(".")
        acting = [f"method.{word}" for word in stages.SAMPLING.get(part, ())]
        if part in parts and (field in acting or f"{field}.".startswith("reselect.")):
            continue  # how it acts may change
        raise UserError(
            f"{run} was trained with {name} = {then}, now it is {now}: --overwrite trains it "
            "again, --workdir=DIR puts the new one elsewhere"
        )


def _needed(config: dict[str, Any], stage: str) -> list[str]:
    """Return the stages that a stage is trained from, and those that they are."""
    needs = stages.needs(config, stage).values()
    return [*dict.fromkeys(name for need in needs for name in (need, *_needed(config, need)))]


def _differences(new: Any, old: Any, sections=None, prefix: str = ""):
    """Yield (name, new value, old value) of every field that differs."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in sections or sorted(new.keys() | old.keys()):
            yield from _differences(new.get(name), old.get(name), None, f"{prefix}{name}.")
    elif new != old:
        yield prefix.rstrip("."), new, old
