"""EDA's numbers: behaviour model, critic, and the policy aligned with it; as published."""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base
from . import iql

# EDA's beta, by task. Data of one's own take 0.2, the commonest.
BETA = {
    "halfcheetah-medium-expert-v2": 2.0,
    "halfcheetah-medium-v2": 0.1,
    "halfcheetah-medium-replay-v2": 0.2,
    "hopper-medium-expert-v2": 2.0,
    "hopper-medium-v2": 0.2,
    "hopper-medium-replay-v2": 0.2,
    "walker2d-medium-expert-v2": 0.3,
    "walker2d-medium-v2": 0.5,
    "walker2d-medium-replay-v2": 0.1,
    "kitchen-complete-v0": 2.0,
    "kitchen-partial-v0": 3.0,
    "kitchen-mixed-v0": 3.0,
}
# Antmaze has no environment here. For a file of one's own (configs/custom.py), whose rewards are to
# be r - 1: beta by its name, and fields of `eda_critic.method`, `iql.method` and of `selection`.
ANTMAZE_BETA = {"umaze": 0.5, "umaze-diverse": 5.0, "medium-play": 1.0, "medium-diverse": 1.0}
ANTMAZE = {"expectile": 0.9, "temperature": 10.0, "inverse_temperature": 5.0}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return the sections of its three stages."""
    sections = {
        "eda_behavior": {
            "network": {"dropout": 0.1},
            "method": {},
            "optimiser": base.adam(batch_size=2048, ema=0.0, schedule="constant"),
            "weights": "live",
            "selection": {"critic": "eda_critic"},
        },
        "eda_critic": {
            "network": {"hidden": (256, 256), "activation": "relu", "layer_norm": ""},
            "optimiser": base.adam(steps=1_500_000, schedule="constant"),
            "weights": "ema",
        },
        "eda": {
            "method": {"beta": BETA.get(given.task.name, 0.2)},
            "optimiser": base.adam(steps=200_000, learning_rate=5e-5, ema=0.0, schedule="constant"),
            "weights": "live",
            "selection": {"critic": "eda_critic", "candidates": 4},
        },
    }
    kitchen = given.task.name.startswith("kitchen")  # rewards count what is done, and stay
    for section in sections.values():
        section["data"] = {
            "normalization": "minmax" if given.preset == "default" else "none",
            "reward_scale": "none" if kitchen else "range",
        }
    if given.preset == "default":
        for stage in ("eda_behavior", "eda"):
            sections[stage]["method"] |= {"spacing": "quadratic", "clip": True}
        # Without it Q grows away from the data, and that is where the policy then goes.
        sections["eda_critic"]["network"]["layer_norm"] = "before"
    if given.size == "small":
        sections["eda_behavior"]["optimiser"] |= {"steps": 200_000, "batch_size": 1024}
        sections["eda_behavior"]["optimiser"]["schedule"] = "cosine"
        sections["eda_critic"]["optimiser"]["steps"] = 200_000
        sections["eda"]["optimiser"]["steps"] = 20_000
        sections["eda"]["method"]["states"] = 100_000
    if given.size == "demo":
        _demo(sections)
    return sections


def _demo(sections: dict[str, dict[str, Any]]) -> None:
    iql.shorten(sections["eda_critic"]["optimiser"])
    behavior, eda = sections["eda_behavior"], sections["eda"]
    behavior["network"] |= {"hidden": 128, "blocks": 2, "widening": 2, "dropout": 0.0}
    behavior["optimiser"] |= {"steps": 12_000, "batch_size": 256, "learning_rate": 1e-3}
    behavior["optimiser"]["schedule"] = "cosine"
    # So few updates of so few states carry the policy too far with the published 0.1 to 0.5.
    eda["method"] |= {"beta": max(eda["method"]["beta"], 2.0), "states": 4000}
    eda["optimiser"] |= {"steps": 4000, "batch_size": 64, "learning_rate": 2e-4}
