"""What every configuration has: the sections shared by all stages, and a section for each stage.

A task's file calls `make` with what comes after the colon on the command line:

    --config=configs/hopper_mr.py:<stage>[,size=...][,source=...][,env=...][,preset=...][,seed=...]

A field has its default in its dataclass (`ractd_jax/config/schema.py`, or the method's file). The
files of this folder hold what differs.
"""

from typing import Any

from ml_collections import ConfigDict

from ractd_jax import tasks
from ractd_jax.cli import configs
from ractd_jax.cli.words import Given, parse


def given(task: tasks.TaskSpec, arg: str | None, **numbers: Any) -> Given:
    """Return what the files of the methods look at.

    Args:
        task: what the configuration is for.
        arg: what follows the colon on the command line.
        **numbers: of the task.
    """
    return Given(task, **parse(arg), numbers=numbers)


def make(given: Given, **sections: dict[str, Any]) -> ConfigDict:
    """Return a configuration.

    Args:
        given: the task and the words of the command line.
        **sections: fields of the shared sections that differ from their defaults, as
            `data={"horizon": 128}`.
    """
    return configs.complete(given, sections)


def adam(**fields: Any) -> dict[str, Any]:
    """Return how networks of single actions are trained, unless `fields` say otherwise."""
    return {
        "steps": 1_000_000,
        "batch_size": 256,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "b1": 0.9,
        "warmup": 1,
        "ema": 0.995,  # targets follow at rate 1 - ema
        "ema_power": 0.0,
    } | fields
