"""Record D4RL's original environments; `check_physics` runs this in the interpreter that has them.

It imports nothing of this project. Of each robot, maze and, where it can be made, the kitchen: runs
of random actions that a fall does not stop, state before and after each step; returns of a random
policy; of the mazes the scripted controller's plans and ways, and data by D4RL's procedure. The
result is one .npz file of numbers.
"""

# ruff: noqa: ANN201, NPY002, SLF001 (the other interpreter has old packages, and their insides)

import argparse
import collections
import collections.abc
import importlib
import os
import sys
import warnings

import numpy as np

os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
warnings.simplefilter("ignore")
collections.Mapping = collections.abc.Mapping  # pyright: ignore  (gone since Python 3.10)

import gym  # noqa: E402  # pyright: ignore[reportMissingImports]

gym.logger.set_level(50)
ROBOTS = ("Hopper-v2", "Walker2d-v2", "HalfCheetah-v2")
MAZES = ("maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1")
KITCHEN = "kitchen-mixed-v0"
NOISE = 0.5  # of the data's actions
PLANS = 100  # of a maze, from one cell to another


def runs(env, seeds, steps):
    """Return single steps of random actions: states before and after, rewards, ends, starts."""
    rows, starts, data = [], [], env.sim.data
    for seed in range(seeds):
        rng = np.random.RandomState(1000 + seed)
        env.seed(seed)
        obs = env.reset()
        starts.append(np.array(obs))
        for _ in range(steps):
            before = np.array(data.qpos), np.array(data.qvel)
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            obs, reward, done, _ = env.step(action)
            after = np.array(data.qpos), np.array(data.qvel)
            rows.append((*before, action, *after, np.array(obs), float(reward), bool(done)))
    names = ("qpos", "qvel", "action", "next_qpos", "next_qvel", "obs", "reward", "done")
    recorded = {n: np.array(c) for n, c in zip(names, zip(*rows))}  # noqa: B905 (Python 3.9)
    return {**recorded, "starts": np.array(starts)}


def random_returns(env, episodes):
    """Return the returns of episodes of uniformly random actions."""
    rng, returns = np.random.RandomState(0), []
    for seed in range(episodes):
        env.seed(seed)
        env.reset()
        total, done = 0.0, False
        while not done:
            _, reward, done, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
            total += reward
        returns.append(total)
    return np.array(returns)


def controller_of(env):
    """Return the scripted controller of a maze."""
    module = importlib.import_module("d4rl.pointmaze.waypoint_controller")
    return module.WaypointController(env.str_maze_spec)


def plans(env):
    """Return the cells of plans, without shifts: rows (start, target, number, cell)."""
    controller, uniform = controller_of(env), np.random.uniform
    cells, rows = env.empty_and_goal_locations, []
    pairs = [(start, target) for start in cells for target in cells if start != target]
    np.random.RandomState(0).shuffle(pairs)
    np.random.uniform = lambda size: np.zeros(size)
    try:
        for start, target in pairs[:PLANS]:
            controller._new_target(np.array(start, float), np.array(target, float))
            for i, cell in enumerate(controller._waypoints):
                rows.append((*start, *target, i, *np.asarray(cell, int)))
    finally:
        np.random.uniform = uniform
    return np.array(rows)


def ways(env, seeds, steps):
    """Return observations and actions of the controller steering to the goal, without shifts."""
    rows, uniform = [], np.random.uniform
    np.random.uniform = lambda size: np.zeros(size)
    try:
        for seed in range(seeds):
            env.seed(seed)
            obs, controller = env.reset(), controller_of(env)
            for step in range(steps):
                action, reached = controller.get_action(obs[:2], obs[2:], env.get_target())
                rows.append((seed, step, *obs, *action, reached))
                obs, _, _, _ = env.step(action)
    finally:
        np.random.uniform = uniform
    return np.array(rows, float)


def data(env, steps, limit):
    """Return a run by D4RL's procedure: rows (obs, action, true state, change of target).

    The script that made the files is not part of the package; this is written after its facts: one
    endless run, noisy actions, another target when one is reached or an episode's time is over, and
    the controller acts on the observation before in the step after a change.
    """
    np.random.seed(0)
    env.seed(0)
    obs, controller, rows, age = env.reset(), controller_of(env), [], 0
    env.set_target()
    for _ in range(steps):
        action, reached = controller.get_action(obs[:2], obs[2:], env.get_target())
        action = np.clip(action + np.random.randn(2) * NOISE, -1.0, 1.0)
        switch = bool(reached) or age >= limit
        state = np.concatenate([env.sim.data.qpos, env.sim.data.qvel])
        rows.append((*obs, *action, *state, switch))
        new, _, _, _ = env.step(action)
        if switch:
            env.set_target()
            age = 0
        else:
            obs, age = new, age + 1
    return np.array(rows, float)


def main():
    """Record what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="the .npz file")
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--data", type=int, required=True, help="steps of a maze's data")
    args = parser.parse_args()
    out = {}

    def keep(name, columns):
        out.update({name + "/" + key: value for key, value in columns.items()})
        print("recorded", name, file=sys.stderr, flush=True)

    for name in ROBOTS:
        keep(name, runs(gym.make(name).unwrapped, args.seeds, args.steps))
        keep(name, {"random": random_returns(gym.make(name), args.episodes)})
    importlib.import_module("d4rl.pointmaze")
    for name in MAZES:
        timed = gym.make(name)
        env = timed.unwrapped
        keep(name, runs(env, args.seeds, args.steps))
        keep(name, {"random": random_returns(timed, args.episodes)})
        keep(name, {"plans": plans(env), "ways": ways(env, args.seeds, args.steps)})
        keep(name, {"data": data(env, args.data, timed._max_episode_steps)})
    try:
        importlib.import_module("d4rl.kitchen")
        env = gym.make(KITCHEN).unwrapped
        env.robot_noise_ratio = 0.0
        keep(KITCHEN, runs(env, args.seeds, min(args.steps, 100)))
    except Exception as error:  # whatever its packages raise
        text = " ".join(str(error).split()) or type(error).__name__
        print("not recorded:", KITCHEN, text, file=sys.stderr)
        out[KITCHEN + "/missing"] = np.array(text)
    packages = [gym.__name__ + " " + gym.__version__]
    for package in ("mujoco_py", "mujoco"):
        try:
            version = getattr(importlib.import_module(package), "__version__", "?")
            packages.append(package + " " + str(version))
        except Exception:
            continue
    out["packages"] = np.array(", ".join([*packages, "numpy " + np.__version__]))
    np.savez_compressed(args.out, **out)


if __name__ == "__main__":
    main()
