"""What a dataset holds, in numbers, and what in it deserves a second look."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ractd_jax import tasks
from ractd_jax.data import dimensions, episodes


def summary(recorded: episodes.Transitions, task: tasks.TaskSpec) -> dict[str, int | float]:
    """Describe the complete episodes, in the numbers that D4RL's datasets are known by.

    Returns:
        `trajectories`, `steps`, mean, deviation and extremes of the episodes' returns, and the
        score of the mean.
    """
    recorded = episodes.complete(recorded)
    returns = episodes.returns(recorded)
    return {
        "trajectories": len(returns),
        "steps": len(recorded.rewards),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_max": float(returns.max()),
        "return_min": float(returns.min()),
        "score_mean": float(task.score(float(returns.mean()))),
    }


def inspect(recorded: episodes.Transitions, task: tasks.TaskSpec) -> dict[str, Any]:
    """Describe complete episodes, as `sources.load` returns them.

    Returns:
        What `summary` returns, and `length_mean`, `length_max` and `length_min` of the episodes
        (steps), `terminals` and `timeouts` (episodes that ended so), `both_ends` (rows that are
        both) and `first_both`, `resets` (rows within episodes after which all jumps) and
        `first_reset`, `reward_mean`, `reward_max` and `reward_min` of a step,
        `constant_observations` and `constant_actions` (indices of dimensions that never change),
        `actions_at_limit` (share of the numbers).
    """
    lengths = episodes.lengths(recorded)
    low, high = (limit[None] for limit in task.action_limits())
    actions, rewards = recorded.actions, recorded.rewards
    near = dimensions.AT_LIMIT * (high - low)
    at_limit = (actions <= low + near) | (actions >= high - near)
    both, resets = recorded.terminals & recorded.timeouts, dimensions.resets(recorded)
    return summary(recorded, task) | {
        "length_mean": float(lengths.mean()),
        "length_max": int(lengths.max()),
        "length_min": int(lengths.min()),
        "terminals": int(recorded.terminals.sum()),
        "timeouts": int((recorded.timeouts & ~recorded.terminals).sum()),
        "both_ends": int(both.sum()),
        "first_both": int(both.argmax()),
        "resets": int(resets.sum()),
        "first_reset": int(resets.argmax()) if len(resets) else 0,
        "reward_mean": float(rewards.mean(dtype=np.float64)),
        "reward_max": float(rewards.max()),
        "reward_min": float(rewards.min()),
        "constant_observations": _constant(recorded.observations),
        "constant_actions": _constant(actions),
        "actions_at_limit": float(at_limit.mean()),
    }


def remarks(facts: dict[str, Any], horizon: int, penalty: float) -> list[str]:
    """Return a sentence for everything in a dataset that may spoil training.

    Reading has checked already that numbers are finite and actions within their limits.

    Args:
        facts: from `inspect`.
        horizon: steps of a training window.
        penalty: added to the last reward before a terminal.
    """
    sentences = []
    for kind in ("observations", "actions"):
        if dims := facts[f"constant_{kind}"]:
            sentences.append(
                f"{kind}: dimension {_runs(dims)} never changes, so it is only shifted to 0 and "
                "carries no information"
            )
    if facts["length_max"] < horizon:
        sentences.append(
            f"no episode is as long as the horizon of {horizon}, the longest has "
            f"{facts['length_max']} steps: choose a shorter --config.data.horizon"
        )
    elif facts["length_min"] < horizon:
        sentences.append(
            f"the shortest episode has {facts['length_min']} steps: those shorter than the horizon "
            f"of {horizon} give no window"
        )
    if facts["resets"]:
        sentences.append(
            f"observations jump after row {facts['first_reset']:,}, in {facts['resets']:,} places "
            "within episodes in all, as where another episode begins: mark their ends in 'timeouts'"
        )
    if facts["both_ends"]:
        sentences.append(
            f"{facts['both_ends']:,} rows are a terminal and a timeout at once, first row "
            f"{facts['first_both']:,}: they count as terminals"
        )
    if facts["score_mean"] > 100:
        sentences.append(
            "the mean score is above 100: the rewards may not be the environment's (Kitchen's "
            "recorded ones may count, in every step, all that is done by then)"
        )
    if penalty and not facts["terminals"]:
        sentences.append(
            f"no episode ends in a terminal: the termination penalty {penalty:g} never applies"
        )
    if facts["reward_max"] == facts["reward_min"]:
        sentences.append(
            "every step earns the same reward: a return tells only how long an episode is"
        )
    return sentences


def _constant(column: Float[np.ndarray, "n dim"]) -> list[int]:
    """Return the dimensions that never change."""
    return np.flatnonzero(column.max(axis=0) == column.min(axis=0)).tolist()


def _runs(dims: list[int]) -> str:
    """Write 4, 30, 31, 32 as "4, 30 to 32".

    Example:
        >>> _runs([4, 30, 31, 32])
        '4, 30 to 32'
    """
    breaks = np.flatnonzero(np.diff(dims) != 1) + 1
    runs = [run.tolist() for run in np.split(dims, breaks)]
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)
