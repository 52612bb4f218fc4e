"""What tables and figures call a source of data; imports no reader and no simulator."""

from pathlib import Path

from ractd_jax import tasks
from ractd_jax.data.generate.recipes import RECIPES

SIMULATED = "simulated (MuJoCo 3, shipped SAC snapshots)"
SIMULATED_MAZE = "simulated (MuJoCo 3, D4RL's own procedure)"
_LABELS = {"d4rl": "D4RL", "gym-d4rl": "D4RL (through gym + d4rl)", "simulated": SIMULATED}


def label(source: str, task: tasks.TaskSpec | None = None) -> str:
    """Return the text for a source.

    Args:
        source: see `data.sources`.
        task: whose data they are; with it the text says what is special about simulated ones.

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
    if task.domain == "maze2d":
        return SIMULATED_MAZE
    note = RECIPES[task.name].note if task.name in RECIPES else ""
    return f"{SIMULATED.removesuffix(')')}; {note})" if note else SIMULATED
