"""Maze2d: sizes, presets, and the numbers the three mazes share.

A model plans the states between two given ones, as many as `data.horizon`. The return model judges
every planned state; with `data.discount` 0 it says 1 at the goal and 0 elsewhere, as the paper, and
otherwise the discounted return-to-go of an episode that ends at the goal, as the published code.
Sources: RACTD section 4.2 and appendix A.1 for `paper`, the published YAML files and code for
`released`.
"""

from ml_collections import ConfigDict

from configs import base, gym_mujoco
from ractd_jax import tasks


def make(
    name: str,
    arg: str | None,
    *,
    horizon: int,
    down_dims: tuple[int, ...],
    batch_size: int,
    reward_weight: float,
    diffuser_steps: int,
    default_weight: float,
    demo_steps: tuple[int, int],
) -> ConfigDict:
    """Return the configuration of a maze.

    Args:
        name: D4RL's dataset id.
        arg: what follows the colon on the command line.
        horizon: states of a plan.
        down_dims: channels of the U-Net at paper size.
        batch_size: of the student at paper size, as released.
        reward_weight: sigma of Eq. 9, as released; the paper gives none for the mazes.
        diffuser_steps: of Diffuser's schedule, as published.
        default_weight: sigma of Eq. 9 in preset `default`.
        demo_steps: updates at demo size, of teacher (also DDPM and Diffuser) and students.
    """
    values = base.parse(arg)
    config = base.base(tasks.get(name), values)
    config.data.update(horizon=horizon, discount=0.0, termination_penalty=0.0, errands=0.0)
    for stage in (config.teacher, config.ctd, config.student, config.ddpm):
        stage.network.update(down_dims=down_dims, embed_dim=256)
        stage.epochs = 400
    config.teacher.optimiser.update(weight_decay=1e-4, warmup=500)
    for stage in (config.ctd, config.student):
        stage.optimiser.update(batch_size=batch_size, weight_decay=1e-6)
    config.diffuser.network.down_dims = (32, 128, 256)
    config.diffuser.optimiser.steps = 2_000_000
    config.diffuser.method.update(
        horizon=0, steps=diffuser_steps, action_weight=1.0, clip=True, guide_steps=0, plans=1
    )
    config.reward.epochs = 100
    config.student.method.reward_weight = reward_weight
    config.eval.replan_every = 10  # steps between proposed plans in closed loop; 0: open loop alone
    config.eval.replan = ("ctd", "student")  # stages; the teacher's plans take too long
    config.eval.follow = "inverse"  # how plans become actions: inverse (dynamics) or waypoints
    config.inverse = {  # as small as the dynamics are; the same at all sizes
        "network": {"hidden": (64, 64)},
        "method": {"gain": 20.0},
        "optimiser": base.optimiser(
            steps=10_000, learning_rate=3e-3, weight_decay=0.0, b1=0.9, warmup=100, ema=0.99
        ),
        "weights": "ema",
    }
    PRESETS[values["preset"]](config, {"default": default_weight, "released": reward_weight})
    SIZES[values["size"]](config, demo_steps)
    return config


# ---- presets -------------------------------------------------------------------------------------


def _paper(config: ConfigDict, weights: dict[str, float]) -> None:
    del config, weights  # `make` gives the paper's numbers


def _released(config: ConfigDict, weights: dict[str, float]) -> None:
    gym_mujoco.PRESETS["released"](config, weights)
    config.eval.follow = "waypoints"


def _default(config: ConfigDict, weights: dict[str, float]) -> None:
    gym_mujoco.PRESETS["default"](config, weights)
    config.data.update(discount=0.99, errands=0.5)
    config.teacher.method.levels = "mixed"
    config.student.method.update(dsm_goal="teacher", reward_scale="gradient", advantage=0.0)


PRESETS = {"default": _default, "paper": _paper, "released": _released}


# ---- sizes ---------------------------------------------------------------------------------------


def _paper_size(config: ConfigDict, demo_steps: tuple[int, int]) -> None:
    del config, demo_steps  # `make` gives the published networks


def _small(config: ConfigDict, demo_steps: tuple[int, int]) -> None:
    teacher, students = demo_steps
    _mlp(config, hidden=1024, steps=(2 * teacher, 2 * students))
    config.reward.optimiser.update(batch_size=256, steps=20_000)


def _demo(config: ConfigDict, demo_steps: tuple[int, int]) -> None:
    _mlp(config, hidden=512, steps=demo_steps)
    config.reward.network.dims = (32, 64)
    config.reward.optimiser.update(
        batch_size=512, learning_rate=1e-3, steps=2000, warmup=100, ema=0.999
    )


def _mlp(config: ConfigDict, *, hidden: int, steps: tuple[int, int]) -> None:
    """Set networks and lengths that two cores train; U-Nets of long plans take them days."""
    mlp = {"kind": "mlp", "hidden": hidden, "blocks": 4, "embed_dim": 32, "dropout": 0.0}
    for stage in (config.teacher, config.ctd, config.student, config.ddpm, config.diffuser):
        stage.network = ConfigDict(mlp | {"frequencies": 128})
        stage.optimiser.update(batch_size=64, learning_rate=5e-4, steps=steps[1], warmup=200)
    # It is not told the ends of its plans, and has to see them in the plan.
    config.diffuser.network.frequencies = config.data.horizon
    for stage in (config.teacher, config.ddpm, config.diffuser):
        stage.optimiser.update(batch_size=128, learning_rate=1e-3, steps=steps[0], ema=0.999)
    config.training.update(updates_per_dispatch=100, save_every=2000)


SIZES = {"paper": _paper_size, "small": _small, "demo": _demo}
