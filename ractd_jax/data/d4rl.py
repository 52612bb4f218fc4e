"""D4RL's own files: found where the `d4rl` package keeps them, or downloaded from D4RL's server.

The folder and the files' base names are those of the `d4rl` package, so that each finds what the
other downloaded. `PUBLISHED` holds the numbers of the nine locomotion sets, and `check` refuses a
file with another number of steps.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

from ractd_jax import errors, tasks
from ractd_jax.data import download, episodes, hdf5

SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


class Published(NamedTuple):
    """What a dataset holds in complete episodes.

    Attributes:
        trajectories: number of episodes.
        steps: of all of them.
        return_mean: of the episodes' undiscounted sums of rewards.
        return_std: of the same.
        return_max: of the same.
        return_min: of the same.
    """

    trajectories: int
    steps: int
    return_mean: float
    return_std: float
    return_max: float
    return_min: float


# As logged by many programs that read the -v2 files; Decision Transformer (Chen et al. 2021) prints
# these very numbers.
_MEASURED = {
    "hopper-medium-replay": Published(2041, 402_000, 467.30, 511.03, 3192.93, -1.44),
    "hopper-medium": Published(2186, 999_906, 1422.06, 378.95, 3222.36, 315.87),
    "hopper-expert": Published(1027, 999_494, 3511.36, 328.59, 3759.08, 1645.28),
    "walker2d-medium-replay": Published(1093, 302_000, 682.70, 895.96, 4132.00, -50.20),
    "walker2d-medium": Published(1190, 999_995, 2852.09, 1095.44, 4226.94, -6.61),
    "walker2d-expert": Published(1000, 999_214, 4920.51, 136.39, 5011.69, 763.42),
    "halfcheetah-medium-replay": Published(202, 202_000, 3093.29, 1680.69, 4985.14, -638.49),
    "halfcheetah-medium": Published(1000, 1_000_000, 4770.33, 355.75, 5309.38, -310.23),
    "halfcheetah-expert": Published(1000, 1_000_000, 10656.43, 441.68, 11252.04, 2045.83),
}


def _joined(a: Published, b: Published) -> Published:
    """Return the numbers of both sets together."""
    n = a.trajectories + b.trajectories
    mean = (a.trajectories * a.return_mean + b.trajectories * b.return_mean) / n
    squares = sum(p.trajectories * (p.return_std**2 + p.return_mean**2) for p in (a, b))
    highest, lowest = max(a.return_max, b.return_max), min(a.return_min, b.return_min)
    std = math.sqrt(squares / n - mean**2)
    return Published(n, a.steps + b.steps, mean, std, highest, lowest)


PUBLISHED = {f"{name}-v2": published for name, published in _MEASURED.items()} | {
    # medium followed by expert
    f"{env}-medium-expert-v2": _joined(_MEASURED[f"{env}-medium"], _MEASURED[f"{env}-expert"])
    for env in ("hopper", "walker2d", "halfcheetah")
}


def locate(task: tasks.TaskSpec) -> Path:
    """Return the path of D4RL's file for a task, downloaded now if it is not there yet.

    It lives in the directory named by the environment variable `D4RL_DATASET_DIR`, or else in
    `~/.d4rl/datasets`.

    Raises:
        UserError: the server cannot be reached or sends something else, or the file cannot be
            written.
    """
    default = Path.home() / ".d4rl" / "datasets"
    path = Path(os.environ.get("D4RL_DATASET_DIR") or default) / Path(task.file).name
    if not path.is_file():
        # Kitchen's data were demonstrated by people, so there is nothing to simulate.
        offline = "" if task.domain == "kitchen" else ", or work offline with source=simulated"
        download.fetch(
            SERVER + task.file,
            path,
            lambda part: check(hdf5.read(part, task), task, "it"),
            f"put the file at {path} by hand{offline}",
        )
    return path


def load(task: tasks.TaskSpec) -> episodes.Transitions:
    """Return the complete episodes of D4RL's file for a task, all of them.

    Raises:
        UserError: as `locate`, or the file that is there holds another number of steps.
    """
    path = locate(task)
    transitions = hdf5.read(path, task)
    try:
        check(transitions, task, str(path))
    except errors.UserError as error:
        raise errors.UserError(
            f"{error}; delete it to download it again, or name it with source=<path>"
        ) from None
    return transitions


def check(transitions: episodes.Transitions, task: tasks.TaskSpec, what: str) -> None:
    """Refuse data with another number of steps than D4RL's, where that is known.

    Args:
        transitions: complete episodes.
        task: whose data they should be.
        what: the file, the first word of the message.

    Raises:
        UserError: the number of steps differs.
    """
    known, steps = PUBLISHED.get(task.name), len(transitions.rewards)
    if known and steps != known.steps:
        raise errors.UserError(
            f"{what} has {steps:,} steps in complete episodes, D4RL's {task.name} has "
            f"{known.steps:,}"
        )
