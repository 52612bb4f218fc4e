"""Consistency-IDQL's numbers: an EDM of single actions, and consistency models of them.

At paper size the published ones (CleanDiffuser). The critic that chooses among their candidates is
`iql`'s.
"""

from typing import Any

from ractd_jax.cli.words import Given

from .. import base

# By which IQL's advantage is multiplied before its candidates are drawn by softmax (CleanDiffuser).
INVERSE_TEMPERATURE = {
    "halfcheetah-medium-replay-v2": 100.0,
    "halfcheetah-medium-v2": 400.0,
    "halfcheetah-medium-expert-v2": 10.0,
    "hopper-medium-replay-v2": 50.0,
    "hopper-medium-v2": 50.0,
    "hopper-medium-expert-v2": 5.0,
    "walker2d-medium-replay-v2": 200.0,
    "walker2d-medium-v2": 200.0,
    "walker2d-medium-expert-v2": 300.0,
    "kitchen-complete-v0": 1.0,
    "kitchen-partial-v0": 1.0,
    "kitchen-mixed-v0": 1.0,
}
# The tutorial has those of medium and medium-replay the other way round.
SWAPPED = {"halfcheetah-medium-v2": 100.0, "halfcheetah-medium-replay-v2": 400.0}


def get_sections(given: Given) -> dict[str, dict[str, Any]]:
    """Return the sections of the three samplers."""
    sections = {
        "edm_bc": _denoiser(given)
        | {
            "noise": {"sigma_min": 0.002, "scaling": "edm"},
            "method": {"distance": "squared", "solver": "euler", "sample_bins": 5},  # 4 calls
        },
        "cd": _denoiser(given, steps=200_000) | {"method": {}},
        "ct": _denoiser(given, scale=0.02)
        | {"noise": {"sigma_min": 0.002, "scaling": "boundary"}, "method": {}},
    }
    if given.preset == "released":
        _released(sections, given.task.name)
    if given.size == "small":
        for stage, steps in (("edm_bc", 200_000), ("cd", 50_000), ("ct", 200_000)):
            sections[stage]["optimiser"] |= {"steps": steps, "ema": 0.999}
    if given.size == "demo":
        sections["ct"]["method"]["s1"] = 160
        for stage, steps in (("edm_bc", 10_000), ("cd", 12_000), ("ct", 8_000)):
            sections[stage]["network"] |= {"hidden": 128, "blocks": 2}
            sections[stage]["optimiser"] |= {"steps": steps, "learning_rate": 1e-3, "ema": 0.999}
            # The published ones all but take the best, which a critic of few updates overrates.
            sections[stage]["selection"]["inverse_temperature"] = 1.0
    return sections


def _denoiser(given: Given, scale: float = 16.0, **fields: Any) -> dict[str, Any]:
    """Return what the three sections share."""
    temperature = INVERSE_TEMPERATURE.get(given.task.name, 100.0)
    return {
        "network": {"kind": "fourier", "scale": scale},
        "data": {"normalization": "minmax" if given.preset == "default" else "standard"},
        "optimiser": base.adam(weight_decay=1e-5, ema=0.9999, **fields),
        "weights": "ema",
        # How `eval.candidates` of them are chosen from.
        "selection": {"critic": "iql", "inverse_temperature": temperature},
    }


def _released(sections: dict[str, dict[str, Any]], task: str) -> None:
    for section in sections.values():
        section["optimiser"]["weight_decay"] = 0.01  # only the learning rate is passed on
        if task in SWAPPED:
            section["selection"]["inverse_temperature"] = SWAPPED[task]
    sections["cd"]["optimiser"]["schedule"] = "constant"  # the schedule is made and never stepped
    sections["cd"]["method"]["clip"] = True
    sections["ct"]["method"] |= {"clip": True, "rounding": "ceil", "target_dropout": "own"}
