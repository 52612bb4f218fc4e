"""Scores of one teacher by the level from which its last step leads to clean actions.

    python main.py --config=configs/halfcheetah_mr.py:teacher,size=demo,source=simulated \
        --workdir=runs/sweep
    python -m tools.sweep_sigma_last runs/sweep/teacher

A teacher learns the same whatever `noise.sigma_last`, so one training serves all levels. The table
is in docs/presets.md; each row is that many episodes with the same seeds.
"""

import argparse
import pathlib

from ractd_jax import config as configuration
from ractd_jax.evaluation import rollouts
from ractd_jax.methods import registry
from ractd_jax.policies.load import load_model
from ractd_jax.policies.policy import Policy


def main() -> None:
    """Print a row for each level."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=pathlib.Path, help="folder of a trained teacher")
    parser.add_argument(
        "--levels", type=float, nargs="+", default=[0, 0.1, 0.2, 0.4, 0.5, 0.8, 1.2, 2, 79]
    )
    parser.add_argument("--episodes", type=int, default=32)
    given = parser.parse_args()
    model = load_model(given.run)
    seeds = range(1000, 1000 + given.episodes)
    print(f"{model.task.name}, {given.episodes} episodes\nsigma_last   score")
    for level in given.levels:
        config = configuration.replace(model.config, noise__sigma_last=float(level))
        algorithm = registry.make(config, model.stage)
        policy = Policy(algorithm, model.saved["params"], model.saved["normalizer"], model.task)
        result = rollouts.statistics(
            rollouts.rollout(policy.act, model.task, seeds).returns, model.task
        )
        print(f"{level:10g}   {result['score_mean']:.1f} +- {result['score_se']:.1f}", flush=True)


if __name__ == "__main__":
    main()
