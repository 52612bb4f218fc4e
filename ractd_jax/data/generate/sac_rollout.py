"""Rolls out one saved SAC actor in Gymnasium, in numpy: the work of one process.

Several environments run in lockstep, so that one pass through the actor serves them all. Nothing
here imports JAX, because every worker process of `simulated.make` has to import this module.
Source of the policy: Haarnoja et al. 2018, "Soft Actor-Critic", appendix C (tanh-Gaussian).
"""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Float32

from ractd_jax.envs.make import make_env

Actor = dict[str, np.ndarray]
Episode = dict[str, np.ndarray]

# of a row, in the order `collect` writes them; positions and velocities are those before the step
COLUMNS = (
    *("observations", "actions", "infos/qpos", "infos/qvel"),
    *("rewards", "next_observations", "terminals", "timeouts"),
)
LANES = 8  # environments in lockstep; with more the last episodes leave many of them idle


class Block(NamedTuple):
    """What one process is to collect of one snapshot.

    Attributes:
        env_id: Gymnasium environment.
        actor: weights `hidden0/kernel`, ... of the snapshot; `None` acts uniformly at random.
        steps: how many steps to collect, at least.
        seed: numbers that no other block has.
        noise: of the actor's own deviation, how much it acts with.
    """

    env_id: str
    actor: Actor | None
    steps: int
    seed: tuple[int, ...]
    noise: float = 1.0


def act(
    actor: Actor, obs: Float32[np.ndarray, "lane obs"], noise: Float32[np.ndarray, "lane act"]
) -> Float32[np.ndarray, "lane act"]:
    """Return tanh(mean(obs) + std(obs) noise).

    Args:
        actor: weights by layer, `hidden0/kernel`, `hidden0/bias`, ...
        obs: a row for each environment.
        noise: standard normal.
    """

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ actor[f"{name}/kernel"] + actor[f"{name}/bias"]

    hidden = np.maximum(dense("hidden1", np.maximum(dense("hidden0", obs), 0.0)), 0.0)
    log_std = np.clip(dense("log_std", hidden), -20.0, 2.0)
    return np.tanh(dense("mean", hidden) + np.exp(log_std) * noise)


def rescale(
    actions: Float32[np.ndarray, "lane act"], space: gymnasium.spaces.Box
) -> Float32[np.ndarray, "lane act"]:
    """Map actions from [-1, 1], where actors act, to the limits of an environment.

    Example:
        >>> space = gymnasium.spaces.Box(0, 4, (1,), np.float32)
        >>> rescale(np.zeros((1, 1), np.float32), space).tolist()
        [[2.0]]
    """
    if (space.low == -1).all() and (space.high == 1).all():
        return actions
    return (space.low + (actions + 1) / 2 * (space.high - space.low)).astype(np.float32)


def collect(block: Block) -> list[Episode]:
    """Return complete episodes of at least `block.steps` steps in all, in the order they began.

    A lane begins a new episode while fewer than `block.steps` steps have been taken, and finishes
    the episode it is in. So whether an episode counts never depends on its own length, and neither
    short nor long ones are preferred.
    """
    lanes = int(np.clip(block.steps // 1000, 1, LANES))
    envs = [make_env(block.env_id) for _ in range(lanes)]
    seeds = np.random.SeedSequence(block.seed).generate_state(lanes + 1)
    rng = np.random.default_rng(seeds[-1])
    space = envs[0].action_space
    assert isinstance(space, gymnasium.spaces.Box)
    shape = lanes, *space.shape

    obs = np.array([env.reset(seed=int(s))[0] for env, s in zip(envs, seeds, strict=False)])
    begun: list[list[tuple]] = [[] for _ in envs]  # the rows of each episode
    rows: list[list[tuple] | None] = [*begun]  # of each lane's episode; None once it has retired
    taken = 0
    while any(lane is not None for lane in rows):
        if block.actor is None:
            actions = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        else:
            noise = np.float32(block.noise) * rng.standard_normal(shape, dtype=np.float32)
            actions = act(block.actor, obs.astype(np.float32), noise)
        actions = rescale(actions, space)
        for i, env in enumerate(envs):
            episode = rows[i]
            if episode is None:
                continue
            before = obs[i].copy(), actions[i], *_state(env)
            obs[i], reward, terminal, timeout, _ = env.step(actions[i])
            episode.append((*before, reward, obs[i].copy(), terminal, timeout and not terminal))
            taken += 1
            if terminal or timeout:
                rows[i] = None
                if taken < block.steps:
                    begun.append([])
                    rows[i] = begun[-1]
                    obs[i] = env.reset()[0]
    for env in envs:
        env.close()
    return [_columns(episode) for episode in begun]


def _state(env: gymnasium.Env) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities, empty where the physics is not MuJoCo's."""
    data: Any = getattr(env.unwrapped, "data", None)
    if hasattr(data, "qpos"):
        return data.qpos.copy(), data.qvel.copy()
    return np.empty(0), np.empty(0)


def _columns(rows: list[tuple]) -> Episode:
    """Turn one episode's rows into D4RL's columns."""
    return {
        name: np.asarray(column, bool if name in ("terminals", "timeouts") else np.float32)
        for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    }
