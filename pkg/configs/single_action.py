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
        "clip": 0.0,  # largest gradient of each network; 0: any
    } | fields


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
# be r - 1: beta by its name, and fields of `eda_critic.method`, `iql.method` and of `reselect`.
ANTMAZE_BETA = {"umaze": 0.5, "umaze-diverse": 5.0, "medium-play": 1.0, "medium-diverse": 1.0}
ANTMAZE = {"expectile": 0.9, "temperature": 10.0, "inverse_temperature": 5.0}


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
            "reselect": {"judge": "fql", "candidates": 1, "inverse_temperature": 0.0},
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
        "eda_behavior": {
            "network": {
                "hidden": 256,
                "blocks": 3,
                "widening": 4,
                "embed_dim": 32,
                "scale": 30.0,
                "dropout": 0.1,
            },
            "method": {"nfe": 15, "spacing": "uniform", "clip": False},
            "data": {"frame": "none", "reward_scale": "range"},
            "optimiser": optimiser(batch_size=2048, ema=0.0, schedule="constant"),
            "weights": "live",
            "reselect": {"judge": "eda_critic", "candidates": 1, "inverse_temperature": 0.0},
        },
        "eda_critic": {
            "network": {"hidden": (256, 256), "activation": "relu", "layer_norm": ""},
            "method": {
                "expectile": 0.7,  # antmaze: 0.9
                "discount": 0.99,
                "temperature": 3.0,
                "largest_weight": 100.0,
            },
            "data": {"frame": "none", "reward_scale": "range"},
            "optimiser": optimiser(steps=1_500_000, schedule="constant"),
            "weights": "ema",
        },
        "eda": {
            "network": {"dropout": 0.0},  # the behaviour model's, but for this
            "method": {
                "alpha": 3.0,
                "beta": 0.2,  # see `BETA`
                "proposals": 16,
                "states": 0,  # of the dataset that proposals are drawn for; 0: all
                "nfe": 15,
                "spacing": "uniform",
                "clip": False,
            },
            "data": {"frame": "none", "reward_scale": "range"},
            "optimiser": optimiser(steps=200_000, learning_rate=5e-5, ema=0.0, schedule="constant"),
            "weights": "live",
            "reselect": {"judge": "eda_critic", "candidates": 4, "inverse_temperature": 0.0},
        },
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
    for stage in ("teacher", "ctd", "student", "ddpm"):  # judge "": that of `reward.kind`
        config[stage].reselect = {"judge": "", "candidates": 1, "inverse_temperature": 0.0}
    if config.task in DQL:
        dql = config.dql
        dql.optimiser.clip, dql.method.eta, dql.optimiser.steps = DQL[config.task]
    for stage in IDQL:
        config[stage].reselect.inverse_temperature = INVERSE_TEMPERATURE.get(config.task, 100.0)
    config.eda.method.beta = BETA.get(config.task, config.eda.method.beta)
    PRESETS[values["preset"]](config)
    if config.task.startswith("kitchen"):  # rewards count what is done, and stay
        for stage in ("iql", "fql", "dql", "eda_behavior", "eda_critic", "eda"):
            config[stage].data.reward_scale = "none"
    SIZES[values["size"]](config)


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict) -> None:
    del config  # `sections` gives the papers' numbers


def _released(config: ConfigDict) -> None:
    config.iql.optimiser.ema = 0.005  # the two rates are mixed up: a target is nearly a copy
    config.dql.optimiser.schedule = "constant"  # its steps are counted in tens of thousands
    for stage in IDQL:
        config[stage].optimiser.weight_decay = 0.01  # only the learning rate is passed on
        # The tutorial has those of medium and medium-replay the other way round.
        swapped = {"halfcheetah-medium-v2": 100.0, "halfcheetah-medium-replay-v2": 400.0}
        if config.task in swapped:
            config[stage].reselect.inverse_temperature = swapped[config.task]
    config.cd.optimiser.schedule = "constant"  # the schedule is made and never stepped
    config.cd.method.clip = True
    config.ct.method.update(clip=True, rounding="ceil", target_dropout="own")


def _default(config: ConfigDict) -> None:
    for stage in ("iql", "fql", "dql", *IDQL):
        config[stage].data.frame = "limits"
    for stage in (config.fql, config.dql):
        stage.data.reward_scale = "range"
    config.fql.method.update(alpha=3.0, normalize_q_loss=True)  # one alpha for all tasks
    for stage in (config.eda_behavior, config.eda_critic, config.eda):
        stage.data.frame = "limits"
    for stage in (config.eda_behavior, config.eda):
        stage.method.update(spacing="quadratic", clip=True)
    # Without it Q grows away from the data, and that is where the policy then goes.
    config.eda_critic.network.layer_norm = "before"


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict) -> None:
    del config  # `sections` is the published size


def _small(config: ConfigDict) -> None:
    for stage in (config.iql, config.fql, config.dql):
        stage.optimiser.steps = 200_000
    for stage, steps in zip(IDQL, (200_000, 50_000, 200_000), strict=True):
        config[stage].optimiser.update(steps=steps, ema=0.999)
    config.eda_behavior.optimiser.update(steps=200_000, batch_size=1024, schedule="cosine")
    config.eda_critic.optimiser.update(steps=200_000)
    config.eda.optimiser.update(steps=20_000)
    config.eda.method.states = 100_000


def _demo(config: ConfigDict) -> None:
    # At the published rates so few updates carry values a tenth of the way.
    for stage in (config.iql, config.eda_critic):
        stage.optimiser.update(steps=15_000, learning_rate=1e-3, schedule="cosine")
        if stage.optimiser.ema > 0.5:  # else `released`, where a target is nearly a copy
            stage.optimiser.ema = 0.98
    for stage in (config.fql, config.dql):
        stage.network.hidden = (128, 128)
        stage.optimiser.update(steps=30_000, learning_rate=1e-3, ema=0.99)
    config.idql_eval.candidates = 32
    config.ct.method.s1 = 160
    for stage, steps in zip(IDQL, (10_000, 12_000, 8_000), strict=True):
        config[stage].network.update(hidden=128, blocks=2)
        config[stage].optimiser.update(steps=steps, learning_rate=1e-3, ema=0.999)
        # The published ones all but take the best, which a critic of few updates overrates.
        config[stage].reselect.inverse_temperature = 1.0
    config.eda_behavior.network.update(hidden=128, blocks=2, widening=2, dropout=0.0)
    config.eda_behavior.optimiser.update(
        steps=12_000, batch_size=256, learning_rate=1e-3, schedule="cosine"
    )
    # So few updates of so few states carry the policy too far with the published 0.1 to 0.5.
    config.eda.method.beta = max(config.eda.method.beta, 2.0)
    config.eda.method.states = 4000
    config.eda.optimiser.update(steps=4000, batch_size=64, learning_rate=2e-4)


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
