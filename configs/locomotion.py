"""Gym-MuJoCo locomotion: what its nine tasks share.

A size changes networks, batches and lengths of training; a preset changes the method. Sources:
RACTD appendices A and B for `paper`, the published YAML files and code for `released`.
"""

from ml_collections import ConfigDict

from ractd_jax import tasks

from . import base
from .methods import ractd

# Paper, App. B.2.
DISCOUNT = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}
# Simulated steps at demo size, a fifth of D4RL's; replay sets are that small as D4RL has them.
DEMO_TRANSITIONS = {"medium": 200_000, "medium-expert": 400_000}


def make(
    name: str,
    arg: str | None,
    *,
    epochs: int,
    reward_weight: dict[str, float],
    return_model: dict[str, int | float] | None = None,
) -> ConfigDict:
    """Return the configuration of a locomotion task.

    Args:
        name: D4RL's dataset id.
        arg: what follows the colon on the command line.
        epochs: of the student at paper size, as released.
        reward_weight: sigma of Eq. 9 by preset: "paper" (Table 9) and "released" (YAML); `default`
            has one for all tasks.
        return_model: fields of its training at paper size where the released YAML of the task is
            not like the others' (`batch_size`, `learning_rate`, `epochs`).
    """
    task = tasks.get(name)
    given = base.given(
        task, arg, epochs=epochs, reward_weight=reward_weight, return_model=return_model or {}
    )
    data = {"discount": DISCOUNT[name.split("-")[0]]}
    return base.make(given, **sections(given, data))


def sections(given: base.Given, data: dict) -> dict[str, dict]:
    """Return the shared sections of a task whose models act.

    Args:
        given: the task and the words of the command line.
        data: fields of the section `data` at paper size, preset `paper`.
    """
    data, noise, training, evaluation = dict(data), {}, {}, {}
    idql_eval = {}
    if given.preset == "default":
        # One call chooses a mode and gives its centre; observations of mean 0 and deviation 1.
        data["normalization"] = "standard"
        noise |= {"bins": ractd.BINS, "sigma_last": 0.5}
    if given.preset == "released":
        data |= {"discount": 0.99, "termination_penalty": 0.0, "drop_last_window": True}
        noise |= {"initial_std": 1.0, "clamp": False}
    if given.size == "small":
        training["updates_per_dispatch"] = 50
    if given.size == "demo":
        data["horizon"] = 4  # 16 actions are too much for so small a network: docs/results.md
        if given.source == "simulated":
            quality = given.task.name.removesuffix("-v2").partition("-")[2]
            data["transitions"] = DEMO_TRANSITIONS.get(quality, 0)
        training |= {"updates_per_dispatch": 100, "save_every": 1000}
        evaluation["episodes"] = 50
        idql_eval["candidates"] = 32
    return {
        "data": data,
        "noise": noise,
        "training": training,
        "eval": evaluation,
        "idql_eval": idql_eval,
    }
