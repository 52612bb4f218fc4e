"""Print the simulated locomotion datasets beside D4RL's, as the table of docs/simulated.md.

    python -m tools.compare_simulated [--env walker2d] [--quality medium] [--transitions 200000]

Sets that are not in the cache yet are made first, at D4RL's size unless told otherwise.
"""

import argparse

from ractd_jax import tasks
from ractd_jax.data import d4rl, dataset, hdf5, simulated


def row(data: str, task: tasks.TaskSpec, k: d4rl.Published) -> str:
    """Return one line of the table."""
    return (
        f"| {task.name} | {data} | {k.trajectories:,} | {k.steps:,} "
        f"| {k.return_mean:,.1f} +- {k.return_std:,.1f} "
        f"| {k.return_max:,.1f} / {k.return_min:,.1f} | {task.score(k.return_mean):.1f} |"
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
        ours = d4rl.Published(*(s[field] for field in d4rl.Published._fields))
        print(row("simulated", task, ours))
        print(row("D4RL", task, d4rl.PUBLISHED[name]), flush=True)


if __name__ == "__main__":
    main()
