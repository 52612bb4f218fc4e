"""Make data of your own: SAC learns in any Gymnasium environment with continuous actions.

    python -m ractd_jax.data.generate --out data/ant --env Ant-v4 --steps 300000    learn
    python -m ractd_jax.data.generate --out data/ant                                what is there
    python -m ractd_jax.data.generate --out data/ant --replay 120000                medium-replay
    python -m ractd_jax.data.generate --out data/ant --rollout 120000               medium
    python -m ractd_jax.data.generate --out data/ant --rollout 120000,300000        medium-expert

D4RL made its locomotion data so (Fu et al. 2020, section 5): "medium" is a policy stopped at about
a third of the expert's score and rolled out, "medium-replay" the replay buffer at that time,
"expert" the fully trained policy. The second command prints at which step that was. Files are HDF5
in D4RL's schema; to train on one, name it as the source:

    python main.py --config=configs/hopper_mr.py:student,source=data/hopper/replay-120000.hdf5

The first command continues a run that was stopped, or a finished one with more --steps. It needs
sbx-rl (pip install '.[collect]'); the others need nothing but the folder. The command `collect` of
`main.py` does the same:

    python main.py --config=configs/custom.py:collect --config.collect.env=Ant-v4
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ractd_jax import errors
from ractd_jax.data.generate import collect


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ractd_jax.data.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run")
    add("--env", help="Gymnasium id, for example Ant-v4; a run that is there knows its own")
    add("--steps", type=int, help="learn for so many environment steps in all, write the replay")
    add("--replay", type=int, metavar="STEP", help="write the replay buffer up to this step")
    add("--rollout", metavar="STEP[,STEP]", help="roll out the actors saved at these steps")
    add(
        "--transitions",
        type=int,
        default=collect.TRANSITIONS,
        help=f"of a roll-out [{collect.TRANSITIONS}]",
    )
    add("--workers", type=int, help="processes of a roll-out [one a core]")
    add("--seed", type=int, help="of a new run [0]")
    add("--warmup", type=int, help="random steps before a new run learns [10000]")
    add("--snapshot-every", type=int, help="steps between snapshots, which are saved [10000]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Args:
        arguments: of the command; None for those it was started with.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers={args.workers}: at least 1")
    try:
        if args.steps is not None:
            settings = {name: getattr(args, name) for name in collect.DEFAULTS}
            collect.learn(args.out, args.env, args.steps, **settings)
        if args.replay is not None:
            collect.write_replay(args.out, args.replay)
        if args.rollout is not None:
            steps = args.rollout.split(",")
            if not all(step.isdecimal() for step in steps):
                raise errors.UserError(f"--rollout={args.rollout}: give steps, as 120000,300000")
            collect.write_rollout(args.out, list(map(int, steps)), args.transitions, args.workers)
        if args.steps is args.replay is args.rollout is None:
            collect.show(args.out)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(collect.stopped(args.out), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
