"""From a resolved configuration (nested plain dicts) to algorithms.

A stage trains one model. What it needs of earlier stages reaches it as frozen weights.
"""

from typing import Any

from ractd_jax import ctm, ddpm, diffusion, edm, errors, networks, reward, train_state
from ractd_jax.tasks import TaskSpec
from ractd_jax.types import Algorithm

PIPELINE = ("reward", "teacher", "ctd", "student")  # what `all` trains, in this order
TRAINED = (*PIPELINE, "ddpm")  # rivals only where they are asked for
# Fields of a stage's method that only acting heeds: they may differ from those it was trained with.
SAMPLING = {
    "teacher": ("solver", "sample_bins"),
    "ctd": ("nfe",),
    "student": ("nfe",),
    "ddpm": ("sampler", "sample_steps"),
}
NETWORKS = {"unet": networks.ConditionalUnet1D, "mlp": networks.ResidualMLP}


def needs(config: dict[str, Any], stage: str) -> tuple[str, ...]:
    """Return the stages whose weights a stage needs."""
    if stage not in ("ctd", "student"):
        return ()
    return ("teacher", "reward") if config[stage]["method"]["reward_weight"] else ("teacher",)


def trajectory(task: TaskSpec, horizon: int) -> dict[str, Any]:
    """Return the sizes of what is generated, see `data.dataset.SAMPLE`."""
    if task.kind == "planner":
        return {"shape": (horizon, task.obs_dim), "cond_dim": 2 * task.obs_dim}
    return {"shape": (horizon, task.act_dim), "cond_dim": task.obs_dim}


def precision(config: dict[str, Any]) -> str:
    """Return the type of number that denoising networks compute in."""
    name = config["training"].get("precision", "float32")  # runs from before it could be chosen
    return errors.choose("training.precision", name, networks.PRECISIONS)


def _in_precision(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with `training.precision` noted in every denoising network."""
    said = {"precision": precision(config)}
    return {
        name: section | {"network": section["network"] | said}
        if isinstance(section, dict) and "kind" in section.get("network", {})
        else section
        for name, section in config.items()
    }


def _network(fields: dict[str, Any]):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    precision = fields.pop("precision", "float32")
    net = NETWORKS[errors.choose("network.kind", fields.pop("kind"), NETWORKS)](**fields)
    return net if precision == "float32" else networks.InPrecision(net, precision)


def make(config: dict[str, Any], task: TaskSpec, stage: str, axis: str = "") -> Algorithm:
    """Make the algorithm of a stage.

    Args:
        config: the resolved configuration.
        task: sizes of observations and actions.
        stage: one of `TRAINED`.
        axis: see `train_state.Optimiser`.
    """
    config = _in_precision(config)
    mine = config[stage]
    optimiser = train_state.Optimiser(**mine["optimiser"], axis=axis)
    sizes = trajectory(task, config["data"]["horizon"])
    noise = diffusion.Noise(**config["noise"])
    if stage == "teacher":
        method = edm.Teacher(**mine["method"])
        return edm.make_teacher(_network(mine["network"]), noise, method, optimiser, **sizes)
    if stage == "ddpm":
        method = ddpm.Ddpm(**mine["method"])
        return ddpm.make_ddpm(_network(mine["network"]), noise, method, optimiser, **sizes)

    return_net = networks.ReturnMLP(
        tuple(config["reward"]["network"]["dims"]), config["reward"]["network"]["layer_norm"]
    )
    return_model, sees = reward.ReturnModel(**config["reward"]["method"]), reward.SEES[task.kind]
    if stage == "reward":
        return reward.make_return_model(return_net, return_model, optimiser, **sizes, sees=sees)

    def judge(params, x, cond, key):
        drawn = reward.draw(params, return_model, key)
        return reward.value(return_net, drawn, return_model, x, cond, sees)

    return ctm.make_student(
        _network(mine["network"]),
        _network(config["teacher"]["network"]),
        judge,
        noise,
        ctm.Student(**mine["method"]),
        optimiser,
        **sizes,
    )


def sampling(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return the fields of a stage's method that only acting heeds."""
    return {name: config[stage]["method"][name] for name in SAMPLING[stage]}


def nfe(config: dict[str, Any], stage: str) -> int:
    """Return the network calls for each trajectory: per action, or per plan."""
    method = config[stage]["method"]
    if stage == "ddpm":
        return method["sample_steps"]
    if stage != "teacher":
        return method["nfe"]
    return (method["sample_bins"] - 1) * (2 if method["solver"] == "heun" else 1)
