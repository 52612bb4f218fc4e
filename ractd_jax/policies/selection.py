"""The best of several samples: a critic values them and one is chosen."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ractd_jax.data import normalization
from ractd_jax.types import Params


class BestOfN(NamedTuple):
    """How one of several sampled trajectories is chosen.

    Attributes:
        value: `(params, x, cond) -> (batch,)`, the critic.
        params: its weights.
        candidates: how many are drawn for each decision.
        inverse_temperature: one is drawn with probabilities softmax(inverse_temperature x value); 0
            takes the best.
    """

    value: Callable[..., Array]
    params: Params
    candidates: int
    inverse_temperature: float = 0.0


def choose(
    best_of_n: BestOfN,
    params: Params,
    x: Float[Array, "batch candidates horizon dim"],
    cond: Float[Array, "batch cond"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch horizon dim"]:
    """Return one candidate for each row: the best, or one drawn by its value.

    Args:
        best_of_n: how to choose.
        params: weights of the critic, where they are not `best_of_n`'s own.
        x: candidates.
        cond: the condition of each row.
        keys: of the draws.
    """
    batch, count = x.shape[:2]
    rows = jnp.repeat(cond, count, axis=0)
    values = best_of_n.value(params, x.reshape(batch * count, *x.shape[2:]), rows)
    values = values.reshape(batch, count)
    if best_of_n.inverse_temperature:
        logits = best_of_n.inverse_temperature * values
        chosen = jax.vmap(jax.random.categorical)(keys, logits)
    else:
        chosen = jnp.argmax(values, axis=1)
    return x[jnp.arange(batch), chosen]


def in_units_of(
    value: Callable[..., Any], policy: Sequence[Any], critic: Sequence[Any]
) -> Callable[..., Any]:
    """Return a critic of what a policy sees and does, given the normalizers of both.

    Args:
        value: `(params, x, cond) -> (batch,)` in the critic's units.
        policy: the policy's (observations, actions) normalizers.
        critic: the critic's.
    """
    (policy_obs, policy_act), (critic_obs, critic_act) = policy, critic

    def converted(params: Params, x: Array, cond: Array) -> Array:
        return value(
            params,
            normalization.convert(x, policy_act, critic_act),
            normalization.convert(cond, policy_obs, critic_obs),
        )

    return converted
