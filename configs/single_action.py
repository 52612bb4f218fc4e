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
        "clip": 0.0,  # largest gradient of a network; 0: any
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
        "fql": {
            # The layer normalisation is the critic's.
            "network": {"hidden": (512,) * 4, "activation": "gelu", "layer_norm": "after"},
            "method": {
                "alpha": 10.0,
                "normalize_q_loss": False,
                "flow_steps": 10,
                "q_agg": "mean",  # mean or min
                "discount": 0.99,
            },
            "data": {"frame": "none", "reward_scale": "none"},
            "optimiser": optimiser(steps=500_000, schedule="constant"),
            "weights": "live",
        },
        "dql": {
            "network": {
                "hidden": (256,) * 3,
                "embed_dim": 16,  # of the policy's step
                "activation": "mish",
                "layer_norm": "",
            },
            "method": {"eta": 1.0, "discount": 0.99, "steps": 5, "schedule": "vp"},
            "data": {"frame": "none", "reward_scale": "none"},
            "optimiser": optimiser(steps=2_000_000),
            "reselect": {"judge": "dql", "candidates": 50, "inverse_temperature": 1.0},
            "weights": "ema",  # policy and targets
        },
    }


# Diffusion-QL: the published length of gradients, weight of the critic and updates of each task.
DQL = {
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


def add(config: ConfigDict, values: dict) -> None:
    """Add the sections to a configuration.

    Args:
        config: of a task whose models act.
        values: what follows the colon on the command line (`base.parse`).
    """
    config.update(sections())
    if config.task in DQL:
        dql = config.dql
        dql.optimiser.clip, dql.method.eta, dql.optimiser.steps = DQL[config.task]
    PRESETS[values["preset"]](config)
    SIZES[values["size"]](config)


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict) -> None:
    del config  # `sections` gives the papers' numbers


def _released(config: ConfigDict) -> None:
    config.iql.optimiser.ema = 0.005  # the two rates are mixed up: a target is nearly a copy
    config.dql.optimiser.schedule = "constant"  # its steps are counted in tens of thousands


def _default(config: ConfigDict) -> None:
    for stage in (config.iql, config.fql, config.dql):
        stage.data.update(frame="limits", reward_scale="range")
    config.fql.method.update(alpha=3.0, normalize_q_loss=True)  # one alpha for all tasks


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict) -> None:
    del config  # `sections` is the published size


def _small(config: ConfigDict) -> None:
    for stage in (config.iql, config.fql, config.dql):
        stage.optimiser.steps = 200_000


def _demo(config: ConfigDict) -> None:
    config.iql.optimiser.steps = 30_000
    for stage in (config.fql, config.dql):
        stage.network.hidden = (128, 128)
        stage.optimiser.update(steps=30_000, learning_rate=1e-3, ema=0.99)


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
