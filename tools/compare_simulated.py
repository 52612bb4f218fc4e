"""Print the simulated locomotion datasets beside D4RL's, as the table of docs/simulated.md.

    python -m tools.compare_simulated [--env walker2d] [--quality medium] [--transitions 200000]

Sets that are not in the cache yet are made first, at D4RL's size unless told otherwise.
"""

import argparse
from typing import NamedTuple

import numpy as np

from ractd_jax import tasks
from ractd_jax.data import dataset, hdf5, simulated


class Known(NamedTuple):
    """D4RL's own dataset: complete trajectories, undiscounted returns."""

    trajectories: int
    steps: int
    mean: float
    std: float
    high: float
    low: float


D4RL = {
    "hopper-medium-replay-v2": Known(2041, 402_000, 467.30, 511.03, 3192.93, -1.44),
    "hopper-medium-v2": Known(2186, 999_906, 1422.06, 378.95, 3222.36, 315.87),
    "hopper-expert-v2": Known(1027, 999_494, 3511.36, 328.59, 3759.08, 1645.28),
    "walker2d-medium-replay-v2": Known(1093, 302_000, 682.70, 895.96, 4132.00, -50.20),
    "walker2d-medium-v2": Known(1190, 999_995, 2852.09, 1095.44, 4226.94, -6.61),
    "walker2d-expert-v2": Known(1000, 999_214, 4920.51, 136.39, 5011.69, 763.42),
    "halfcheetah-medium-replay-v2": Known(202, 202_000, 3093.29, 1680.69, 4985.14, -638.49),
    "halfcheetah-medium-v2": Known(1000, 1_000_000, 4770.33, 355.75, 5309.38, -310.23),
    "halfcheetah-expert-v2": Known(1000, 1_000_000, 10656.43, 441.68, 11252.04, 2045.83),
}


def known(name: str) -> Known:
    """Return D4RL's numbers; medium-expert is medium followed by expert."""
    if name in D4RL:
        return D4RL[name]
    a, b = (D4RL[name.replace("medium-expert", part)] for part in ("medium", "expert"))
    n = a.trajectories + b.trajectories
    mean = (a.trajectories * a.mean + b.trajectories * b.mean) / n
    square = sum(k.trajectories * (k.std**2 + k.mean**2) for k in (a, b)) / n
    spread = np.sqrt(square - mean**2)
    return Known(n, a.steps + b.steps, mean, spread, max(a.high, b.high), min(a.low, b.low))


def row(data: str, task: tasks.TaskSpec, k: Known) -> str:
    """Return one line of the table."""
    return (
        f"| {task.name} | {data} | {k.trajectories:,} | {k.steps:,} "
        f"| {k.mean:,.1f} +- {k.std:,.1f} "
        f"| {k.high:,.1f} / {k.low:,.1f} | {task.score(k.mean):.1f} |"
    )


def main() -> None:
    """Print two lines a dataset, as soon as they are known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="", help="hopper, walker2d or halfcheetah [all]")
    parser.add_argument("--quality", default="", help="medium-replay, medium, ... [all]")
    parser.add_argument("--transitions", type=int, help="at most so many of each [D4RL's number]")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation [0]")
    args = parser.parse_args()
    print("| task | data | trajectories | steps | return, mean +- std | max / min | mean score |")
    print("|---|---|---|---|---|---|---|")
    for name in simulated.RECIPES:
        env, quality = name.removesuffix("-v2").split("-", 1)
        if args.env not in ("", env) or args.quality not in ("", quality):
            continue
        task = tasks.get(name)
        wanted = min(simulated.RECIPES[name].transitions, args.transitions or 10**9)
        path = simulated.cached(task, transitions=wanted, seed=args.seed)
        s = dataset.summary(hdf5.read(path, task), task)
        fields = "trajectories", "steps", "return_mean", "return_std", "return_max", "return_min"
        ours = Known(*(s[field] for field in fields))
        print(row("simulated", task, ours))
        print(row("D4RL", task, known(name)), flush=True)


if __name__ == "__main__":
    main()
