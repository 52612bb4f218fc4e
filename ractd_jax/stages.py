"""From a resolved configuration (nested plain dicts) to algorithms.

A stage trains one model. What it needs of earlier stages reaches it as frozen weights, by the role
they play in it.
"""

import functools
from collections.abc import Callable
from typing import Any

from ractd_jax import ctm, diffusion, edm, errors, networks, reward, train_state
from ractd_jax.data import transitions, windows
from ractd_jax.methods import (
    consistency,
    ddpm,
    diffuser,
    diffusion_ql,
    eda,
    fql,
    inverse_dynamics,
    iql,
)
from ractd_jax.nn import mlp
from ractd_jax.tasks import TaskSpec
from ractd_jax.types import Algorithm

PIPELINE = ("reward", "teacher", "ctd", "student")  # what `all` trains, in this order
# Those that learn from single steps.
SINGLE = ("iql", "fql", "dql", "edm_bc", "cd", "ct", "eda_behavior", "eda_critic", "eda")
# The others are trained only where they are asked for; not every task has all of them.
TRAINED = (*PIPELINE, "ddpm", "diffuser_value", "diffuser", "inverse", *SINGLE)
# Those whose model acts, in the order of a table.
ACTING = (
    *("edm_bc", "eda_behavior", "cd", "ct", "ddpm", "diffuser", "teacher", "ctd", "student"),
    *("iql", "eda", "fql", "dql"),
)
RECALLING = ("teacher", "ctd", "student", "ddpm")  # conditioned on `data.history` observations
DETERMINISTIC = ("iql", "eda_critic")  # their samples are all the same
JUDGES = {"returns": "reward", "iql": "iql"}  # reward.kind: the stage that judges a student
# Fields of a stage's method that only acting heeds: they may differ from those it was trained with.
SAMPLING = {
    "teacher": ("solver", "sample_bins"),
    "ctd": ("nfe",),
    "student": ("nfe",),
    "ddpm": ("sampler", "sample_steps"),
    "diffuser": ("guide_scale", "guide_stop", "plans"),
    "edm_bc": ("solver", "sample_bins"),
    "cd": ("nfe",),
    "ct": ("nfe",),
    "eda_behavior": ("nfe", "spacing", "clip"),
    "eda": ("nfe", "spacing", "clip"),
}
NETWORKS = {
    "unet": networks.ConditionalUnet1D,
    "mlp": networks.ResidualMLP,
    "value_unet": networks.ValueUnet1D,
    "fourier": mlp.FourierMLP,
}


def of(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the stages that a task's configuration has, in the order of `TRAINED`."""
    return tuple(stage for stage in TRAINED if stage in config)


def needs(config: dict[str, Any], stage: str) -> dict[str, str]:
    """Return the stages whose weights a stage needs, by their role."""
    if stage == "diffuser" and config[stage]["method"]["guide_steps"]:
        return {"diffuser_value": "diffuser_value"}
    if stage == "cd":
        return {"teacher": "edm_bc"}
    if stage == "eda":
        return {"behavior": "eda_behavior", "critic": "eda_critic"}
    if stage not in ("teacher", "ctd", "student"):
        return {}
    found = {} if stage == "teacher" else {"teacher": "teacher"}
    method = config[stage]["method"]
    if method.get("reward_weight") or method.get("advantage"):
        found["reward"] = judging(config)
    return found


def judging(config: dict[str, Any]) -> str:
    """Return the stage that says what the trajectories of a task are worth."""
    kind = config["reward"].get("kind", "returns")  # runs of earlier versions do not say
    stage = JUDGES[errors.choose("reward.kind", kind, JUDGES)]
    if stage not in config:
        raise errors.UserError(f"{config['task']} has no {stage}: reward.kind is to be 'returns'")
    return stage


def frame(config: dict[str, Any], stage: str) -> str:
    """Return the frame in which a stage sees its data, see `data.transitions.FRAMES`."""
    return config[stage].get("data", {}).get("frame", "limits")


def history(config: dict[str, Any], stage: str) -> int:
    """Return how many observations a stage is conditioned on, the present one among them."""
    # Runs of earlier versions do not say.
    return config["data"].get("history", 1) if stage in RECALLING else 1


def sizes(config: dict[str, Any], task: TaskSpec, stage: str) -> dict[str, Any]:
    """Return the sizes of what a stage generates or judges, as every `make_*` takes them."""
    if stage in SINGLE:
        return {"shape": (1, task.act_dim), "cond_dim": task.obs_dim}
    horizon = config["data"]["horizon"]
    if task.kind == "planner":
        return {"shape": (horizon, task.obs_dim), "cond_dim": 2 * task.obs_dim}
    seen = history(config, stage)
    return {"shape": (horizon, task.act_dim), "cond_dim": seen * task.obs_dim}


def window(config: dict[str, Any], task: TaskSpec, stage: str) -> tuple[int, Callable]:
    """Return what a stage is trained on: the steps of a window, and how to draw batches of them."""
    if stage in SINGLE:
        return 1, transitions.sample
    errands = config["data"].get("errands", 0.0)
    if stage == "inverse":
        return 2, windows.sample_pairs
    if stage in ("diffuser", "diffuser_value"):
        ends = 2 if task.kind == "planner" else 1
        horizon = config["diffuser"]["method"]["horizon"] or config["data"]["horizon"]
        return horizon, functools.partial(windows.sample_ways, ends=ends, errands=errands)
    # The return model judges single steps, so it sees the last ones of an episode too.
    horizon = 1 if stage == "reward" else config["data"]["horizon"]
    draw = windows.SAMPLE[task.kind]
    if task.kind == "planner" and stage != "reward":
        draw = functools.partial(draw, errands=errands)
    elif stage in RECALLING:
        draw = functools.partial(draw, history=history(config, stage))
    return horizon, draw


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
    optimiser = train_state.Optimiser(**config[stage]["optimiser"], axis=axis)
    return MAKE[stage](config, task, stage, optimiser, sizes(config, task, stage))


# ---- one function a method ---------------------------------------------------------------------


def _noise(config, stage) -> diffusion.Noise:
    """Return the noise levels of a stage: its own, or those that the pipeline shares."""
    return diffusion.Noise(**config[stage].get("noise", config["noise"]))


def _teacher(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    method, judge = edm.Teacher(**mine["method"]), None
    if method.reward_weight:
        judge = _judge(config, task, stage)
    net, noise = _network(mine["network"]), _noise(config, stage)
    return edm.make_teacher(net, noise, method, optimiser, **sizes, judge=judge)


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


def _judge(config, task, stage):
    """Return what says how much the trajectories of a stage are worth.

    It has learnt from the present observation, which is the last of those that the stage sees.
    """
    width = sizes(config, task, "reward")["cond_dim"]
    if needs(config, stage).get("reward") == "iql":
        critic = make(config, task, "iql")

        def judge(params, x, cond, key):
            return critic.value(params, x, cond[:, -width:])

    else:
        net, model = _return_parts(config)

        def judge(params, x, cond, key):
            drawn = reward.draw(params, model, key)
            seen = cond[:, -width:]
            return reward.value(net, drawn, model, x, seen, reward.SEES[task.kind])

    return judge


def _student(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    # A critic has units of its own, and a plan's judgement is a sum over its states.
    critic = needs(config, stage).get("reward", "reward") != "reward"
    own_units = critic or task.kind == "planner"
    return ctm.make_student(
        _network(mine["network"]),
        _network(config["teacher"]["network"]),
        _judge(config, task, stage),
        _noise(config, stage),
        ctm.Student(**mine["method"]),
        optimiser,
        **sizes,
        own_units=own_units,
    )


def _iql(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    fields = dict(mine["network"])
    hidden = tuple(fields.pop("hidden"))
    net = mlp.MLP(hidden, 1, **fields)
    policy_net = mlp.GaussianPolicy(hidden, task.act_dim, fields["activation"])
    return iql.make_iql(net, net, policy_net, iql.Iql(**mine["method"]), optimiser, **sizes)


def _diffuser(config, task, stage, optimiser, sizes) -> Algorithm:
    method = diffuser.Diffuser(**config["diffuser"]["method"])
    net = _network(config[stage]["network"])
    sizes = {"horizon": window(config, task, stage)[0]}
    sizes |= {"act_dim": task.act_dim, "obs_dim": task.obs_dim}
    if stage == "diffuser_value":
        return diffuser.make_value(net, method, optimiser, **sizes)
    if method.guide_steps and task.kind == "planner":
        raise errors.UserError(
            f"diffuser.method.guide_steps is {method.guide_steps}: in a maze nothing guides, the "
            "ends of a plan do; it takes 0"
        )
    value = _network(config["diffuser_value"]["network"]) if method.guide_steps else None
    gives = "states" if task.kind == "planner" else "actions"
    return diffuser.make_diffuser(net, value, method, optimiser, **sizes, gives=gives)


def _inverse(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    net = networks.InverseMLP(task.act_dim, tuple(mine["network"]["hidden"]))
    inverse = inverse_dynamics.Inverse(**mine["method"])
    sizes = {"shape": (1, task.act_dim), "cond_dim": 2 * task.obs_dim}
    return inverse_dynamics.make_inverse(net, inverse, optimiser, **sizes)


def _fql(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    fields = dict(mine["network"])
    hidden = tuple(fields.pop("hidden"))
    q_net = mlp.MLP(hidden, 1, **fields)
    net = mlp.MLP(hidden, task.act_dim, fields["activation"], "")
    return fql.make_fql(q_net, net, net, fql.Fql(**mine["method"]), optimiser, **sizes)


def _dql(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    fields = dict(mine["network"])
    hidden, embed_dim = tuple(fields.pop("hidden")), fields.pop("embed_dim")
    net = mlp.StepMLP(hidden, embed_dim, fields["activation"])
    q_net = mlp.MLP(hidden, 1, **fields)
    method = diffusion_ql.DiffusionQl(**mine["method"])
    return diffusion_ql.make_diffusion_ql(net, q_net, method, optimiser, **sizes)


def _cd(config, task, stage, optimiser, sizes) -> Algorithm:
    mine, teacher = config[stage], config["edm_bc"]
    method = consistency.Distillation(**mine["method"])
    nets = _network(mine["network"]), _network(teacher["network"])
    return consistency.make_cd(*nets, _noise(config, "edm_bc"), method, optimiser, **sizes)


def _ct(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    method = consistency.Training(**mine["method"])
    return consistency.make_ct(
        _network(mine["network"]), _noise(config, stage), method, optimiser, **sizes
    )


def _bottleneck(config, **fields) -> mlp.Bottleneck:
    return mlp.Bottleneck(**config["eda_behavior"]["network"] | fields)


def _eda_behavior(config, task, stage, optimiser, sizes) -> Algorithm:
    sampler = eda.Sampler(**config[stage]["method"])
    return eda.make_behavior(_bottleneck(config), sampler, optimiser, **sizes)


def _eda(config, task, stage, optimiser, sizes) -> Algorithm:
    mine = config[stage]
    critic = make(config, task, "eda_critic")
    net, method = _bottleneck(config, **mine["network"]), eda.Eda(**mine["method"])
    return eda.make_eda(net, critic.value, method, optimiser, **sizes)


MAKE = {
    "reward": _reward,
    "teacher": _teacher,
    "ctd": _student,
    "student": _student,
    "ddpm": _ddpm,
    "diffuser": _diffuser,
    "diffuser_value": _diffuser,
    "inverse": _inverse,
    "iql": _iql,
    "fql": _fql,
    "dql": _dql,
    "edm_bc": _teacher,
    "cd": _cd,
    "ct": _ct,
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
    found = {"judge": "", "candidates": 1, "inverse_temperature": 0.0}
    found |= config[stage].get("reselect", {})
    return found | {"judge": found["judge"] or judging(config)}


def nfe(config: dict[str, Any], stage: str) -> int:
    """Return the network calls for each trajectory: per action, or per plan."""
    method = config[stage]["method"]
    # The value that guides Diffuser is called besides.
    for field in ("nfe", "sample_steps", "steps"):
        if field in method:
            return method[field]
    if "sample_bins" in method:
        return (method["sample_bins"] - 1) * (2 if method["solver"] == "heun" else 1)
    return 1
