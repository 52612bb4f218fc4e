"""Diffuser's numbers (Janner et al. 2022): the published ones at paper size."""

from typing import Any

from ractd_jax.cli.words import Given

# Settings of a task where they are not the others'; linear attention for halfcheetah is left out.
METHOD = {
    "halfcheetah": {"horizon": 4, "guide_scale": 1e-3, "guide_stop": 4},
    "hopper-medium-expert-v2": {"guide_scale": 1e-4, "guide_stop": 4},
}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return the sections of Diffuser and of the value that guides it."""
    if given.task.kind == "planner":
        return {"diffuser": _planner(given)}
    name = given.task.name
    channels = (32, 128, 256) if name.startswith("halfcheetah") else (32, 64, 128, 256)
    diffuser = {
        "network": {"kind": "unet", "down_dims": channels, "embed_dim": 32},
        "method": METHOD.get(name, METHOD.get(name.split("-")[0], {})),
        "optimiser": optimiser(steps=1_000_000),
    }
    value = {
        "network": {"kind": "value_unet", "down_dims": channels, "embed_dim": 32},
        "optimiser": optimiser(steps=200_000),
    }
    if given.size == "small":
        diffuser["optimiser"]["steps"], value["optimiser"]["steps"] = 100_000, 50_000
    if given.size == "demo":
        mlp = {"kind": "mlp", "hidden": 256, "blocks": 2, "embed_dim": 32, "dropout": 0.0}
        for section in (diffuser, value):
            section["network"] = dict(mlp)
            section["optimiser"] |= {"batch_size": 256, "learning_rate": 1e-3, "steps": 8000}
            section["optimiser"] |= {"warmup": 200, "ema": 0.999}
    return {"diffuser": diffuser, "diffuser_value": value}


def optimiser(steps: int) -> dict[str, Any]:
    """Return how Diffuser was trained: batches of 32 twice, an average every tenth update."""
    return {
        "steps": steps,
        "batch_size": 64,
        "learning_rate": 2e-4,
        "weight_decay": 0.0,
        "b1": 0.9,
        "warmup": 0,
        "ema": 0.9995,
        "ema_power": 0.0,
    }


def _planner(given: Given) -> dict[str, Any]:
    section = {
        "network": {"kind": "unet", "down_dims": (32, 128, 256), "embed_dim": 32},
        "method": {
            "horizon": 0,
            "steps": given.numbers["diffuser_steps"],
            "action_weight": 1.0,
            "clip": True,
            "guide_steps": 0,
            "plans": 1,
        },
        "optimiser": optimiser(steps=2_000_000),
    }
    if given.size == "paper":
        return section
    hidden, longer = (1024, 2) if given.size == "small" else (512, 1)
    # It is not told the ends of its plans, and has to see them in the plan.
    section["network"] = {
        "kind": "mlp",
        "hidden": hidden,
        "blocks": 4,
        "embed_dim": 32,
        "dropout": 0.0,
        "frequencies": given.numbers["horizon"],
    }
    section["optimiser"] |= {"batch_size": 128, "learning_rate": 1e-3, "warmup": 200, "ema": 0.999}
    section["optimiser"]["steps"] = longer * given.numbers["demo_steps"][0]
    return section
