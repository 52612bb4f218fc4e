"""Print what saved SAC actors earn in D4RL's physics, beside D4RL's published returns.

    python -m tools.evaluate_snapshots --env hopper                          those that ship
    python -m tools.evaluate_snapshots --env hopper --folder DIR/snapshots   those of a run
    python -m tools.evaluate_snapshots --env hopper --folder DIR/snapshots --steps 90000,100000

Each acts in as many episodes with its noise, as data are made, and without. A folder holds
`<step>.npz`, as `ractd_jax.data.generate.collect` and `tools.train_experts` save them.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import d4rl
from ractd_jax.data.generate import sac_rollout, simulated
from ractd_jax.evaluation import rollouts as episodes

ENVS = {"hopper": "Hopper", "walker2d": "Walker2d", "halfcheetah": "HalfCheetah"}


def load(env: str, folder: Path | None) -> dict[int, sac_rollout.Actor]:
    """Return the actors of a folder, or the shipped ones, by the step they were saved at.

    Raises:
        SystemExit: there is none.
    """
    if folder is None:
        with np.load(simulated.SNAPSHOTS / f"{env}.npz") as archive:
            shipped = dict(archive)
        saved = ((at, simulated.actor(shipped, at)) for at in shipped["steps"].tolist())
        return {at: actor for at, actor in saved if actor is not None}
    files = {int(path.stem): path for path in folder.glob("*.npz") if path.stem.isdecimal()}
    if not files:
        raise SystemExit(f"{folder} holds no <step>.npz")
    actors = {}
    for at, path in sorted(files.items()):
        with np.load(path) as archive:
            actors[at] = dict(archive)
    return actors


def returns(
    actor: sac_rollout.Actor, task: tasks.TaskSpec, seeds: range, *, noisy: bool
) -> np.ndarray:
    """Return the plain returns of an actor, one a seed, acting with its noise or without."""
    shape = task.max_episode_steps, task.act_dim
    noises = {
        seed: np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in seeds
    }

    def policy(obs, seeds, step):
        noise = np.array([noises[seed][step] for seed in seeds.tolist()])
        return sac_rollout.act(actor, obs, noise if noisy else np.zeros_like(noise))

    return episodes.rollout(policy, task, seeds).returns


def main() -> None:
    """Print a line a snapshot as soon as it is known, then D4RL's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", required=True, choices=sorted(ENVS))
    parser.add_argument("--folder", type=Path, help="of a run's snapshots [those that ship]")
    parser.add_argument("--steps", default="", help="which snapshots, as 90000,100000 [all]")
    parser.add_argument("--last", type=int, default=0, help="the last so many of them [all]")
    parser.add_argument("--episodes", type=int, default=10, help="[10]")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode [0]")
    parser.add_argument("--env-id", help="another environment, as Hopper-v4 [D4RL's physics]")
    args = parser.parse_args()
    env_id = args.env_id or f"ractd_jax/{ENVS[args.env]}-v2"
    task = dataclasses.replace(tasks.get(f"{args.env}-medium-v2"), env_id=env_id)
    actors = load(args.env, args.folder)
    wanted = args.steps.split(",") if args.steps else [str(at) for at in actors][-args.last :]
    for at in wanted:
        errors.choose("snapshot", at, {str(at) for at in actors})
    seeds = range(args.seed, args.seed + args.episodes)
    print(f"| {env_id} | with noise, mean +- sd | max / min | without noise | score |")
    print("|---|---|---|---|---|")
    for at in wanted:
        noisy, calm = (returns(actors[int(at)], task, seeds, noisy=n) for n in (True, False))
        print(
            f"| {int(at):,} | {noisy.mean():,.1f} +- {noisy.std():,.1f} "
            f"| {noisy.max():,.1f} / {noisy.min():,.1f} | {calm.mean():,.1f} +- {calm.std():,.1f} "
            f"| {task.score(noisy.mean()):.1f} |",
            flush=True,
        )
    for quality in ("medium", "expert"):
        k = d4rl.PUBLISHED[f"{args.env}-{quality}-v2"]
        print(
            f"| D4RL's {quality} | {k.return_mean:,.1f} +- {k.return_std:,.1f} "
            f"| {k.return_max:,.1f} / {k.return_min:,.1f} | | {task.score(k.return_mean):.1f} |"
        )


if __name__ == "__main__":
    main()
