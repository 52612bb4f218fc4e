"""FQL's numbers (Park et al. 2025): the published ones at paper size."""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return its section."""
    fql = {
        # The layer normalisation is the critic's.
        "network": {"hidden": (512,) * 4, "activation": "gelu", "layer_norm": "after"},
        "data": {"normalization": "none", "reward_scale": "none"},
        "optimiser": base.adam(steps=500_000, schedule="constant"),
        "weights": "live",
        "selection": {"critic": "fql"},
    }
    if given.preset == "default":
        fql["method"] = {"alpha": 3.0, "normalize_q_loss": True}  # one alpha for all tasks
        fql["data"]["normalization"] = "minmax"
        if not given.task.name.startswith("kitchen"):
            fql["data"]["reward_scale"] = "range"
    if given.size == "small":
        fql["optimiser"]["steps"] = 200_000
    if given.size == "demo":
        fql["network"]["hidden"] = (128, 128)
        fql["optimiser"] |= {"steps": 30_000, "learning_rate": 1e-3, "ema": 0.99}
    return {"fql": fql}
