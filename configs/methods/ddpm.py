"""DDPM's numbers: the teacher's network and training, and 100 network calls an action."""

from typing import Any

from ractd_jax.cli.words import Given

from . import ractd


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return its section."""
    section = {
        "network": dict(ractd.UNET),
        "optimiser": {"batch_size": 1024, "warmup": 2000},
        "epochs": 400 if given.task.kind == "planner" else 1000,
    }
    ractd.size_denoiser(given, section, student=False)
    return {"ddpm": section}
