"""The words of the command line: what follows the colon, and what each word means."""

import dataclasses
from typing import Any

from ractd_jax import errors
from ractd_jax.envs.choice import WORDS as ENVS
from ractd_jax.methods import registry
from ractd_jax.tasks import TaskSpec

COMMANDS = {
    "all": "train what is missing of the pipeline, evaluate everything, draw the figures",
    "eval": "evaluate the data and all that is trained, or what eval.rows lists; trains nothing",
    "data": "fetch or make the data, say and draw what it holds; trains nothing",
    "bench": "measure speed with random weights: acting, training, and the machine's limits",
    "collect": "make data: SAC learns in the task's environment, or in collect.env, from scratch",
    "idql_eval": "evaluate edm_bc, cd and ct at 1, 2, 4 calls, alone and chosen from by a critic",
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
    "env": "",
    "preset": "default",
    "seed": 0,
    "seeds": 1,
}


@dataclasses.dataclass(frozen=True)
class Given:
    """What a configuration is made from.

    Attributes:
        task: what it is for.
        stage: a stage to train, or a command.
        size: one of `SIZES`.
        source: one of `SOURCES`.
        env: one of `ENVS`; "" for the one that goes with the source.
        preset: one of `PRESETS`.
        seed: of training.
        seeds: trained side by side.
        numbers: of the task, for the files of the methods.
    """

    task: TaskSpec
    stage: str
    size: str
    source: str
    env: str
    preset: str
    seed: int
    seeds: int
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)


def parse(text: str | None) -> dict[str, Any]:
    """Return the values of `ARGUMENTS` that `stage,name=value,...` gives.

    Raises:
        UserError: a word stands for nothing, or a number is none.

    Example:
        >>> parse("teacher,size=demo")["size"]
        'demo'
    """
    values: dict[str, Any] = dict(ARGUMENTS)
    for i, word in enumerate(filter(None, (text or "").split(","))):
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
    legal_stages = {*COMMANDS, *registry.records()}
    for name, legal in (("stage", legal_stages), ("size", SIZES), ("preset", PRESETS)):
        values[name] = errors.choose(name, values[name], legal)
    if values["env"]:
        errors.choose("env", values["env"], ENVS)
    for name, least in (("seed", None), ("seeds", 1)):
        try:
            values[name] = int(values[name])
        except ValueError:
            raise errors.UserError(f"{name}={values[name]!r}: a whole number is needed") from None
        if least is not None and values[name] < least:
            raise errors.UserError(f"{name}={values[name]}: at least {least}")
    return values
