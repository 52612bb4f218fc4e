"""How diverse the policies of a pipeline are: what one network call and a reward cost in variety.

python -m ractd_jax.evaluation.diversity runs/hopper-medium-replay-v2/demo-simulated-seed0

RACTD, appendix D, says in words that a student prefers the better of its teacher's modes; these are
numbers for it. For states of the dataset, and for each policy several actions at each:

    spread    mean distance of two actions of one policy at one state
    coverage  share of the teacher's actions near one of the policy's; near is what 95 % of the
              teacher's actions are to another sample of its own of the same size
    return    the return model's value of the actions, in standard deviations of its values of the
              teacher's, above their mean

A policy of a history (`data.history`) is shown each state as the first of an episode.
"""

import argparse
import pathlib
import sys
from typing import Any

import numpy as np
from jaxtyping import Float
from rich import box
from rich.table import Table

from ractd_jax import console, errors
from ractd_jax.data import labels
from ractd_jax.envs import choice
from ractd_jax.evaluation import finished
from ractd_jax.policies import load
from ractd_jax.policies.load import load_policy
from ractd_jax.report import style
from ractd_jax.training import checkpoints
from ractd_jax.training.opening import open_pipeline

Actions = Float[np.ndarray, "state sample dim"]


def spread(actions: Actions) -> float:
    """Return the mean Euclidean distance of two different samples at one state."""
    count = actions.shape[1]
    return float(distances(actions, actions).sum() / (len(actions) * count * (count - 1)))


def distances(a: Actions, b: Float[np.ndarray, "state other dim"]) -> np.ndarray:
    """Return the distance of each sample in `a` to each in `b` at the same state."""
    return np.linalg.norm(a[:, :, None] - b[:, None], axis=-1)


def radius(first: Actions, second: Actions) -> Float[np.ndarray, " state"]:
    """Return, for each state, within what distance 95 % of `first` have one of `second`."""
    return np.quantile(distances(first, second).min(axis=2), 0.95, axis=1)


def coverage(teacher: Actions, actions: Actions, near: Float[np.ndarray, " state"]) -> float:
    """Return the share of the teacher's samples that have one of the policy's within `near`."""
    return float(np.mean(distances(teacher, actions).min(axis=2) <= near[:, None]))


def measure(
    workdir: pathlib.Path, states: int, samples: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Return an entry for each trained policy of a pipeline.

    Args:
        workdir: the pipeline's folder, with a teacher, a return model, and students.
        states: how many of the dataset's states are asked.
        samples: actions of each policy at each of them.
        seed: of the choice of states.

    Raises:
        UserError: there is no teacher or no return model, or the task is planned.
    """
    config = finished.saved_config(workdir)
    pipeline = open_pipeline(config, workdir)
    if pipeline.task.kind != "policy":
        raise errors.UserError(f"{pipeline.task.name} is planned: this compares actions")
    seen = pipeline.recorded.episodes.observations
    rows = np.random.default_rng(seed).choice(len(seen), min(states, len(seen)), replace=False)
    obs = np.repeat(seen[rows], samples, axis=0)

    def act(stage: str, step: int) -> Actions:
        acting = load_policy(workdir / stage, candidates=1)
        seeds = np.arange(len(obs))
        return acting.act(obs, seeds, step).reshape(len(rows), samples, -1)

    value_of = load.value_of(workdir / "reward")
    teacher, again = act("teacher", 0), act("teacher", 1)
    near, base = radius(again, teacher), value_of(obs, teacher.reshape(len(obs), -1))
    entries = []
    for stage in finished.trained(pipeline):
        actions = teacher if stage == "teacher" else act(stage, 0)
        value = value_of(obs, actions.reshape(len(obs), -1))
        entries.append(
            {
                "task": pipeline.task.name,
                "source": labels.label(config.source, pipeline.task),
                "physics": choice.physics(pipeline.task.env_id),
                "stage": stage,
                "size": config.size,
                "preset": config.preset,
                "training_seed": config.seed,
                "states": len(rows),
                "samples": samples,
                "spread": spread(actions),
                "coverage": coverage(again, actions, near),
                "return": float((value.mean() - base.mean()) / base.std()),
            }
        )
    return entries


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write diversity.json into the pipeline's folder."""
    parser = argparse.ArgumentParser(description="How diverse the policies of a pipeline are.")
    parser.add_argument("workdir", type=pathlib.Path, help="folder of a trained pipeline")
    parser.add_argument("--states", type=int, default=200, help="of the dataset [200]")
    parser.add_argument("--samples", type=int, default=32, help="actions at each state [32]")
    args = parser.parse_args(argv)
    if args.samples < 2 or args.states < 1:
        parser.error("spread is between actions at a state: at least 2 samples of 1 state")
    try:
        entries = measure(args.workdir, args.states, args.samples)
        checkpoints.write_json(args.workdir / "diversity.json", entries)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table("policy", "spread", "coverage", "return", box=box.SIMPLE_HEAD)
    for e in entries:
        numbers = (f"{e['spread']:.3f}", f"{100 * e['coverage']:.0f} %", f"{e['return']:+.2f}")
        table.add_row(style.label(e["stage"]), *numbers)
    console.make_console().print(table)
    print(f"wrote {args.workdir / 'diversity.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
