"""What tables and figures call a source of data; imports no reader and no simulator."""

from pathlib import Path

from ractd_jax import tasks
from ractd_jax.data.generate.recipes import RECIPES
from ractd_jax.envs import choice

SIMULATED = "simulated (shipped SAC snapshots)"
SIMULATED_MAZE = "simulated (D4RL's own procedure)"
_LABELS = {"d4rl": "D4RL", "gym-d4rl": "D4RL (through gym + d4rl)", "simulated": SIMULATED}


def label(source: str, task: tasks.TaskSpec | None = None) -> str:
    """Return the text for a source.

    Args:
        source: see `data.sources`.
        task: whose data they are; with it the text says in which physics data were simulated, and
            what is special about them.

    Example:
        >>> label("minari:mujoco/hopper/medium-v0")
        'Minari mujoco/hopper/medium-v0'
        >>> label("logs/robot.hdf5")
        'file robot.hdf5'
    """
    if source == "simulated" and task:
        return _simulated(task)
    kind, _, name = source.partition(":")
    if kind == "minari" and name:
        return f"Minari {name}"
    return _LABELS.get(source) or f"file {Path(source).name}"


def _simulated(task: tasks.TaskSpec) -> str:
    text = SIMULATED_MAZE if task.domain == "maze2d" else SIMULATED
    physics = choice.short(choice.physics(task.env_id))
    note = ""
    if task.name in RECIPES and choice.word_of(task.env_id) == "d4rl":
        note = RECIPES[task.name].note  # a note's numbers are of that physics
    return text.replace("(", f"({physics}, ").removesuffix(")") + (f"; {note})" if note else ")")
