"""IQL's numbers, as Consistency-IDQL has them (CleanDiffuser): its critic values candidates."""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return its section."""
    kitchen = given.task.name.startswith("kitchen")  # rewards count what is done, and stay
    iql = {
        "data": {
            "normalization": "minmax" if given.preset == "default" else "standard",
            "reward_scale": "none" if kitchen else "range",
        },
        "optimiser": base.adam(),
        "weights": "ema",  # the targets
    }
    if given.preset == "released":
        iql["optimiser"]["ema"] = 0.005  # the two rates are mixed up: a target is nearly a copy
    if given.size == "small":
        iql["optimiser"]["steps"] = 200_000
    if given.size == "demo":
        shorten(iql["optimiser"])
    return {"iql": iql}


def shorten(optimiser: dict[str, Any]) -> None:
    """Shorten a critic's training: at the published rates so few updates carry values nowhere."""
    optimiser |= {"steps": 15_000, "learning_rate": 1e-3, "schedule": "cosine"}
    if optimiser["ema"] > 0.5:  # else `released`, where a target is nearly a copy
        optimiser["ema"] = 0.98
