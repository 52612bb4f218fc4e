"""The systems that generate single actions: their sections, sizes and presets.

Every task whose models act has them (mazes are planned). At size=paper the numbers are the
published ones. By preset, in `default` all models of a pipeline see the data in one frame, [-1, 1],
so that any critic can judge any policy; in `paper` and `released` each sees it as it was published.
"""

from ml_collections import ConfigDict

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
IDQL = ("edm_bc", "cd", "ct")  # the samplers of Consistency-IDQL


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
        "edm_bc": _denoiser()
        | {
            "noise": _noise(scaling="edm"),
            "method": {
                "distance": "squared",
                "levels": "log_normal",
                "solver": "euler",
                "sample_bins": 5,  # 4 network calls
            },
        },
        "cd": _denoiser(steps=200_000)
        | {
            "method": {
                "intervals": 18,
                "weight": "interval",
                "clip": False,
                "warm_start": True,
                "nfe": 1,
            }
        },
        "ct": _denoiser(scale=0.02)
        | {
            "noise": _noise(scaling="boundary"),
            "method": {
                "s0": 10,
                "s1": 1280,
                "rounding": "floor",
                "p_mean": -1.1,
                "p_std": 2.0,
                "huber_c": 0.01,
                "target_dropout": "same",  # same, own or none
                "clip": False,
                "nfe": 1,
            },
        },
        "idql_eval": {"candidates": 256, "nfe": (1, 2, 4)},
    }


def _denoiser(scale: float = 16.0, **fields) -> dict:
    """Return what the sections of Consistency-IDQL's samplers share."""
    network = {"hidden": 256, "blocks": 3, "embed_dim": 64, "scale": scale, "dropout": 0.1}
    return {
        "network": {"kind": "fourier"} | network,
        "data": {"frame": "gaussian", "reward_scale": "none"},
        "optimiser": optimiser(weight_decay=1e-5, ema=0.9999, **fields),
        "weights": "ema",
        # How `eval.candidates` of them are chosen from.
        "reselect": {"judge": "iql", "candidates": 1, "inverse_temperature": 0.0},
    }


def _noise(scaling: str) -> dict:
    """Return noise levels, fields of `diffusion.Noise`."""
    return {
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "rho": 7.0,
        "bins": 80,
        "sigma_data": 0.5,
        "scaling": scaling,
        "initial_std": 80.0,
        "clamp": True,
        "clip": True,
    }


def add(config: ConfigDict, values: dict) -> None:
    """Add the sections to a configuration.

    Args:
        config: of a task whose models act.
        values: what follows the colon on the command line (`base.parse`).
    """
    config.update(sections())
    for stage in IDQL:
        config[stage].reselect.inverse_temperature = INVERSE_TEMPERATURE.get(config.task, 100.0)
    PRESETS[values["preset"]](config)
    SIZES[values["size"]](config)


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict) -> None:
    del config  # `sections` gives the papers' numbers


def _released(config: ConfigDict) -> None:
    config.iql.optimiser.ema = 0.005  # the two rates are mixed up: a target is nearly a copy
    for stage in IDQL:
        config[stage].optimiser.weight_decay = 0.01  # only the learning rate is passed on
    config.cd.optimiser.schedule = "constant"  # the schedule is made and never stepped
    config.cd.method.clip = True
    config.ct.method.update(clip=True, rounding="ceil", target_dropout="own")


def _default(config: ConfigDict) -> None:
    for stage in ("iql", *IDQL):
        config[stage].data.frame = "limits"


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict) -> None:
    del config  # `sections` is the published size


def _small(config: ConfigDict) -> None:
    config.iql.optimiser.steps = 200_000
    for stage, steps in zip(IDQL, (200_000, 50_000, 200_000), strict=True):
        config[stage].optimiser.update(steps=steps, ema=0.999)


def _demo(config: ConfigDict) -> None:
    config.iql.optimiser.steps = 30_000
    config.idql_eval.candidates = 32
    config.ct.method.s1 = 160
    for stage, steps in zip(IDQL, (10_000, 12_000, 8_000), strict=True):
        config[stage].network.update(hidden=128, blocks=2)
        config[stage].optimiser.update(steps=steps, learning_rate=1e-3, ema=0.999)
        # The published ones all but take the best, which a critic of few updates overrates.
        config[stage].reselect.inverse_temperature = 1.0


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
