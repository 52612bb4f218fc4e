"""The systems that generate single actions: their sections, sizes and presets.

Every task whose models act has them (mazes are planned). At size=paper the numbers are the
published ones. By preset, in `default` all models of a pipeline see the data in one frame, [-1, 1],
so that any critic can judge any policy; in `paper` and `released` each sees it as it was published.
"""

from ml_collections import ConfigDict


def optimiser(**fields) -> dict:
    """Return the fields of `train_state.Optimiser` for networks that Adam trains."""
    return {
        "steps": 1_000_000,
        "batch_size": 256,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "b1": 0.9,
        "b2": 0.999,
        "warmup": 1,
        "ema": 0.995,  # targets follow at rate 1 - ema
        "ema_power": 0.0,
        "schedule": "cosine",
    } | fields


def sections() -> dict:
    """Return the section of every stage, at paper size and preset `paper`."""
    return {
        "iql": {
            "network": {"hidden": (256, 256), "activation": "mish", "layer_norm": "before"},
            "method": {
                "expectile": 0.7,
                "discount": 0.99,
                "temperature": 3.0,  # of the policy that is extracted
                "largest_weight": 100.0,
            },
            "data": {"frame": "gaussian", "reward_scale": "range"},
            "optimiser": optimiser(),
            "weights": "ema",  # the targets
        },
    }


def add(config: ConfigDict, values: dict) -> None:
    """Add the sections to a configuration.

    Args:
        config: of a task whose models act.
        values: what follows the colon on the command line (`base.parse`).
    """
    config.update(sections())
    PRESETS[values["preset"]](config)
    SIZES[values["size"]](config)


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict) -> None:
    del config  # `sections` gives the papers' numbers


def _released(config: ConfigDict) -> None:
    config.iql.optimiser.ema = 0.005  # the two rates are mixed up: a target is nearly a copy


def _default(config: ConfigDict) -> None:
    config.iql.data.frame = "limits"


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict) -> None:
    del config  # `sections` is the published size


def _small(config: ConfigDict) -> None:
    config.iql.optimiser.steps = 200_000


def _demo(config: ConfigDict) -> None:
    config.iql.optimiser.steps = 30_000


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
