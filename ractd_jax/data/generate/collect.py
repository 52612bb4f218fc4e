"""Make data of your own: SAC learns in any Gymnasium environment with continuous actions.

    python -m ractd_jax.data.generate.collect --out data/ant --env Ant-v4 --steps 300000    learn, all it saw
    python -m ractd_jax.data.generate.collect --out data/ant                                what is there
    python -m ractd_jax.data.generate.collect --out data/ant --replay 120000                medium-replay
    python -m ractd_jax.data.generate.collect --out data/ant --rollout 120000               medium
    python -m ractd_jax.data.generate.collect --out data/ant --rollout 120000,300000        medium-expert

D4RL made its locomotion data so (Fu et al. 2020, section 5): "medium" is a policy stopped at about
a third of the expert's score and rolled out, "medium-replay" all that had been seen until then,
"expert" the fully trained policy. The table of the second command says at which step that was.
Files are HDF5 in D4RL's schema; to train on one, name it as the source:

    python main.py --config=configs/hopper_mr.py:student,source=data/hopper/replay-120000.hdf5

The first command once more continues a run that was stopped, or a finished one with more --steps.
It needs sbx-rl (pip install '.[collect]'); the others need nothing but the folder. `main.py` has
the first and what is written from it as the stage `collect`:

    python main.py --config=configs/custom.py:collect --config.collect.env=Ant-v4
"""

import argparse
import importlib.metadata
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ractd_jax import console, errors
from ractd_jax.data import hdf5
from ractd_jax.data.generate import sac_rollout, simulated
from ractd_jax.data.generate.recipes import Recipe
from ractd_jax.envs.make import make_env

TRANSITIONS = 1_000_000  # of a roll-out, as in D4RL's "medium"
AGAIN = "begin anew in another folder"  # what helps where a run is damaged
_NUMBERS = dict.fromkeys(("seed", "warmup", "snapshot_every"), int)
FIELDS = {"env": str, "snapshots": dict, "cuts": list} | _NUMBERS  # of collect.json: `describe`


def run(settings: dict[str, Any], seed: int, workdir: str | None = None) -> None:
    """Learn, and write the replay and what else is asked for: the stage `collect`.

    Args:
        settings: the section `collect` of a configuration, see configs/base.py.
        seed: of the run.
        workdir: its folder; None for `runs/<environment>/collect-seed<k>`.

    Raises:
        UserError: no environment is named, it was stopped, or as `learn` and `roll_out`.
    """
    settings = dict(settings)
    env, steps, transitions = (settings.pop(name) for name in ("env", "steps", "transitions"))
    replays, actors = settings.pop("replay"), settings.pop("rollout")
    if not env:
        raise errors.UserError("in which environment? --config.collect.env=Ant-v4, for example")
    default = Path("runs") / re.sub(r"[^\w.-]", "_", env) / f"collect-seed{seed}"
    folder = Path(workdir) if workdir else default
    try:
        learn(folder, env, steps, seed=seed, **settings)
        for step in replays:
            replay(folder, step)
        if actors:
            roll_out(folder, list(actors), transitions)
    except KeyboardInterrupt:
        raise errors.UserError(_stopped(folder)) from None
    print("train on a file: source=<its path>, with configs/custom.py for a task of your own")


def learn(folder: Path, env: str | None, steps: int, **settings: int | None) -> None:
    """Train up to `steps` steps, continuing what is there, and write the replay file.

    Args:
        folder: of the run.
        env: Gymnasium id; None for the one of the run in the folder.
        steps: environment steps in all.
        **settings: `seed`, `warmup` and `snapshot_every` of a new run; None for the default.

    Raises:
        UserError: unknown or unfit environment, another run's folder, or sbx-rl is missing.
    """
    if min(steps, settings.get("snapshot_every") or 1) < 1:
        raise errors.UserError("steps and the steps between snapshots start at 1")
    from ractd_jax.data.generate import sac  # JAX and sbx-rl start only now

    meta = describe(folder)
    if meta is None:
        if env is None:
            raise errors.UserError(f"{folder} holds no run yet: name its environment with --env")
        chosen = {name: value for name, value in settings.items() if value is not None}
        meta = {"env": env, "seed": 0, "warmup": 10_000, "snapshot_every": 10_000} | chosen
        meta |= {"snapshots": {}, "cuts": []}
    _check(meta["env"])
    for name, value in ({"env": env} | settings).items():
        if value is not None and value != meta[name]:
            raise errors.UserError(
                f"{folder} holds a run with {name} {meta[name]}, not {value}: choose another folder"
            )
    last = newest(folder)
    done = _step(last) if last else 0
    if done < steps:
        with console.Progress().task(f"SAC in {meta['env']}", steps, done) as bar:
            sac.train(folder, last, meta, steps, lambda at, seen: bar.update(at, **seen))
    show(folder)
    replay(folder, steps)


def replay(folder: Path, steps: int) -> Path:
    """Write the finished episodes of the first `steps` steps: all the learner had seen by then.

    Raises:
        UserError: there is no run, it is damaged or shorter, no episode was finished, or its
            environment is not installed here.
    """
    meta, checkpoint = _run(folder)
    columns = {name: c[:steps] for name, c in _load(checkpoint / "buffer.npz").items()}
    if not 1 <= steps <= len(columns["rewards"]):
        raise errors.UserError(
            f"{folder} holds {len(columns['rewards']):,} steps: a replay starts at 1 and ends there"
        )
    ends = np.flatnonzero(columns["dones"])
    episode = np.searchsorted(ends, np.arange(steps))  # len(ends) for the unfinished last one
    keep = (episode < len(ends)) & ~np.isin(episode, np.flatnonzero(np.isin(ends, meta["cuts"])))
    if not keep.any():
        raise errors.UserError(f"no episode of {folder} had ended by step {steps:,}: ask for more")
    timeouts, space = columns["timeouts"].astype(bool), _check(meta["env"])
    data = {
        "observations": columns["observations"].astype(np.float32),
        "next_observations": columns["next_observations"].astype(np.float32),
        # The learner keeps actions in [-1, 1]; the environment was given these.
        "actions": sac_rollout.rescale(columns["actions"].astype(np.float32), space),
        "rewards": columns["rewards"].astype(np.float32),
        "terminals": columns["dones"].astype(bool) & ~timeouts,
        "timeouts": timeouts,
    }
    path = folder / f"replay-{steps}.hdf5"
    return _write(path, {name: c[keep] for name, c in data.items()}, meta, "SAC's replay buffer")


def roll_out(folder: Path, steps: list[int], transitions: int, workers: int | None = None) -> Path:
    """Roll saved actors out and write the file, an equal share of steps for each.

    Args:
        folder: of the run.
        steps: at which the actors were saved.
        transitions: environment steps in all, plus what finishes the last episode.
        workers: processes; one a core by default.

    Raises:
        UserError: there is no such snapshot, it is damaged, the numbers make no sense, or the
            environment is not installed here.
    """
    meta, _ = _run(folder)
    _check(meta["env"])
    steps = list(dict.fromkeys(steps))
    for step in steps:
        errors.choose("snapshot", str(step), meta["snapshots"])
    if transitions < len(steps):
        raise errors.UserError(f"cannot roll out {transitions} transitions: they start at 1")
    blocks = []
    for saved_at, i, n in simulated.plan(Recipe(transitions, dict.fromkeys(steps, 1)), transitions):
        path = folder / "snapshots" / f"{saved_at}.npz"
        actor = _load(path, f"choose another snapshot or {AGAIN}")
        blocks.append(sac_rollout.Block(meta["env"], actor, n, (meta["seed"], saved_at, i)))
    with console.Progress().task("roll out", transitions) as bar:
        columns = simulated.roll_out(blocks, workers=workers, advance=bar.update)
    path = folder / f"rollout-{'-'.join(map(str, steps))}.hdf5"
    text = f"stochastic roll-outs of SAC after {', '.join(map(str, steps))} steps"
    return _write(path, columns, meta, text)


def describe(folder: Path) -> dict[str, Any] | None:
    """Return what a run says of itself, None if there is none.

    `env`, `seed`, `warmup` (random steps first), `snapshot_every` (steps), `snapshots` (step ->
    number and mean return of the episodes that ended since the one before), `cuts` (rows where a
    stop broke an episode off).

    Raises:
        UserError: collect.json is missing or damaged.
    """
    last = newest(folder)
    if last is None:
        return None
    try:
        meta = json.loads((last / "collect.json").read_text())
    except (OSError, ValueError) as error:
        raise errors.UserError(f"cannot read the run in {folder}, {AGAIN}: {error}") from error
    said = meta if isinstance(meta, dict) else {}
    if wrong := [name for name, kind in FIELDS.items() if not isinstance(said.get(name), kind)]:
        raise errors.UserError(
            f"cannot read the run in {folder}, {AGAIN}: {last / 'collect.json'} does not say its "
            f"{', '.join(wrong)}"
        )
    return meta


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, None if there is none."""
    ours = (p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name))
    return max(ours, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def show(folder: Path) -> None:
    """Print what each snapshot's episodes earned."""
    meta, _ = _run(folder)
    print(
        f"{meta['env']}, seed {meta['seed']}\n{'snapshot':>10} {'episodes':>9} {'mean return':>12}"
    )
    for step, seen in meta["snapshots"].items():
        mean = "-" if seen["return_mean"] is None else f"{seen['return_mean']:,.1f}"
        print(f"{int(step):10,} {seen['episodes']:9,} {mean:>12}")


def _stopped(folder: Path) -> str:
    return f"stopped; the same command continues from what {folder} holds"


def _run(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return description and newest checkpoint of a run, or say that there is none."""
    meta = describe(folder)
    if meta is None:
        raise errors.UserError(f"{folder} holds no run: make one with --env and --steps")
    return meta, newest(folder)


def _load(path: Path, advice: str = AGAIN) -> dict[str, np.ndarray]:
    """Read the arrays of a file of the run, or say that it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as saved:  # numpy leaves a damaged one open
            return dict(saved)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        line = " ".join(str(error).split())
        raise errors.UserError(f"cannot read {path}, {advice}: {line}") from error


def _check(env_id: str) -> gymnasium.spaces.Box:
    """Return the actions of an environment, one that SAC and the file format can serve."""
    try:
        env = make_env(env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise errors.UserError(f"{env_id}: {' '.join(str(error).split())}") from error
    box = gymnasium.spaces.Box
    seen, acts = env.observation_space, env.action_space
    env.close()
    if not isinstance(acts, box) or len(acts.shape) != 1 or not acts.is_bounded():
        raise errors.UserError(f"{env_id}: its actions are {acts}, not a bounded vector")
    if not isinstance(seen, box) or len(seen.shape) != 1:
        raise errors.UserError(f"{env_id}: its observations are {seen}, not a vector")
    return acts


def _write(path: Path, columns: dict[str, np.ndarray], meta: dict[str, Any], source: str) -> Path:
    versions = {n: importlib.metadata.version(n) for n in ("gymnasium", "mujoco")}
    about = {"source": source, "environment": meta["env"], "seed": meta["seed"]}
    hdf5.write(path, columns, about | versions)
    ends = np.flatnonzero(columns["terminals"] | columns["timeouts"])
    returns = np.diff(np.cumsum(columns["rewards"], dtype=np.float64)[ends], prepend=0.0)
    print(
        f"wrote {path}: {len(ends):,} episodes, {len(columns['rewards']):,} steps, return "
        f"{returns.mean():.1f} +- {returns.std():.1f} (max {returns.max():.1f})"
    )
    return path


# ---- command -------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ractd_jax.data.generate.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the run")
    add("--env", help="Gymnasium id, for example Ant-v4; a run that is there knows its own")
    add("--steps", type=int, help="learn for so many environment steps in all, write the replay")
    add("--replay", type=int, metavar="STEP", help="write the replay buffer up to this step")
    add("--rollout", metavar="STEP[,STEP]", help="roll out the actors saved at these steps")
    add("--transitions", type=int, default=TRANSITIONS, help=f"of a roll-out [{TRANSITIONS}]")
    add("--workers", type=int, help="processes of a roll-out [one a core]")
    add("--seed", type=int, help="of a new run [0]")
    add("--warmup", type=int, help="random steps before a new run learns [10000]")
    add("--snapshot-every", type=int, help="steps between snapshots, which are saved [10000]")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers={args.workers}: at least 1")
    try:
        if args.steps is not None:
            settings = {n: getattr(args, n) for n in ("seed", "warmup", "snapshot_every")}
            learn(args.out, args.env, args.steps, **settings)
        if args.replay is not None:
            replay(args.out, args.replay)
        if args.rollout is not None:
            words = args.rollout.split(",")
            if not all(word.isdecimal() for word in words):
                raise errors.UserError(f"--rollout={args.rollout}: give steps, as 120000,300000")
            roll_out(args.out, [int(w) for w in words], args.transitions, args.workers)
        if args.steps is args.replay is args.rollout is None:
            show(args.out)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_stopped(args.out), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
