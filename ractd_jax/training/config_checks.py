"""What can be seen to be wrong in a configuration before anything is computed.

Each finding is one line that says what, where and what would work. What only a library, the data or
an earlier run can tell is found where they are met.
"""

import math
import re
from typing import Any

from ractd_jax import errors, stages
from ractd_jax.data import transitions
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.nn import mlp
from ractd_jax.tasks import TaskSpec

FOLLOW = ("waypoints", "inverse")  # how plans become actions: the published controller, or learned


def check(config: dict[str, Any], task: TaskSpec) -> None:
    """Check the numbers of data, networks, optimisers and evaluation.

    Args:
        config: the resolved configuration.
        task: what it is for.

    Raises:
        UserError: with the first that cannot work.
    """
    _finite(config)
    _at_least("seed", config["seed"], 0)
    if config["seed"] >= 2**32:
        raise errors.UserError(f"seed is {config['seed']}: below 2^32, of which keys are made")
    data = config["data"]
    _at_least("data.horizon", data["horizon"], 1)
    history = data.get("history", 1)
    _at_least("data.history", history, 1)
    if history > 1 and task.kind == "planner":
        raise errors.UserError(
            f"data.history is {history}: plans are made from the present state alone, which takes 1"
        )
    for name in ("discount", "errands"):
        _share(f"data.{name}", data.get(name, 0.0))
    for stage in stages.of(config):
        _words(config, stage)
        _network(config, task, stage)
        optimiser = config[stage]["optimiser"]
        epochs = config[stage].get("epochs")  # which steps=0 stands for
        _at_least(f"{stage}.optimiser.steps", optimiser["steps"], 1 if epochs is None else 0)
        if not optimiser["steps"]:
            _at_least(f"{stage}.epochs", epochs, 1)
        _at_least(f"{stage}.optimiser.batch_size", optimiser["batch_size"], 1)
        stages.make(config, task, stage)  # the methods check their own fields
    if "training" in config:
        for name in ("updates_per_dispatch", "save_every", "keep"):
            _at_least(f"training.{name}", config["training"][name], 1)
    if "bench" in config:
        for batch in config["bench"]["batches"]:
            _at_least("bench.batches", batch, 1)
        for name in ("seconds", "limit"):
            _at_least(f"bench.{name}", config["bench"][name], 0)
    if "idql_eval" in config:
        _at_least("idql_eval.candidates", config["idql_eval"]["candidates"], 1)
        for calls in config["idql_eval"]["nfe"]:
            _at_least("idql_eval.nfe", calls, 1)
    if "eval" in config:
        _evaluation(config, task)


WORDS = {  # that a stage's sections may hold
    "network.activation": mlp.ACTIVATIONS,
    "network.layer_norm": ("", "before", "after"),
    "data.frame": transitions.FRAMES,
    "data.reward_scale": transitions.SCALES,
}


def _words(config: dict[str, Any], stage: str) -> None:
    errors.choose(f"{stage}.weights", config[stage]["weights"], ("ema", "live"))
    for name, words in WORDS.items():
        section, field = name.split(".")
        found = config[stage].get(section, {}).get(field)
        if isinstance(found, str):  # the return model's layer_norm is yes or no
            errors.choose(f"{stage}.{name}", found, words)


def _network(config: dict[str, Any], task: TaskSpec, stage: str) -> None:
    network = config[stage].get("network", {})
    _at_least(f"{stage}.network.frequencies", network.get("frequencies", 0), 0)
    for name in ("dropout", "mid_dropout"):
        _share(f"{stage}.network.{name}", network.get(name, 0.0))
    for name in ("hidden", "blocks", "widening", "embed_dim", "groups", "down_dims", "dims"):
        for size in _each(network.get(name, 1)):
            _at_least(f"{stage}.network.{name}", size, 1)
    embed_dim = network.get("embed_dim", 4)
    if embed_dim % 2 or embed_dim < 4:
        raise errors.UserError(
            f"{stage}.network.embed_dim is {embed_dim}: even, half sines, half cosines, and at "
            "least 4"
        )
    if network.get("kind") not in ("unet", "value_unet"):
        return
    if network["width"] % 2 == 0:
        raise errors.UserError(f"{stage}.network.width is {network['width']}: odd, as kernels are")
    widths, value = list(network["down_dims"]), network["kind"] == "value_unet"
    if value:  # it has two more levels, and groups as far as there are channels
        widths += [widths[-1] // 2, widths[-1] // 4]
    for width in widths:
        if not width or width % (min(network["groups"], width) if value else network["groups"]):
            raise errors.UserError(
                f"{stage}.network.down_dims: {width} channels do not make {network['groups']} "
                "equal groups; change them or network.groups"
            )
    if network["kind"] != "unet":
        return
    horizon, _ = stages.window(config, task, stage)
    halvings = len(network["down_dims"]) - 1
    parts = 2**halvings
    if horizon % parts:
        near = " or ".join(
            str(h) for h in (horizon - horizon % parts, horizon + -horizon % parts) if h
        )
        raise errors.UserError(
            f"{stage}.network halves its {horizon} steps {halvings} times, which needs a multiple "
            f"of {parts}: {near}, or fewer down_dims"
        )


def _evaluation(config: dict[str, Any], task: TaskSpec) -> None:
    settings = config["eval"]
    _at_least("eval.episodes", settings["episodes"], 1)
    _at_least("eval.first_seed", settings["first_seed"], 0)
    for text in settings["samplers"]:
        row = parse_row(config, str(text))
        if row.candidates > 1 and task.kind == "planner":
            raise errors.UserError(
                f"eval.samplers: {text!r}: plans are not chosen among candidates; leave them out"
            )
        acting = {**config[row.stage], "method": config[row.stage]["method"] | row.fields}
        stages.make({**config, row.stage: acting}, task, row.stage)
    summary = settings.get("summary", "summary.json")  # not in what older runs have saved
    if not re.fullmatch(r"[\w.-]+\.json", summary):
        raise errors.UserError(
            f"eval.summary is {summary!r}: the name of a file, as in table5.json"
        )
    for stage in settings.get("online", ()):
        errors.choose("stage in eval.online", str(stage), [s for s in stages.ACTING if s in config])
    if task.kind == "planner":
        _at_least("eval.replan_every", settings["replan_every"], 0)
        errors.choose("eval.follow", settings["follow"], FOLLOW)
        for stage in settings["replan"]:
            errors.choose("stage in eval.replan", stage, [s for s in stages.ACTING if s in config])


def _each(sizes: int | list[int]) -> list[int]:
    """Return the sizes of a network's layers, 0 where it has none."""
    return (sizes or [0]) if isinstance(sizes, list) else [sizes]


def _finite(section: dict[str, Any], place: str = "") -> None:
    for name, value in section.items():
        if isinstance(value, dict):
            _finite(value, f"{place}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise errors.UserError(f"{place}{name} is {value}: a finite number")


def _at_least(name: str, value: float | int, least: int) -> None:
    if value < least:
        raise errors.UserError(f"{name} is {value}: at least {least}")


def _share(name: str, value: float | int) -> None:
    if not 0 <= value <= 1:
        raise errors.UserError(f"{name} is {value}: between 0 and 1")
