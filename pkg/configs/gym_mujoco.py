"""Gym-MuJoCo locomotion: sizes, presets, and the numbers all nine tasks share.

A size changes networks, batches and lengths of training; a preset changes the method. Sources:
RACTD appendices A and B for `paper`, the published YAML files and code for `released`.
"""

from ml_collections import ConfigDict

from configs import base
from ractd_jax import tasks

# Paper, App. B.2.
DISCOUNT = {"hopper": 0.997, "walker2d": 0.99, "halfcheetah": 0.9}

# Diffuser's settings where they are not `base`'s; its linear attention for halfcheetah is left out.
DIFFUSER = {
    "halfcheetah": {"horizon": 4, "guide_scale": 1e-3, "guide_stop": 4},
    "hopper-medium-expert-v2": {"guide_scale": 1e-4, "guide_stop": 4},
}
# Simulated steps at demo size, a fifth of D4RL's; replay sets are that small as D4RL has them.
DEMO_TRANSITIONS = {"medium": 200_000, "medium-expert": 400_000}


def make(
    name: str,
    arg: str | None,
    *,
    epochs: int,
    reward_weight: dict[str, float],
    return_model: dict[str, float] | None = None,
) -> ConfigDict:
    """Return the configuration of a locomotion task.

    Args:
        name: D4RL's dataset id.
        arg: what follows the colon on the command line.
        epochs: of the student at paper size, as released.
        reward_weight: sigma of Eq. 9 by preset: "default" (docs/results.md), "paper" (Table 9) and
            "released" (YAML).
        return_model: fields of its training at paper size where the released YAML of the task is
            not like the others' (`batch_size`, `learning_rate`, `epochs`).
    """
    task = tasks.get(name)
    values = base.parse(arg)
    config = base.base(task, values)
    config.ctd.epochs = config.student.epochs = epochs
    training = dict(return_model or {})
    config.reward.epochs = training.pop("epochs", config.reward.epochs)
    config.reward.optimiser.update(training)
    config.data.discount = DISCOUNT[name.split("-")[0]]
    config.diffuser.method.update(DIFFUSER.get(name, DIFFUSER.get(name.split("-")[0], {})))
    if name.startswith("halfcheetah"):
        config.diffuser.network.down_dims = (32, 128, 256)
        config.diffuser_value.network.down_dims = (32, 128, 256)
    PRESETS[values["preset"]](config, reward_weight)
    SIZES[values["size"]](config)
    return config


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict, reward_weight: dict[str, float]) -> None:
    config.student.method.reward_weight = reward_weight["paper"]


def _released(config: ConfigDict, reward_weight: dict[str, float]) -> None:
    config.data.update(discount=0.99, termination_penalty=0.0, drop_last_window=True)
    config.noise.update(initial_std=1.0, clamp=False)
    config.teacher.network.mid_dropout = 0.2
    config.teacher.method.distance = "released"
    config.teacher.weights = "live"
    config.reward.network.dims = (64, 128, 256)
    config.reward.weights = "live"
    config.student.method.reward_weight = reward_weight["released"]
    for student in (config.ctd, config.student):
        student.network.mid_dropout = 0.2
        # The released target network has decay 0: it is the student after the last update.
        student.method.update(
            distance="released", reward_on="dsm", target="ema", target_dropout=True
        )


def _default(config: ConfigDict, reward_weight: dict[str, float]) -> None:
    """Hold the reward's gradient, and let it choose data: docs/results.md says why."""
    config.reward.network.update(dims=(64, 128, 256), layer_norm=True)
    config.reward.method.update(members=6, drawn=1)
    config.student.method.update(
        distance="squared",
        reward_weight=reward_weight["default"],
        reward_on="dsm",
        reward_clip=True,
        advantage=1.0,
    )
    for student in (config.ctd, config.student):
        student.weights = "ema"
        student.optimiser.ema = 0.999


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict) -> None:
    del config  # `base` is the paper's size


def _small(config: ConfigDict) -> None:
    for stage in (config.teacher, config.ctd, config.student, config.ddpm):
        stage.network.update(down_dims=(64, 128, 256), embed_dim=64)
        stage.optimiser.update(batch_size=256, learning_rate=3e-4, steps=30_000)
    for stage in (config.teacher, config.ddpm):
        stage.optimiser.update(steps=100_000)
    config.diffuser.optimiser.update(steps=100_000)
    config.diffuser_value.optimiser.update(steps=50_000)
    config.reward.optimiser.update(batch_size=256, steps=50_000)
    config.training.update(updates_per_dispatch=50)


def _demo(config: ConfigDict) -> None:
    mlp = {"kind": "mlp", "hidden": 256, "blocks": 2, "embed_dim": 32, "dropout": 0.0}
    for stage in (config.teacher, config.ctd, config.student, config.ddpm):
        stage.network = ConfigDict(mlp)
        stage.optimiser.update(batch_size=256, learning_rate=5e-4, steps=6000, warmup=200)
    for stage in (config.teacher, config.ddpm):
        stage.optimiser.update(steps=12_000, learning_rate=1e-3, ema=0.999)
    if config.source == "simulated":
        quality = config.task.removesuffix("-v2").partition("-")[2]
        config.data.transitions = DEMO_TRANSITIONS.get(quality, 0)
    config.data.horizon = 4  # 16 actions are too much for so small a network: docs/results.md
    for stage in (config.diffuser, config.diffuser_value):
        stage.network = ConfigDict(mlp)
        stage.optimiser.update(
            batch_size=256, learning_rate=1e-3, steps=8000, warmup=200, ema=0.999
        )
    config.reward.optimiser.update(
        batch_size=256, learning_rate=1e-3, steps=4000, warmup=100, ema=0.999
    )
    config.training.update(updates_per_dispatch=100, save_every=1000)
    config.eval.episodes = 50


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
