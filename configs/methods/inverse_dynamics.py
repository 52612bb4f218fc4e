"""Inverse dynamics' numbers: as small as the mazes' dynamics are, the same at all sizes."""

from typing import Any

from ractd_jax.cli.words import Given


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return its section."""
    del given
    optimiser = {
        "steps": 10_000,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "b1": 0.9,
        "warmup": 100,
        "ema": 0.99,
    }
    return {"inverse": {"optimiser": optimiser}}
