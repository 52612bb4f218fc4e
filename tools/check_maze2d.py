"""Check the rebuilt Maze2d against D4RL: reference returns, and statistics of the data.

    python -m tools.check_maze2d [--maze umaze medium large] [--data | --figures DIR] [--seed 0]

Without `--data`: mean returns of the scripted controller over runs of 100 episodes, planned once a
run (as in D4RL's reference script, whose mean is score 100) or afresh in every episode, and of
random actions (score 0). Run r has seed SEED + r.
With `--data`: what others have published about the released files beside the same statistics of
data made here (kept where `source=simulated` finds it) and made without noise. Sources: the
normalisers in Diffusion Forcing's configurations (Chen et al. 2024), logs of Diffuser's
preprocessing, D4RL's issue 65.
With `--figures`: two pictures of each maze, of 250,000 steps of data and of three episodes.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from ractd_jax import tasks
from ractd_jax.console import make_console
from ractd_jax.data import episodes, hdf5, sources
from ractd_jax.data.generate import maze2d as data
from ractd_jax.envs import maze2d, waypoint_controller
from ractd_jax.envs.make import make_env
from ractd_jax.report import maze as report

EPISODES = 100
RUNS = {"planned once": 6, "planned afresh": 1, "random": 1}
PUBLISHED = {"planned once": "return_max", "random": "return_min"}  # fields of a task

RELEASED = {
    "umaze": {
        "mean x, y": (1.9327888, 2.3744664),
        "std x, y": (0.89972174, 0.7093159),
        "std vx, vy": (2.2128615, 2.468173),
        "std action": (0.7043469, 0.7506248),
        "mean reward": (0.081254,),
        "targets": (12_459,),
        "visits of the goal": (1566,),
    },
    "medium": {
        "mean x, y": (3.5092521, 3.4765592),
        "std x, y": (1.3371079, 1.52102),
        "std vx, vy": (2.3407657, 2.3693702),
        "std action": (0.73977315, 0.7459419),
        "mean reward": (0.0236665,),
    },
    "large": {
        "min x, y": (0.39643136, 0.44179875),
        "max x, y": (7.2163844, 10.219488),
        "mean x, y": (3.7296331, 5.3047247),
        "std x, y": (1.8070312, 2.5687592),
        "std vx, vy": (2.4368455, 2.6493697),
        "std action": (0.72493, 0.7394606),
        "mean reward": (0.0089225,),
        "visits of the goal": (1062,),
    },
}


def episode_returns(task: tasks.TaskSpec, kind: str, seed: int) -> np.ndarray:
    """Return the returns of 100 episodes of one kind of behaviour."""
    env = make_env(task.env_id)
    maze, rng = maze2d.of_task(task), np.random.default_rng(seed)
    controller = waypoint_controller.WaypointController(maze, rng)
    returns = np.zeros(EPISODES)
    for episode in range(EPISODES):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        if kind == "planned afresh":
            controller = waypoint_controller.WaypointController(maze, rng)
        over = False
        while not over:
            if kind == "random":
                action = rng.uniform(-1, 1, 2)
            else:
                action, _ = controller.act(obs.tolist(), maze.goal)
            obs, reward, _, over, _ = env.step(action)
            returns[episode] += reward
    env.close()
    return returns


def check_returns(names: list[str], seed: int, console) -> None:
    """Print the table of reference returns."""
    table = Table("maze", "behaviour", "runs", "mean of runs", "range", "se", "published", "score")
    for name in names:
        task = tasks.get(f"maze2d-{name}-v1")
        for kind, runs in RUNS.items():
            means, returns = [], []
            for run in range(runs):
                returns.append(episode_returns(task, kind, seed + run))
                means.append(returns[-1].mean())
            every = np.concatenate(returns)
            table.add_row(
                name,
                kind,
                str(runs),
                f"{np.mean(means):.1f}",
                f"{min(means):.1f} to {max(means):.1f}" if runs > 1 else "",
                f"{every.std(ddof=1) / np.sqrt(EPISODES):.1f}" if runs == 1 else "",
                str(getattr(task, PUBLISHED[kind])) if kind in PUBLISHED else "",
                f"{task.score(float(np.mean(means))):.0f}",
            )
    console.print(table)


def statistics(rows: episodes.Transitions) -> dict[str, np.ndarray | list]:
    """Return the statistics of `RELEASED`."""
    obs = rows.observations.astype(np.float64)
    return {
        "min x, y": obs.min(axis=0)[:2],
        "max x, y": obs.max(axis=0)[:2],
        "mean x, y": obs.mean(axis=0)[:2],
        "std x, y": obs.std(axis=0)[:2],
        "std vx, vy": obs.std(axis=0)[2:],
        "std action": rows.actions.astype(np.float64).std(axis=0),
        "mean reward": [rows.rewards.mean()],
        "targets": [rows.timeouts.sum()],
        "visits of the goal": [data.cut_at_goal(rows)[0].timeouts.sum()],
    }


def check_data(names: list[str], seed: int, console) -> None:
    """Print the table of the data's statistics."""
    table = Table("maze", "statistic", "released", "made here", "made without noise")
    for name in names:
        task = tasks.get(f"maze2d-{name}-v1")
        made = statistics(sources.load(task, "simulated", seed=seed))
        with tempfile.TemporaryDirectory() as folder:
            data.make(task, f"{folder}/x.hdf5", seed=seed, noise=0.0)
            noiseless = statistics(hdf5.read(f"{folder}/x.hdf5", task))
        for key, values in made.items():
            columns = RELEASED[name].get(key, ()), values, noiseless[key]
            table.add_row(name, key, *(", ".join(map(show, column)) for column in columns))
    console.print(table)


def show(value: float) -> str:
    """Return a count, or a number with three decimals (a rare reward: with four)."""
    if value > 100:
        return f"{int(value):,}"
    return f"{value:.4f}" if 0 < value < 0.1 else f"{value:.3f}"


def draw(names: list[str], seed: int, folder: Path) -> None:
    """Draw where the data has been, and the controller's ways from three starts."""
    for name in names:
        task = tasks.get(f"maze2d-{name}-v1")
        rows = sources.load(task, "simulated", transitions=250_000, seed=seed)
        title = f"{task.name}, {len(rows.rewards):,} steps of simulated data"
        path = folder / f"maze2d_{name}_data.png"
        report.save(path, task, density=rows.observations[:, :2], title=title)
        env, plans, paths = make_env(task.env_id), [], []
        maze = getattr(env.unwrapped, "maze")  # noqa: B009
        for start in maze.cells[:: len(maze.cells) // 3][:3]:
            obs, _ = env.reset(seed=seed, options={"cell": start})
            controller = waypoint_controller.WaypointController(maze, np.random.default_rng(seed))
            way, over = [obs[:2]], False
            while not over:
                action, _ = controller.act(obs.tolist(), maze.goal)
                obs, _, _, over, _ = env.step(np.array(action))
                way.append(obs[:2])
            paths.append(np.array(way))
            plans.append(
                np.array([start, *waypoint_controller.plan(maze, start, maze.goal)], np.float64)
            )
        title = "the controller's cells (dashed) and paths"
        report.save(
            folder / f"maze2d_{name}_paths.png", task, plans=plans, paths=paths, title=title
        )


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maze", nargs="+", choices=list(maze2d.LAYOUTS), default=list(RELEASED))
    parser.add_argument("--data", action="store_true", help="check the data, not the returns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path, help="folder for pictures; draw, check nothing")
    args = parser.parse_args()
    if args.figures:
        draw(args.maze, args.seed, args.figures)
        return
    (check_data if args.data else check_returns)(args.maze, args.seed, make_console())


if __name__ == "__main__":
    main()
