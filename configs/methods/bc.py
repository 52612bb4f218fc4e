"""Behaviour cloning's numbers: those of the usual baseline, shortened at smaller sizes."""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base

STEPS = {"paper": 1_000_000, "small": 100_000, "demo": 8000}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return the sections of both."""
    optimiser = base.adam(steps=STEPS[given.size], learning_rate=1e-3, ema=0.0)
    section = {
        "data": {"normalization": "standard"},
        "optimiser": optimiser,
        "weights": "live",
    }
    return {"bc": section, "bc10": section | {"best_episodes": 0.1}}
