"""Print the simulated locomotion datasets beside D4RL's, as the table of docs/simulated.md.

    python -m tools.compare_simulated [--env walker2d] [--quality medium] [--transitions 200000]
    python -m tools.compare_simulated --snapshots [--env walker2d] [--quality medium-expert]

Sets that are not in the cache yet are made first, at D4RL's size unless told otherwise. With
`--snapshots` it rolls out what they are made of instead, each actor that ships for as many steps.
"""

import argparse
from typing import Any

import numpy as np

from ractd_jax import tasks
from ractd_jax.data import d4rl, hdf5, statistics
from ractd_jax.data.generate import sac_rollout, simulated

STEPS = 25_000  # of a snapshot


def row(data: str, task: tasks.TaskSpec, k: d4rl.Published) -> str:
    """Return one line of the table."""
    return (
        f"| {task.name} | {data} | {k.trajectories:,} | {k.steps:,} "
        f"| {k.return_mean:,.1f} +- {k.return_std:,.1f} "
        f"| {k.return_max:,.1f} / {k.return_min:,.1f} | {task.score(k.return_mean):.1f} |"
    )


def snapshots(env: str, quality: str, steps: int, seed: int) -> None:
    """Print what each shipped actor of a robot earns, and the qualities that are made of it."""
    with np.load(simulated.SNAPSHOTS / f"{env}.npz") as archive:
        shipped = dict(archive)
    recipes = {n: r for n, r in simulated.RECIPES.items() if n.startswith(f"{env}-")}
    for saved_at in shipped["steps"].tolist():
        users = [name for name, recipe in recipes.items() if saved_at in recipe.shares]
        qualities = [name.removeprefix(f"{env}-").removesuffix("-v2") for name in users]
        if quality and quality not in qualities:
            continue
        task = tasks.get(users[0])
        actor = simulated.actor(shipped, saved_at)
        noise = simulated.RECIPES[users[0]].noise_of(saved_at)
        block = sac_rollout.Block(task.env_id, actor, steps, (seed, saved_at), noise)
        returns = np.array([e["rewards"].sum(dtype=np.float64) for e in sac_rollout.collect(block)])
        print(
            f"| {env} after {saved_at:,} steps | {noise:g} | {', '.join(qualities)} "
            f"| {len(returns)} | {returns.mean():,.1f} +- {returns.std():,.1f} "
            f"| {returns.max():,.1f} / {returns.min():,.1f} | {task.score(returns.mean()):.1f} |",
            flush=True,
        )


def main() -> None:
    """Print two lines a dataset, or one a snapshot, as soon as they are known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [name.removesuffix("-v2").split("-", 1) for name in simulated.RECIPES]
    envs, qualities = (sorted(set(column)) for column in zip(*names, strict=True))
    parser.add_argument("--env", default="", choices=envs, help="[all]")
    parser.add_argument("--quality", default="", choices=qualities, help="[all]")
    parser.add_argument("--transitions", type=int, help="at most so many of each [D4RL's number]")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation [0]")
    parser.add_argument("--snapshots", action="store_true", help="each by itself")
    args = parser.parse_args()
    if args.snapshots:
        print(
            "| actor | noise | part of | trajectories | return, mean +- std | max / min | score |"
        )
        print("|---|---|---|---|---|---|---|")
        for env in ("hopper", "walker2d", "halfcheetah"):
            if args.env in ("", env):
                snapshots(env, args.quality, args.transitions or STEPS, args.seed)
        return
    print("| task | data | trajectories | steps | return, mean +- std | max / min | mean score |")
    print("|---|---|---|---|---|---|---|")
    for name in simulated.RECIPES:
        env, quality = name.removesuffix("-v2").split("-", 1)
        if args.env not in ("", env) or args.quality not in ("", quality):
            continue
        task = tasks.get(name)
        wanted = min(simulated.RECIPES[name].transitions, args.transitions or 10**9)
        path = simulated.cached(task, transitions=wanted, seed=args.seed)
        summary: Any = statistics.summary(hdf5.read(path, task), task)
        made = d4rl.Published(**{field: summary[field] for field in d4rl.Published._fields})
        print(row("simulated", task, made))
        print(row("D4RL", task, d4rl.PUBLISHED[name]), flush=True)


if __name__ == "__main__":
    main()
