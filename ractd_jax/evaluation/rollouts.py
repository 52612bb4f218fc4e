"""Episodes of a policy in its environment: each counts once, to its own end.

The protocol: one environment and one episode for each seed of a fixed list; the return is the plain
sum of the environment's rewards. All running episodes share each call of the policy. An episode
that has ended leaves the batch and is not replaced, so that short episodes do not count more often.

    rollout     returns of a policy over a list of seeds
    statistics  those returns as normalised scores: mean, standard error, median, 95 % interval
    record      the positions and rewards of one episode, for the animation
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int64

from ractd_jax import errors
from ractd_jax.envs.make import make_env
from ractd_jax.tasks import TaskSpec

# (observations (batch, cond), seeds (batch,), step) -> actions (batch, dim). What is random
# in a row depends on its seed and the step alone. So the same list of seeds gives the same returns,
# bit for bit. In another list a seed has the same noise, but a matrix product may round differently
# in a batch of another size, and in chaotic dynamics the last bit grows.
Act = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

RESAMPLES = 10_000  # of the bootstrap


class Rollouts(NamedTuple):
    """One episode a seed, in the order of the seeds.

    Attributes:
        seeds: of the environment's initial state and of the policy's noise.
        returns: sum of the rewards.
        returns_released: sum over the steps of the largest reward so far, see `running_max_return`.
        lengths: number of steps.
    """

    seeds: Int[np.ndarray, " batch"]
    returns: Float[np.ndarray, " batch"]
    returns_released: Float[np.ndarray, " batch"]
    lengths: Int[np.ndarray, " batch"]


def running_max_return(rewards: Sequence[float]) -> float:
    """Return sum_t max_{j <= t} r_j, which is never below the true return.

    RACTD's published PyTorch runner adds this up in place of the rewards. It is logged beside the
    return, for comparison with figures that came from that runner, and is never the score.

    Example:
        >>> running_max_return([1.0, 3.0, 2.0])
        7.0
    """
    return float(np.maximum.accumulate(rewards).sum())


def rollout(
    act: Act,
    task: TaskSpec,
    seeds: Sequence[int] | Int[np.ndarray, " batch"],
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> Rollouts:
    """Run one episode for each seed, all side by side.

    Args:
        act: decides for all running episodes in one call, see `Act`.
        task: names the environment.
        seeds: integers, one an episode.
        on_step: called after each step as `on_step(steps, finished episodes)`.

    Raises:
        UserError: there is no seed, or an action is not finite.
    """
    seeds = np.array(seeds, np.int64)
    if not seeds.size:
        raise errors.UserError("an evaluation needs at least one seed")
    envs = [make_env(task.env_id) for _ in seeds]
    rewards: list[list[float]] = [[] for _ in seeds]
    try:
        first = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=True)]
        obs = np.asarray(first, np.float64)  # a normaliser may need all the digits
        running, step = np.arange(len(seeds)), 0
        while running.size:
            actions = _decide(act, obs[running], seeds[running], step)
            alive = np.ones(running.size, bool)
            for row, (episode, action) in enumerate(zip(running, actions, strict=True)):
                obs[episode], reward, terminated, truncated, _ = envs[episode].step(action)
                rewards[episode].append(float(reward))
                alive[row] = not (terminated or truncated)
            running, step = running[alive], step + 1
            if on_step is not None:
                on_step(step, len(seeds) - running.size)
    finally:
        for env in envs:
            env.close()
    return Rollouts(
        seeds=seeds,
        returns=np.array([sum(r) for r in rewards]),
        returns_released=np.array([running_max_return(r) for r in rewards]),
        lengths=np.array([len(r) for r in rewards]),
    )


def record(act: Act, task: TaskSpec, seed: int) -> dict[str, Any]:
    """Run one episode and keep what an animation needs.

    Args:
        act: decides, in a batch of one.
        task: names the environment, one of MuJoCo's.
        seed: of the episode.

    Returns:
        `seed`, `qpos` (steps, nq) and `rewards` (steps,) after each step, and their sum `return`.

    Raises:
        UserError: an action is not finite.
    """
    env = make_env(task.env_id)
    unwrapped: Any = env.unwrapped
    qpos, rewards, done = [], [], False
    try:
        obs, _ = env.reset(seed=seed)
        while not done:
            batch = np.asarray(obs, np.float64)[None]
            action = _decide(act, batch, np.array([seed], np.int64), len(rewards))[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            qpos.append(unwrapped.data.qpos.copy())
            rewards.append(float(reward))
            done = terminated or truncated
    finally:
        env.close()
    return {
        "seed": seed,
        "qpos": np.array(qpos),
        "rewards": np.array(rewards),
        "return": sum(rewards),
    }


def statistics(
    returns: Sequence[float] | Float[np.ndarray, " batch"], task: TaskSpec
) -> dict[str, Any]:
    """Summarise returns as D4RL's scores.

    Args:
        returns: of one episode each.
        task: whose reference returns they are set against.

    Returns:
        `score_mean`, `score_se` (standard error of the mean), `score_median` and `score_ci95` (95 %
        percentile interval of the bootstrapped mean, the same resamples every time). One episode
        has no spread: its standard error and interval are None.

    Raises:
        UserError: there are no returns.
    """
    scores = task.score(np.asarray(returns, np.float64))
    if not scores.size:
        raise errors.UserError("no episode was evaluated, so there is no score")
    spread: dict[str, Any] = {"score_se": None, "score_ci95": None}
    if scores.size > 1:
        rng = np.random.default_rng(0)
        # In blocks, because a dataset may hold thousands of episodes.
        means = [rng.choice(scores, (500, scores.size)).mean(1) for _ in range(RESAMPLES // 500)]
        spread["score_se"] = float(scores.std(ddof=1) / np.sqrt(scores.size))
        spread["score_ci95"] = np.percentile(np.concatenate(means), [2.5, 97.5]).tolist()
    return {"score_mean": float(scores.mean()), "score_median": float(np.median(scores)), **spread}


def _decide(
    act: Act, obs: Float[np.ndarray, "batch obs"], seeds: Int64[np.ndarray, " batch"], step: int
) -> Float[np.ndarray, "batch act"]:
    """Return the clipped actions (batch, dim) of one call of the policy.

    The batch is padded to a power of two with copies of its first row, so that a jitted policy
    compiles for log2(batch) + 1 shapes at most while episodes leave.
    """
    size = len(obs)
    rows = np.arange(1 << (size - 1).bit_length())
    rows[size:] = 0
    actions = np.asarray(act(obs[rows], seeds[rows], step))[:size]
    bad = ~np.isfinite(actions).all(axis=-1)
    if bad.any():
        raise errors.UserError(
            f"the policy's action is not finite at step {step} of the episode with seed "
            f"{seeds[bad][0]}; its training has probably diverged"
        )
    return np.clip(actions, -1.0, 1.0)
