"""Collects data of your own: SAC learns in any Gymnasium environment with continuous actions.

    learn           trains SAC, keeping its replay and an actor every so many steps
    write_replay    what the learner had seen until some step: D4RL's "medium-replay"
    write_rollout   episodes of saved actors: D4RL's "medium", "expert" or "medium-expert"
    show            prints what each saved actor earned
    run             learns and writes what is asked for: the command `collect`

A run is a folder; `data.generate.sac` says what it holds. The command line is
`python -m ractd_jax.data.generate`.
"""

import importlib.metadata
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
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
DEFAULTS = {"seed": 0, "warmup": 10_000, "snapshot_every": 10_000}  # of a new run
FIELDS = {"env": str, "snapshots": dict, "cuts": list} | dict.fromkeys(DEFAULTS, int)  # `describe`


def run(
    *,
    env: str,
    steps: int,
    warmup: int,
    snapshot_every: int,
    replay: Sequence[int] = (),
    rollout: Sequence[int] = (),
    transitions: int = TRANSITIONS,
    seed: int = 0,
    workdir: str | os.PathLike | None = None,
) -> None:
    """Learn, and write the replay and what else is asked for: the command `collect`.

    Args:
        env: Gymnasium id.
        steps: environment steps in all; a finished run continues with more.
        warmup: random ones among them, before SAC learns.
        snapshot_every: steps between the actors that are saved.
        replay: steps up to which the replay is written, besides `steps`.
        rollout: steps of the saved actors to roll out, equally long.
        transitions: of the roll-out.
        seed: of the run.
        workdir: its folder; None for `runs/<environment>/collect-seed<k>`.

    Raises:
        UserError: no environment is named, it was stopped, or as `learn` and `write_rollout`.
    """
    if not env:
        raise errors.UserError("in which environment? --config.collect.env=Ant-v4, for example")
    default = Path("runs") / re.sub(r"[^\w.-]", "_", env) / f"collect-seed{seed}"
    folder = Path(workdir) if workdir else default
    try:
        learn(folder, env, steps, seed=seed, warmup=warmup, snapshot_every=snapshot_every)
        for step in replay:
            write_replay(folder, step)
        if rollout:
            write_rollout(folder, list(rollout), transitions)
    except KeyboardInterrupt:
        raise errors.UserError(stopped(folder)) from None
    print("train on a file: source=<its path>, with configs/custom.py for a task of your own")


def learn(
    folder: Path,
    env: str | None,
    steps: int,
    *,
    seed: int | None = None,
    warmup: int | None = None,
    snapshot_every: int | None = None,
) -> None:
    """Train up to `steps` steps, continuing what is there, and write the replay file.

    Args:
        folder: of the run.
        env: Gymnasium id; None for the one of the run in the folder.
        steps: environment steps in all.
        seed: of a new run; None, here and below, for 0 or what the run has.
        warmup: random steps first; by default 10,000.
        snapshot_every: steps between the actors that are saved; by default 10,000.

    Raises:
        UserError: unknown or unfit environment, another run's folder, or sbx-rl is missing.
    """
    if min(steps, 1 if snapshot_every is None else snapshot_every) < 1:
        raise errors.UserError("steps and the steps between snapshots start at 1")
    from ractd_jax.data.generate import sac  # JAX and sbx-rl start only now

    numbers = {"seed": seed, "warmup": warmup, "snapshot_every": snapshot_every}
    settings = {name: value for name, value in numbers.items() if value is not None}
    meta: dict[str, Any] | None = describe(folder)
    if meta is None:
        if env is None:
            raise errors.UserError(f"{folder} holds no run yet: name its environment with --env")
        meta = {"env": env, "snapshots": {}, "cuts": []} | DEFAULTS | settings
    _action_space(meta["env"])
    for name, value in ({"env": env or meta["env"]} | settings).items():
        if value != meta[name]:
            raise errors.UserError(
                f"{folder} holds a run with {name} {meta[name]}, not {value}: choose another folder"
            )
    last = newest(folder)
    done = _step(last) if last else 0
    if done < steps:
        with console.Progress().task(f"SAC in {meta['env']}", steps, done) as bar:
            sac.train(folder, last, meta, steps, lambda step, facts: bar.update(step, **facts))
    show(folder)
    write_replay(folder, steps)


def write_replay(folder: Path, steps: int) -> Path:
    """Write the finished episodes of the first `steps` steps, and return the file.

    Args:
        folder: of the run.
        steps: of the learner.

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
    timeouts, space = columns["timeouts"].astype(bool), _action_space(meta["env"])
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


def write_rollout(
    folder: Path, steps: list[int], transitions: int, workers: int | None = None
) -> Path:
    """Roll saved actors out, an equal share of steps for each, and return the file.

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
    _action_space(meta["env"])
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
    """Return the description of a run, None if there is no run.

    Returns:
        `env`, `seed`, `warmup` (random steps first), `snapshot_every` (steps), `snapshots` (step ->
        number and mean return of the episodes that ended since the one before), `cuts` (rows in
        which a stop ended an episode).

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
    fields = meta if isinstance(meta, dict) else {}
    if wrong := [name for name, kind in FIELDS.items() if not isinstance(fields.get(name), kind)]:
        raise errors.UserError(
            f"cannot read the run in {folder}, {AGAIN}: {last / 'collect.json'} lacks "
            f"{', '.join(wrong)}"
        )
    return meta


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run, None if there is none."""
    paths = (p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name))
    return max(paths, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def show(folder: Path) -> None:
    """Print what the episodes of each snapshot earned.

    Raises:
        UserError: there is no run, or it is damaged.
    """
    meta, _ = _run(folder)
    print(
        f"{meta['env']}, seed {meta['seed']}\n{'snapshot':>10} {'episodes':>9} {'mean return':>12}"
    )
    for step, facts in meta["snapshots"].items():
        mean = "-" if facts["return_mean"] is None else f"{facts['return_mean']:,.1f}"
        print(f"{int(step):10,} {facts['episodes']:9,} {mean:>12}")


def stopped(folder: Path) -> str:
    """Return the message for a run that was stopped."""
    return f"stopped; the same command continues from what {folder} holds"


def _run(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return description and newest checkpoint of a run, or say that there is none."""
    meta, last = describe(folder), newest(folder)
    if meta is None or last is None:
        raise errors.UserError(f"{folder} holds no run: make one with --env and --steps")
    return meta, last


def _load(path: Path, advice: str = AGAIN) -> dict[str, np.ndarray]:
    """Read the arrays of a file of the run, or say that it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as saved:  # numpy leaves a damaged one open
            return dict(saved)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        line = " ".join(str(error).split())
        raise errors.UserError(f"cannot read {path}, {advice}: {line}") from error


def _action_space(env_id: str) -> gymnasium.spaces.Box:
    """Return the actions of an environment, if SAC and the file format can serve it."""
    try:
        env = make_env(env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise errors.UserError(f"{env_id}: {' '.join(str(error).split())}") from error
    box = gymnasium.spaces.Box
    observations, actions = env.observation_space, env.action_space
    env.close()
    if not isinstance(actions, box) or len(actions.shape) != 1 or not actions.is_bounded():
        raise errors.UserError(f"{env_id}: its actions are {actions}, not a bounded vector")
    if not isinstance(observations, box) or len(observations.shape) != 1:
        raise errors.UserError(f"{env_id}: its observations are {observations}, not a vector")
    return actions


def _write(
    path: Path, columns: Mapping[str, np.ndarray], meta: Mapping[str, Any], source: str
) -> Path:
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
