"""Which environment a task acts in: the words of `env=`, and what tables call the physics.

A task of `tasks.TASKS` names the environment with D4RL's physics. Its locomotion can act in
Gymnasium's instead, which have other masses and contacts (v4), or other models and rewards (v5).
This module imports no simulator.
"""

import dataclasses
import re

from ractd_jax import errors, tasks

WORDS = {
    "d4rl": "D4RL's physics: MuJoCo 2.1's numbers in MuJoCo 3 (the default)",
    "v4": "Gymnasium's v4: D4RL's rewards, other masses and contacts (locomotion)",
    "v5": "Gymnasium's v5: other models and rewards (locomotion; default of minari:mujoco/...)",
}
PREFIX = "gym-d4rl:"  # of the ids of environments of an installed `gym` + `d4rl`
ROBOTS = {"hopper": "Hopper", "walker2d": "Walker2d", "halfcheetah": "HalfCheetah"}
_REBUILT = "MuJoCo 2.1 numbers in MuJoCo 3"
# of results that do not say it: all of them were measured before D4RL's numbers were put in
_EARLIER = {"maze2d": "Maze2d v1 (MuJoCo 3's own numbers)", "kitchen": "FrankaKitchen (MuJoCo 3)"}


def choose(task: tasks.TaskSpec, word: str) -> tasks.TaskSpec:
    """Return the task in the environment that a word of `WORDS` names.

    Args:
        task: the task.
        word: of `env=`.

    Raises:
        UserError: the word is unknown, or the task has no such environment.

    Example:
        >>> choose(tasks.get("hopper-medium-v2"), "v4").env_id
        'Hopper-v4'
    """
    errors.choose("env", word, WORDS)
    if word == "d4rl":
        original = tasks.TASKS.get(task.name)
        if original is None:
            raise errors.UserError(
                f"env={word}: {task.name} is no task of D4RL's; leave the word out"
            )
        return dataclasses.replace(task, env_id=original.env_id)
    if task.domain not in ROBOTS:
        raise errors.UserError(
            f"env={word}: {task.name} has no such environment, only {', '.join(ROBOTS)} have; "
            "leave the word out"
        )
    return dataclasses.replace(task, env_id=f"{ROBOTS[task.domain]}-{word}")


def word_of(env_id: str) -> str:
    """Return the word that stands for an environment in names of files and folders.

    Example:
        >>> word_of("ractd_jax/Hopper-v2"), word_of("Hopper-v4"), word_of("Ant-v4")
        ('d4rl', 'v4', 'Ant-v4')
    """
    if env_id.startswith("ractd_jax/"):
        return "d4rl"
    robot, _, version = env_id.rpartition("-")
    if robot in ROBOTS.values() and version in WORDS:
        return version
    return re.sub(r"[^\w.-]", "_", env_id)


def physics(env_id: str) -> str:
    """Return what tables, figures and eval.json call the physics of an environment.

    Args:
        env_id: see `make.make_env`; "" for none.

    Example:
        >>> physics("ractd_jax/Hopper-v2")
        'D4RL v2 (MuJoCo 2.1 numbers in MuJoCo 3)'
        >>> physics("Hopper-v4")
        'Gymnasium v4'
    """
    version = env_id.rpartition("-")[2]
    if env_id.startswith(PREFIX):
        return f"D4RL {version} (its own packages)"
    if env_id.startswith("ractd_jax/Kitchen"):
        return "D4RL's Kitchen (gymnasium-robotics, MuJoCo 3)"
    if env_id.startswith("ractd_jax/"):
        return f"D4RL {version} ({_REBUILT})"
    if env_id.rpartition("-")[0] in ROBOTS.values():
        return f"Gymnasium {version}"
    return env_id


def short(text: str) -> str:
    """Return the part of a name of `physics` that fits into a caption.

    Example:
        >>> short("D4RL v2 (MuJoCo 2.1 numbers in MuJoCo 3)")
        'D4RL v2'
    """
    return text.partition(" (")[0]


def earlier(task: str) -> str:
    """Return the physics of a result that does not say which it was measured in.

    Args:
        task: name of the result's task.

    Example:
        >>> earlier("hopper-medium-v2")
        'Gymnasium v4'
    """
    return _EARLIER.get(task.partition("-")[0], "Gymnasium v4")
