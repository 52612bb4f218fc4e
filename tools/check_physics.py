"""Compare the environments with D4RL's originals, run in an interpreter that has them.

    RACTD_D4RL_PYTHON=<python with gym and d4rl> python -m tools.check_physics
    python -m tools.check_physics --recorded recorded.npz        what an earlier call has kept

Of each environment: one step from every state of the original's random runs, whole runs of its
actions from its starts, and what a random policy earns; of the mazes also the scripted controller
and data by D4RL's procedure; the kitchen where it can be made there. `record_original` says what is
recorded. docs/data.md says how to install the originals.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo is a compiled module without type stubs)

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data.generate import maze2d as maze_data
from ractd_jax.envs import gym_process, kitchen, maze2d, waypoint_controller
from ractd_jax.envs.make import make_env

RECORDER = Path(__file__).with_name("record_original.py")
LIMIT = 3600  # seconds that recording may take
ROBOTS = ("Hopper-v2", "Walker2d-v2", "HalfCheetah-v2")
MAZES = tuple(f"maze2d-{name}-v1" for name in maze2d.LAYOUTS)
KITCHEN = "kitchen-mixed-v0"
SAME = 1e-9
Columns = dict[str, np.ndarray]


def record(path: Path, args: argparse.Namespace) -> None:
    """Let the other interpreter record the originals.

    Raises:
        UserError: there is none, it takes too long, or it fails.
    """
    if not gym_process.python():
        raise errors.UserError(
            f"{gym_process.VARIABLE} is to name a Python with gym and d4rl (docs/data.md), or "
            "--recorded a file of an earlier call"
        )
    counts = ("seeds", "steps", "episodes", "data")
    words = [f"--{name}={getattr(args, name)}" for name in counts]
    command = [gym_process.python(), str(RECORDER), f"--out={path}", *words]
    variables = gym_process.environment()
    try:
        done = subprocess.run(
            command, env=variables, timeout=LIMIT, capture_output=True, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.UserError(f"recording the originals: {error}") from error
    if done.returncode or not path.exists():
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise errors.UserError(f"recording the originals: {lines[-1]}")


def ours(name: str) -> Any:
    """Return our environment for an original, without its time limit."""
    if name in tasks.TASKS:
        return make_env(tasks.get(name).env_id).unwrapped
    return make_env(f"ractd_jax/{name}").unwrapped


def one_step(env: Any, run: Columns) -> np.ndarray:
    """Return the largest error of each single step, and whether reward or end differ: (n, 2)."""
    env.reset(seed=0)
    rows = []
    names = ("qpos", "qvel", "action", "next_qpos", "next_qvel", "reward", "done")
    for qpos, qvel, action, next_qpos, next_qvel, reward, done in zip(
        *(run[name] for name in names), strict=True
    ):
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:], env.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(env.model, env.data)
        if isinstance(env, kitchen.Kitchen):
            env.robot._last_robot_qpos = qpos[: kitchen.ROBOT].copy()  # noqa: SLF001
        _, own, terminated, _, _ = env.step(action)
        difference = max(
            np.abs(env.data.qpos - next_qpos).max(), np.abs(env.data.qvel - next_qvel).max()
        )
        rows.append((difference, abs(own - reward) > SAME or terminated != done))
    return np.array(rows, float)


def free_runs(env: Any, run: Columns) -> tuple[float, np.ndarray]:
    """Return the error of the starts, and of the positions of whole runs by step: (seed, step)."""
    seeds = len(run["starts"])
    actions = run["action"].reshape(seeds, -1, run["action"].shape[1])
    wanted = run["next_qpos"].reshape(*actions.shape[:2], -1)
    start, difference = 0.0, np.zeros(actions.shape[:2])
    for seed in range(seeds):
        obs, _ = env.reset(seed=seed)
        start = max(start, float(np.abs(obs - run["starts"][seed]).max()))
        for step, action in enumerate(actions[seed]):
            env.step(action)
            difference[seed, step] = np.abs(env.data.qpos - wanted[seed, step]).max()
    return start, difference


def random_returns(name: str, episodes: int) -> np.ndarray:
    """Return what a random policy earns in our environment."""
    env = make_env(tasks.get(name).env_id if name in tasks.TASKS else f"ractd_jax/{name}")
    rng, returns = np.random.default_rng(0), []
    assert env.action_space.shape is not None
    for seed in range(episodes):
        env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            action = rng.uniform(-1, 1, env.action_space.shape)
            _, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return np.array(returns)


def physics(recorded: Columns) -> Iterator[str]:
    """Yield the table of steps and runs."""
    yield (
        "| original | steps | one step: median, max | rewards or ends that differ | starts "
        "| run: error after 10, 50 steps, all |"
    )
    yield "|---|---|---|---|---|---|"
    for name in (*ROBOTS, *MAZES, KITCHEN):
        run = of(recorded, name)
        if "qpos" not in run:
            yield f"| {name} | not compared: {run.get('missing', 'not recorded')} | | | | |"
            continue
        env = ours(name)
        if name == KITCHEN:
            env.robot.robot_noise_ratio, kitchen.NOISE = 0.0, 0.0 * kitchen.NOISE
        single = one_step(env, run)
        start, difference = free_runs(env, run)
        worst = [difference[:, :k].max() for k in (10, 50, difference.shape[1])]
        yield (
            f"| {name} | {len(single):,} | {np.median(single[:, 0]):.1e}, {single[:, 0].max():.1e} "
            f"| {int(single[:, 1].sum())} | {start:.1e} "
            f"| {', '.join(f'{value:.1e}' for value in worst)} |"
        )
        env.close()


def returns(recorded: Columns, episodes: int) -> Iterator[str]:
    """Yield the table of what random policies earn."""
    yield "| random policy | original | here | D4RL's reference |"
    yield "|---|---|---|---|"
    for name in (*ROBOTS, *MAZES):
        theirs, own = of(recorded, name)["random"], random_returns(name, episodes)
        reference = name if name in tasks.TASKS else f"{name.removesuffix('-v2').lower()}-medium-v2"
        cells = (f"{r.mean():,.1f} +- {r.std(ddof=1) / len(r) ** 0.5:.1f}" for r in (theirs, own))
        yield f"| {name} | {' | '.join(cells)} | {tasks.get(reference).return_min:,.1f} |"


def controller(recorded: Columns) -> Iterator[str]:
    """Yield the table of the mazes' controller: its plans, and its actions on recorded ways."""

    class Unshifted(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):
            del low, high
            return np.zeros(size or ())

    yield "| maze | plans | of another length | steps of ways | largest error of an action |"
    yield "|---|---|---|---|---|"
    for name in MAZES:
        run, maze = of(recorded, name), maze2d.of_task(tasks.get(name))
        paths: dict[tuple, list] = {}
        for row in run["plans"].tolist():
            paths.setdefault(tuple(row[:4]), []).append(tuple(row[5:]))
        longer = sum(
            len(waypoint_controller.plan(maze, key[:2], key[2:])) != len(path)
            for key, path in paths.items()
        )
        worst, law = 0.0, None
        for row in run["ways"]:
            if row[1] == 0:
                rng = Unshifted(np.random.PCG64(0))
                law = waypoint_controller.WaypointController(maze, rng)
            assert law is not None
            action, _ = law.act(row[2:6].tolist(), maze.goal)
            worst = max(worst, float(np.abs(np.array(action) - row[6:8]).max()))
        yield f"| {name} | {len(paths):,} | {longer} | {len(run['ways']):,} | {worst:.1e} |"


def maze_statistics(recorded: Columns) -> Iterator[str]:
    """Yield the table of the mazes' data: the original's controller and ours, equally many steps.

    In brackets the standard error over ten equal parts of a run.
    """
    yield "| data | steps | mean x, y | std vx, vy | std of actions | reward | changes of target |"
    yield "|---|---|---|---|---|---|---|"
    for name in MAZES:
        task, rows = tasks.get(name), of(recorded, name)["data"]
        goal = np.array(maze2d.of_task(task).goal, float)
        chunks = maze_data.run(
            maze2d.of_task(task), task.max_episode_steps, len(rows), 0, maze_data.NOISE
        )
        own = np.concatenate(list(chunks))
        columns = own[:, [*range(4), 4, 5, *range(8, 12), 12]]
        for label, table in (("original", rows), ("here", columns)):
            parts = np.array_split(table, 10)
            yield (
                f"| {name}, {label} | {len(table):,} "
                f"| {spread(parts, lambda p: p[:, :2].mean(0))} "
                f"| {spread(parts, lambda p: p[:, 2:4].std(0))} "
                f"| {spread(parts, lambda p: p[:, 4:6].std(0))} "
                f"| {spread(parts, lambda p, goal=goal: [maze2d.at_goal(p[:, :2], goal).mean()])} "
                f"| {int(table[:, 10].sum()):,} |"
            )


def spread(parts: list[np.ndarray], statistic: Any) -> str:
    """Return the mean of a statistic over the parts of a run, and its standard error."""
    values = np.array([statistic(part) for part in parts], float)
    error = values.std(0, ddof=1) / len(parts) ** 0.5
    return ", ".join(f"{m:.3f} ({e:.3f})" for m, e in zip(values.mean(0), error, strict=True))


def of(recorded: Columns, name: str) -> Columns:
    """Return what was recorded of one environment."""
    return {k.removeprefix(f"{name}/"): recorded[k] for k in recorded if k.startswith(f"{name}/")}


def main() -> None:
    """Record, compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recorded", type=Path, help="compare with this file, record nothing")
    parser.add_argument("--keep", type=Path, help="keep what is recorded in this file")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each environment [5]")
    parser.add_argument("--steps", type=int, default=200, help="of a run [200]")
    parser.add_argument("--episodes", type=int, default=100, help="of random policies [100]")
    parser.add_argument("--data", type=int, default=50_000, help="steps of a maze's data [50000]")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = args.recorded or args.keep or Path(folder) / "recorded.npz"
            if not args.recorded:
                record(path, args)
            try:
                with np.load(path) as archive:
                    recorded = dict(archive)
            except (OSError, ValueError) as error:
                raise errors.UserError(f"cannot read {path}: {error}") from error
    except errors.UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"originals: {recorded.get('packages', '')}\n")
    parts = physics(recorded), returns(recorded, args.episodes), controller(recorded)
    for part in (*parts, maze_statistics(recorded)):
        for line in part:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
