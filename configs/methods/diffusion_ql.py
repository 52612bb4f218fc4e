"""Diffusion-QL's numbers (Wang et al. 2023): the published ones at paper size."""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base

# The published length of gradients, weight of the critic and updates of each task.
TASKS = {
    "halfcheetah-medium-v2": (9.0, 1.0, 2_000_000),
    "halfcheetah-medium-replay-v2": (2.0, 1.0, 2_000_000),
    "halfcheetah-medium-expert-v2": (7.0, 1.0, 2_000_000),
    "hopper-medium-v2": (9.0, 1.0, 2_000_000),
    "hopper-medium-replay-v2": (4.0, 1.0, 2_000_000),
    "hopper-medium-expert-v2": (5.0, 1.0, 2_000_000),
    "walker2d-medium-v2": (1.0, 1.0, 2_000_000),
    "walker2d-medium-replay-v2": (4.0, 1.0, 2_000_000),
    "walker2d-medium-expert-v2": (5.0, 1.0, 2_000_000),
    "kitchen-complete-v0": (9.0, 0.005, 250_000),
    "kitchen-partial-v0": (10.0, 0.005, 1_000_000),
    "kitchen-mixed-v0": (10.0, 0.005, 1_000_000),
}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return its section."""
    clip, eta, steps = TASKS.get(given.task.name, (0.0, 1.0, 2_000_000))
    dql = {
        "network": {
            "hidden": (256,) * 3,
            "embed_dim": 16,  # of the policy's step
            "activation": "mish",
            "layer_norm": "",
        },
        "method": {"eta": eta},
        "data": {"normalization": "none", "reward_scale": "none"},
        "optimiser": base.adam(steps=steps, clip=clip),
        "weights": "ema",  # policy and targets
        "selection": {"critic": "dql", "candidates": 50, "inverse_temperature": 1.0},
    }
    if given.preset == "released":
        dql["optimiser"]["schedule"] = "constant"  # its steps are counted in tens of thousands
    if given.preset == "default":
        dql["data"]["normalization"] = "minmax"
        if not given.task.name.startswith("kitchen"):
            dql["data"]["reward_scale"] = "range"
    if given.size == "small":
        dql["optimiser"]["steps"] = 200_000
    if given.size == "demo":
        dql["network"]["hidden"] = (128, 128)
        dql["optimiser"] |= {"steps": 30_000, "learning_rate": 1e-3, "ema": 0.99}
    return {"dql": dql}
