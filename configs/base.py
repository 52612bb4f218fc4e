"""Shared sections of every configuration: what each field means, its default, sizes and presets.

A task's file calls `make(task, arg, ...)` with what comes after the colon on the command line:

    --config=configs/hopper_mr.py:<stage>[,size=...][,source=...][,preset=...][,seed=...][,seeds=...]

The defaults of `ARGUMENTS` are the schema: a bare word is the stage, anything else `name=value`.
"""

import copy

from ml_collections import ConfigDict

from configs import single_action
from ractd_jax import errors, tasks

STAGES = {
    "reward": "train the return model R(s, a)",
    "teacher": "train the EDM teacher",
    "ctd": "distil a student without reward (consistency trajectory distillation)",
    "student": "distil the RACTD student; trains a missing teacher and return model first",
    "ddpm": "train a DDPM, a rival that `all` leaves out; `eval` shows it once it is trained",
    "diffuser": "train Diffuser, a rival that `all` leaves out, after its value",
    "diffuser_value": "train the value that guides Diffuser (not in mazes, where the goal does)",
    "inverse": "learn inverse dynamics, which turn planned states into actions (mazes alone)",
    "iql": "train the expectile critic (implicit Q-learning) and its policy",
    "fql": "train flow Q-learning, a one-step rival",
    "dql": "train Diffusion-QL, a rival of five steps that its critic chooses among",
    "edm_bc": "clone the data's actions with an EDM of single actions",
    "cd": "distil that EDM into a consistency model (consistency distillation)",
    "ct": "train a consistency model without a teacher (improved consistency training)",
    "idql_eval": "evaluate edm_bc, cd and ct at 1, 2, 4 calls, alone and chosen from by the critic",
    "eda_behavior": "train EDA's behaviour model, whose log-density is one forward pass",
    "eda_critic": "train the expectile critic that EDA's policy is aligned with",
    "eda": "align the behaviour model with the critic; trains both first if they are missing",
    "data": "fetch or make the data, say and draw what it holds; trains nothing",
    "collect": "make data: SAC learns in the task's environment, or in collect.env, from scratch",
    "bench": "measure speed with random weights: acting, training, and the machine's limits",
    "eval": "evaluate the data and all that is trained, or what eval.samplers lists",
    "all": "train whatever is missing, evaluate everything, draw the figures",
}
SIZES = {
    "demo": "a residual MLP that two CPU cores train in minutes",
    "small": "a U-Net of 4 to 5 M parameters (mazes: an MLP of 10 M): hours on a CPU",
    "paper": "the published U-Net, about 250 M parameters: needs an accelerator",
}
SOURCES = {
    "d4rl": "D4RL's own file (found in ~/.d4rl/datasets or D4RL_DATASET_DIR, or downloaded)",
    "gym-d4rl": "data and environments of an installed gym + d4rl",
    "minari:<id>": "a Minari dataset, e.g. minari:mujoco/hopper/medium-v0 (found or downloaded)",
    "simulated": "made here: MuJoCo rolled out with the behaviour policies that ship with us",
    "<path>": "any HDF5 file in D4RL's schema, or the folder of a Minari dataset",
}
PRESETS = {
    "default": "the paper's method with the few departures that our measurements defend",
    "paper": "what the paper's equations and tables say",
    "released": "what the published PyTorch code does",
}
ARGUMENTS = {
    "stage": "student",
    "size": "paper",
    "source": "d4rl",
    "preset": "default",
    "seed": 0,
    "seeds": 1,
}


def parse(arg: str | None) -> dict:
    """Parse `stage,name=value,...` into the values of `ARGUMENTS`."""
    values = dict(ARGUMENTS)
    for i, word in enumerate(filter(None, (arg or "").split(","))):
        name, equals, value = word.partition("=")
        if not equals:
            if i:
                raise errors.UserError(
                    f"{word!r}: only the first word after the colon stands alone (the stage); "
                    f"write name=value with a name of {', '.join(ARGUMENTS)}"
                )
            name, value = "stage", word
        name = errors.choose("argument", name, ARGUMENTS)
        values[name] = value
    for name, legal in (("stage", STAGES), ("size", SIZES), ("preset", PRESETS)):
        values[name] = errors.choose(name, values[name], legal)
    for name, least in (("seed", None), ("seeds", 1)):
        try:
            values[name] = int(values[name])
        except ValueError:
            raise errors.UserError(f"{name}={values[name]!r}: a whole number is needed") from None
        if least is not None and values[name] < least:
            raise errors.UserError(f"{name}={values[name]}: at least {least}")
    return values


def optimiser(**fields) -> ConfigDict:
    """Return the fields of `train_state.Optimiser`; `steps` 0 means `epochs` over the windows."""
    return ConfigDict(
        {
            "steps": 0,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "weight_decay": 1e-6,
            "b1": 0.95,
            "b2": 0.999,
            "warmup": 500,
            "ema": 0.9999,
            "ema_power": 0.75,
            "schedule": "cosine",
            "clip": 0.0,  # largest gradient of each layer; 0: any
        }
        | fields
    )


def _diffuser_optimiser(steps: int) -> ConfigDict:
    """Return how Diffuser was trained: batches of 32 twice, an average every tenth update."""
    return optimiser(
        steps=steps, batch_size=64, learning_rate=2e-4, weight_decay=0.0, b1=0.9, warmup=0,
        ema=0.9995, ema_power=0.0,
    )  # fmt: skip


def base(task: tasks.TaskSpec, values: dict) -> ConfigDict:
    """Return the configuration at paper size, preset `paper`, without per-task numbers."""
    unet = {
        "kind": "unet",
        "down_dims": (512, 1024, 2048),
        "embed_dim": 128,
        "width": 5,
        "groups": 8,
        "dropout": 0.0,
        "mid_dropout": 0.0,
    }
    config = ConfigDict(
        {
            "task": task.name,
            **values,
            "data": {
                "horizon": 16,  # actions of a trajectory
                "history": 1,  # observations it is conditioned on: the present one, those before it
                "discount": 0.99,  # of the return-to-go
                "termination_penalty": -100.0,  # added where an episode ends in a terminal
                "drop_last_window": False,  # the published off-by-one
                "transitions": 0,  # simulated, or the first of a file; 0: all there are
            },
            "noise": {
                "sigma_min": 0.02,
                "sigma_max": 80.0,
                "rho": 7.0,
                "bins": 80,
                "sigma_data": 0.5,
                "scaling": "boundary",
                "initial_std": 80.0,  # of x_T
                "clamp": True,  # keep the levels of training within [sigma_min, sigma_max]
                "clip": True,  # clip predictions to [-1, 1] when sampling
            },
            "teacher": {
                "network": dict(unet),
                "method": {
                    "distance": "huber",  # huber, released or squared
                    "levels": "log_normal",  # log_normal or mixed
                    "solver": "heun",  # heun or euler
                    "sample_bins": 80,
                    "reward_weight": 0.0,  # above 0: a reward-aware teacher (Table 4)
                    "reward_clip": True,
                    "reward_scale": "gradient",
                },
                "optimiser": optimiser(batch_size=1024, warmup=2000),
                "epochs": 1000,
                "weights": "ema",  # that act and are distilled: ema or live
            },
            "reward": {
                "kind": "returns",  # what judges a student: returns, this model, or iql, the critic
                "network": {"dims": (32, 64, 128, 256), "layer_norm": False},
                "method": {"members": 1, "pessimism": 0.0, "expectile": 0.5, "drawn": 0},
                "optimiser": optimiser(
                    batch_size=64, learning_rate=2e-4, weight_decay=1e-3, warmup=20
                ),
                "epochs": 50,
                "weights": "ema",
            },
            "student": {
                "network": dict(unet, dropout=0.2),
                "method": {
                    "ctm_weight": 1.0,
                    "dsm_weight": 1.0,
                    "reward_weight": 1.0,
                    "distance": "huber",
                    "dsm_goal": "data",  # data or teacher
                    "reward_on": "start",  # start: G(x_T, T, 0); dsm: the DSM prediction
                    "reward_clip": False,
                    "reward_scale": "none",  # none or gradient
                    "advantage": 0.0,  # sharpness of the weights of DSM's examples; 0: all alike
                    "solver": "heun",
                    "solver_steps": 1,
                    "max_jump": 1,
                    "target": "online",  # online or ema
                    "target_dropout": False,
                    "warm_start": True,
                    "nfe": 1,
                },
                "optimiser": optimiser(batch_size=4800, weight_decay=1e-4, ema=0.0, ema_power=0.0),
                "epochs": 400,
                "weights": "live",
            },
            "ddpm": {
                "network": dict(unet),
                "method": {
                    "steps": 100,
                    "sampler": "ddpm",  # ddpm or ddim
                    "sample_steps": 100,  # network calls per action
                },
                "optimiser": optimiser(batch_size=1024, warmup=2000),
                "epochs": 1000,
                "weights": "ema",
            },
            "collect": {
                "env": task.env_id,  # Gymnasium id of any environment with continuous actions
                "steps": 300_000,  # in which SAC learns; a finished run goes on with more
                "warmup": 10_000,  # random ones among them, before it learns
                "snapshot_every": 10_000,  # steps between the actors that are saved
                "replay": (),  # steps up to which the replay is written, besides that of `steps`
                "rollout": (),  # steps of the saved actors that are rolled out, equally long
                "transitions": 1_000_000,  # of the roll-out
            },
            "diffuser": {  # locomotion's settings
                "network": dict(unet, down_dims=(32, 64, 128, 256), embed_dim=32),
                "method": {
                    "horizon": 32,  # steps of a plan; 0: data.horizon
                    "steps": 20,  # network calls per plan
                    "action_weight": 10.0,  # of the first action in the loss
                    "clip": False,  # clip predictions to [-1, 1] when sampling
                    "guide_steps": 2,  # at each step of the schedule; 0: no value guides
                    "guide_scale": 0.1,
                    "guide_stop": 2,  # last steps of the schedule that are not guided
                    "plans": 64,  # to choose from
                },
                "optimiser": _diffuser_optimiser(steps=1_000_000),
                "weights": "ema",
            },
            "training": {
                "updates_per_dispatch": 10,
                "save_every": 5000,  # updates between checkpoints
                "keep": 2,  # newest checkpoints kept
                "compilation_cache": "~/.cache/ractd_jax",  # of compiled programs; "": none
                "precision": "float32",  # of the denoising networks: float32 or bfloat16
                "devices": 0,  # of this machine that share each batch; 0: all
            },
            "bench": {
                "batches": (1, 16, 100, 1024),  # decisions asked for at once
                "seconds": 2.0,  # of repeating each measurement but updates
                "limit": 120.0,  # a measurement that must take longer is skipped
            },
            "eval": {
                "episodes": 100,
                "first_seed": 0,  # episodes are seeded first_seed, first_seed + 1, ...
                "candidates": 0,  # above 1: evaluate once more, a judge choosing among so many
                "online": (),  # stages of whose checkpoints the best is a row as well
                "summary": "summary.json",  # in the pipeline's folder, of the rows below
                "samplers": (),  # rows of the table, e.g. "student nfe=2"; (): all that is trained
            },
        }
    )
    if task.kind == "policy":
        config.diffuser_value = {
            "network": {
                "kind": "value_unet",
                "down_dims": (32, 64, 128, 256),
                "embed_dim": 32,
                "width": 5,
                "groups": 8,
            },
            "optimiser": _diffuser_optimiser(steps=200_000),
            "weights": "ema",
        }
    config.ctd = copy.deepcopy(config.student)
    config.ctd.method.reward_weight = 0.0
    if task.kind == "policy":
        single_action.add(config, values)
    return config
