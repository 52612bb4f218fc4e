"""What a run was configured as: where it lies, what it records, whether it may go on there."""

import importlib.metadata
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import jax

from ractd_jax import checkpoints, stages
from ractd_jax.errors import UserError


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
    old = checkpoints.read_json(run / checkpoints.CONFIG)["config"]
    sections = ["task", "source", "seed", "custom", stage]
    if stage not in stages.SINGLE:
        sections.append("data")
        if stage not in ("reward", "inverse"):  # the models that never see noise
            sections.append("noise")
    differences = list(_differences(config, old, sections))
    if "reward" in stages.needs(config, stage):
        kinds = (c["reward"].get("kind", "returns") for c in (config, old))
        differences += _differences(*kinds, prefix="reward.kind")
    for name, now, then in differences:
        if name.endswith("optimiser.steps") and not now:
            continue  # 0 stands for the epochs that the old run has worked out
        if then is None and not now:
            continue  # a choice that earlier versions did not have
        if name == "data.history" and stages.history(config, stage) == stages.history(old, stage):
            continue  # 1 in earlier versions, and in models that see the present alone
        if name == "data.errands" and stage in ("reward", "inverse"):
            continue  # they see single states, and pairs of them
        acting = [f"{stage}.method.{field}" for field in stages.SAMPLING.get(stage, ())]
        if name in acting or f"{name}.".startswith(f"{stage}.reselect."):
            continue  # how it acts may change
        raise UserError(
            f"{run} was trained with {name} = {then}, now it is {now}: --overwrite trains it "
            "again, --workdir=DIR puts the new one elsewhere"
        )


def _differences(new: Any, old: Any, sections=None, prefix: str = ""):
    """Yield (name, new value, old value) of every field that differs."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in sections or sorted(new.keys() | old.keys()):
            yield from _differences(new.get(name), old.get(name), None, f"{prefix}{name}.")
    elif new != old:
        yield prefix.rstrip("."), new, old
