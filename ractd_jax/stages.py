"""From a resolved configuration (nested plain dicts) to algorithms.

A stage trains one model. What it needs of earlier stages reaches it as frozen weights.
"""

import functools
from collections.abc import Callable
from typing import Any

from ractd_jax import (
    ctm,
    ddpm,
    diffuser,
    diffusion,
    edm,
    errors,
    inverse_dynamics,
    networks,
    reward,
    train_state,
)
from ractd_jax.data import dataset
from ractd_jax.tasks import TaskSpec
from ractd_jax.types import Algorithm

PIPELINE = ("reward", "teacher", "ctd", "student")  # what `all` trains, in this order
TRAINED = (*PIPELINE, "ddpm", "diffuser")  # rivals only where they are asked for
ALSO = {"policy": ("diffuser_value",), "planner": ("inverse",)}  # trained by one kind of task alone
# Fields of a stage's method that only acting heeds: they may differ from those it was trained with.
SAMPLING = {
    "teacher": ("solver", "sample_bins"),
    "ctd": ("nfe",),
    "student": ("nfe",),
    "ddpm": ("sampler", "sample_steps"),
    "diffuser": ("guide_scale", "guide_stop", "plans"),
}
NETWORKS = {
    "unet": networks.ConditionalUnet1D,
    "mlp": networks.ResidualMLP,
    "value_unet": networks.ValueUnet1D,
}


def needs(config: dict[str, Any], stage: str) -> tuple[str, ...]:
    """Return the stages whose weights a stage needs."""
    if stage == "diffuser" and config[stage]["method"]["guide_steps"]:
        return ("diffuser_value",)
    if stage not in ("ctd", "student"):
        return ()
    return ("teacher", "reward") if config[stage]["method"]["reward_weight"] else ("teacher",)


def trajectory(task: TaskSpec, horizon: int) -> dict[str, Any]:
    """Return the sizes of what is generated, see `data.dataset.SAMPLE`."""
    if task.kind == "planner":
        return {"shape": (horizon, task.obs_dim), "cond_dim": 2 * task.obs_dim}
    return {"shape": (horizon, task.act_dim), "cond_dim": task.obs_dim}


def trained(task: TaskSpec) -> tuple[str, ...]:
    """Return the stages that a task can train."""
    return (*TRAINED, *ALSO[task.kind])


def window(config: dict[str, Any], task: TaskSpec, stage: str) -> tuple[int, Callable]:
    """Return what a stage is trained on: the steps of a window, and how to draw batches of them."""
    if stage == "inverse":
        return 2, dataset.sample_pairs
    if stage in ("diffuser", "diffuser_value"):
        ends = 2 if task.kind == "planner" else 1
        horizon = config["diffuser"]["method"]["horizon"] or config["data"]["horizon"]
        return horizon, functools.partial(dataset.sample_ways, ends=ends)
    # The return model judges single steps, so it sees the last ones of an episode too.
    horizon = 1 if stage == "reward" else config["data"]["horizon"]
    return horizon, dataset.SAMPLE[task.kind]


def _network(fields: dict[str, Any]):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return NETWORKS[errors.choose("network.kind", fields.pop("kind"), NETWORKS)](**fields)


def make(config: dict[str, Any], task: TaskSpec, stage: str, axis: str = "") -> Algorithm:
    """Make the algorithm of a stage.

    Args:
        config: the resolved configuration.
        task: sizes of observations and actions.
        stage: one of `trained(task)`.
        axis: see `train_state.Optimiser`.
    """
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
    if stage in ("diffuser", "diffuser_value"):
        return _diffuser(config, task, stage, optimiser)
    if stage == "inverse":
        net = networks.InverseMLP(task.act_dim, tuple(mine["network"]["hidden"]))
        inverse = inverse_dynamics.Inverse(**mine["method"])
        sizes = {"shape": (1, task.act_dim), "cond_dim": 2 * task.obs_dim}
        return inverse_dynamics.make_inverse(net, inverse, optimiser, **sizes)

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


def _diffuser(config: dict[str, Any], task: TaskSpec, stage: str, optimiser) -> Algorithm:
    method, net = (
        diffuser.Diffuser(**config["diffuser"]["method"]),
        _network(config[stage]["network"]),
    )
    sizes = {"horizon": window(config, task, stage)[0]}
    sizes |= {"act_dim": task.act_dim, "obs_dim": task.obs_dim}
    if stage == "diffuser_value":
        return diffuser.make_value(net, method, optimiser, **sizes)
    value = _network(config["diffuser_value"]["network"]) if method.guide_steps else None
    gives = "states" if task.kind == "planner" else "actions"
    return diffuser.make_diffuser(net, value, method, optimiser, **sizes, gives=gives)


def sampling(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return the fields of a stage's method that only acting heeds."""
    return {name: config[stage]["method"][name] for name in SAMPLING[stage]}


def nfe(config: dict[str, Any], stage: str) -> int:
    """Return the network calls for each trajectory: per action, or per plan."""
    method = config[stage]["method"]
    if stage == "ddpm":
        return method["sample_steps"]
    if stage == "diffuser":  # calls of the value, which guides, come on top
        return method["steps"]
    if stage != "teacher":
        return method["nfe"]
    return (method["sample_bins"] - 1) * (2 if method["solver"] == "heun" else 1)
