"""From a resolved configuration (nested plain dicts) to algorithms.

A stage trains one model. What it needs of earlier stages reaches it as frozen weights, by the role
they play in it.
"""

from typing import Any

from ractd_jax import (
    action_networks,
    ctm,
    ddpm,
    diffusion,
    eda,
    edm,
    errors,
    iql,
    networks,
    reward,
    train_state,
)
from ractd_jax.tasks import TaskSpec
from ractd_jax.types import Algorithm

PIPELINE = ("reward", "teacher", "ctd", "student")  # what `all` trains, in this order
SINGLE = ("iql", "eda_behavior", "eda_critic", "eda")  # learn from single steps
TRAINED = (*PIPELINE, "ddpm", *SINGLE)  # rivals only where they are asked for
DETERMINISTIC = ("iql", "eda_critic")  # their samples are all the same
JUDGES = {"returns": "reward", "iql": "iql"}  # reward.kind: the stage that judges a student
# Fields of a stage's method that only acting heeds: they may differ from those it was trained with.
SAMPLING = {
    "teacher": ("solver", "sample_bins"),
    "ctd": ("nfe",),
    "student": ("nfe",),
    "ddpm": ("sampler", "sample_steps"),
    "eda_behavior": ("nfe", "spacing", "clip"),
    "eda": ("nfe", "spacing", "clip"),
}
NETWORKS = {"unet": networks.ConditionalUnet1D, "mlp": networks.ResidualMLP}


def of(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the stages that a task's configuration has, in the order of `TRAINED`."""
    return tuple(stage for stage in TRAINED if stage in config)


def needs(config: dict[str, Any], stage: str) -> dict[str, str]:
    """Return the stages whose weights a stage needs, by their role."""
    if stage == "eda":
        return {"behavior": "eda_behavior", "critic": "eda_critic"}
    if stage not in ("ctd", "student"):
        return {}
    if not config[stage]["method"]["reward_weight"]:
        return {"teacher": "teacher"}
    kind = errors.choose("reward.kind", config["reward"]["kind"], JUDGES)
    return {"teacher": "teacher", "reward": JUDGES[kind]}


def frame(config: dict[str, Any], stage: str) -> str:
    """Return the frame in which a stage sees its data, see `data.transitions.FRAMES`."""
    return config[stage].get("data", {}).get("frame", "limits")


def sizes(config: dict[str, Any], task: TaskSpec, stage: str) -> dict[str, Any]:
    """Return the sizes of what a stage generates or judges, as every `make_*` takes them."""
    if stage in SINGLE:
        return {"shape": (1, task.act_dim), "cond_dim": task.obs_dim}
    horizon = config["data"]["horizon"]
    if task.kind == "planner":
        return {"shape": (horizon, task.obs_dim), "cond_dim": 2 * task.obs_dim}
    return {"shape": (horizon, task.act_dim), "cond_dim": task.obs_dim}


def _network(fields: dict[str, Any]):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return NETWORKS[errors.choose("network.kind", fields.pop("kind"), NETWORKS)](**fields)


def make(config: dict[str, Any], task: TaskSpec, stage: str, axis: str = "") -> Algorithm:
    """Make the algorithm of a stage.

    Args:
        config: the resolved configuration.
        task: sizes of observations and actions.
        stage: one of `TRAINED`.
        axis: see `train_state.Optimiser`.
    """
    optimiser = train_state.Optimiser(**config[stage]["optimiser"], axis=axis)
    return MAKE[stage](config, task, stage, optimiser, sizes(config, task, stage))


# ---- one function a method ---------------------------------------------------------------------


def _noise(config, stage) -> diffusion.Noise:
    """Return the noise levels of a stage: its own, or those that the pipeline shares."""
    return diffusion.Noise(**config[stage].get("noise", config["noise"]))


def _teacher(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    method = edm.Teacher(**mine["method"])
    return edm.make_teacher(
        _network(mine["network"]), _noise(config, stage), method, optimiser, **sizes
    )


def _ddpm(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    method = ddpm.Ddpm(**mine["method"])
    return ddpm.make_ddpm(
        _network(mine["network"]), _noise(config, stage), method, optimiser, **sizes
    )


def _return_parts(config):
    fields = config["reward"]["network"]
    net = networks.ReturnMLP(tuple(fields["dims"]), fields["layer_norm"])
    return net, reward.ReturnModel(**config["reward"]["method"])


def _reward(config, task, stage, optimiser, sizes) -> Algorithm:
    net, model = _return_parts(config)
    return reward.make_return_model(net, model, optimiser, **sizes, sees=reward.SEES[task.kind])


def _student(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    if needs(config, stage).get("reward") == "iql":
        critic = make(config, task, "iql")

        def judge(params, x, cond, key):
            return critic.judge(params, x, cond)

    else:
        net, model = _return_parts(config)

        def judge(params, x, cond, key):
            drawn = reward.draw(params, model, key)
            return reward.value(net, drawn, model, x, cond, reward.SEES[task.kind])

    return ctm.make_student(
        _network(mine["network"]),
        _network(config["teacher"]["network"]),
        judge,
        _noise(config, stage),
        ctm.Student(**mine["method"]),
        optimiser,
        **sizes,
    )


def _iql(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    fields = dict(mine["network"])
    hidden = tuple(fields.pop("hidden"))
    net = action_networks.MLP(hidden, 1, **fields)
    policy_net = action_networks.GaussianPolicy(hidden, task.act_dim, fields["activation"])
    return iql.make_iql(net, net, policy_net, iql.Iql(**mine["method"]), optimiser, **sizes)


def _bottleneck(config, **fields) -> action_networks.Bottleneck:
    return action_networks.Bottleneck(**config["eda_behavior"]["network"] | fields)


def _eda_behavior(config, task, stage, optimiser, sizes) -> Algorithm:
    sampler = eda.Sampler(**config[stage]["method"])
    return eda.make_behavior(_bottleneck(config), sampler, optimiser, **sizes)


def _eda(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    critic = make(config, task, "eda_critic")
    net, method = _bottleneck(config, **mine["network"]), eda.Eda(**mine["method"])
    return eda.make_eda(net, critic.judge, method, optimiser, **sizes)


MAKE = {
    "reward": _reward,
    "teacher": _teacher,
    "ctd": _student,
    "student": _student,
    "ddpm": _ddpm,
    "iql": _iql,
    "eda_behavior": _eda_behavior,
    "eda_critic": _iql,
    "eda": _eda,
}


# ---- acting ------------------------------------------------------------------------------------


def sampling(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return the fields of a stage's method that only acting heeds."""
    return {name: config[stage]["method"][name] for name in SAMPLING.get(stage, ())}


def reselection(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Return who chooses among how many candidates of a stage, and how (`policy.Reselect`)."""
    none = {"judge": JUDGES[config["reward"]["kind"]], "candidates": 1, "inverse_temperature": 0.0}
    return none | config[stage].get("reselect", {})


def nfe(config: dict[str, Any], stage: str) -> int:
    """Return the network calls for each trajectory: per action, or per plan."""
    method = config[stage]["method"]
    if stage == "ddpm":
        return method["sample_steps"]
    if "nfe" in method:
        return method["nfe"]
    if "sample_bins" in method:
        return (method["sample_bins"] - 1) * (2 if method["solver"] == "heun" else 1)
    return 1
