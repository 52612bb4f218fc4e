"""EDA: a diffusion model of the data's actions, aligned with a critic.

Chen et al. 2024, "Aligning Diffusion Behaviors with Q-functions". Of K actions a_k that the
behaviour model mu (`eda_behavior`) proposes at s, the policy pi is to prefer those that the critic
prefers. Both densities are seen at one noise level, shared by the actions of a state:

    gap_k = f_pi(alpha_t a_k + sigma_t eps_k, t | s) - f_mu(the same)           `density_gap`
    L_pi = -E[ sum_k softmax_k(alpha Q(s, a_k)) log softmax_k(beta gap_k) ]     `alignment_loss`

At its minimum beta gap_k = alpha Q(s, a_k) + const: pi is mu exp(Q alpha / beta), normalised. The
policy starts from mu's weights. What mu proposes and its Q never change, so both are computed once,
before training (`Algorithm.prepare`). The critic is that of `iql`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ractd_jax import errors, train_state
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import iql, vp_schedule
from ractd_jax.methods.eda_behavior import (
    SAMPLING_FIELDS,
    Density,
    Sampling,
    density,
    draw,
    noisy,
)
from ractd_jax.nn import shapes
from ractd_jax.types import Algorithm, Cond, Network, Params, Trajectory, Values

CHUNK = 256  # states whose candidates are drawn at once


@dataclasses.dataclass(frozen=True)
class Eda(Sampling):
    """How a policy is aligned, and how it acts.

    Attributes:
        nfe: network calls per action, each of them forward and backward.
        spacing: of the times, see `dpm_solver.grid`.
        clip: clip every prediction of clean actions to [-1, 1].
        alpha: how sharply the critic prefers.
        beta: how far a preference moves the policy: the smaller, the further.
        proposals: K, actions proposed for each state.
        states: how many states of the dataset are proposed for; 0 for all.

    Raises:
        FieldError: a number is out of range, or the word is unknown.
    """

    alpha: float = 3.0
    beta: float = 0.2
    proposals: int = 16
    states: int = 0

    def __post_init__(self):
        super().__post_init__()
        errors.at_least("alpha", self.alpha, 0)
        errors.above("beta", self.beta, 0)
        errors.at_least("proposals", self.proposals, 2)
        errors.at_least("states", self.states, 0)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """The policy's network is the behaviour model's, but for its dropout.

    Attributes:
        dropout: in front of each block.

    Raises:
        FieldError: it is outside [0, 1].
    """

    dropout: float = 0.0

    def __post_init__(self):
        shapes.check_fields(self)


class Proposals(NamedTuple):
    """States, what the behaviour model proposes to do there, and the critic's value of that.

    Attributes:
        x: actions, trajectories of horizon 1.
        cond: the observation.
        values: Q of each action.
    """

    x: Float[Array, "batch cand horizon dim"]
    cond: Cond
    values: Float[Array, "batch cand"]


# ---- losses --------------------------------------------------------------------------------------


def alignment_loss(
    gap: Float[Array, "batch cand"], values: Float[Array, "batch cand"], alpha: float, beta: float
) -> Values:
    """Return the cross entropy between what the critic and what the policy prefers.

    Args:
        gap: log-densities of the policy, less those of the behaviour model.
        values: Q of each action.
        alpha: see `Eda`.
        beta: see `Eda`.

    Example:
        >>> loss = alignment_loss(jnp.zeros((1, 4)), jnp.zeros((1, 4)), alpha=3.0, beta=0.2)
        >>> round(float(loss[0]), 3)  # log 4
        1.386
    """
    wanted = jax.nn.softmax(alpha * values, axis=-1)
    return -jnp.sum(wanted * jax.nn.log_softmax(beta * gap, axis=-1), axis=-1)


def density_gap(
    policy: Density,
    behavior: Density,
    x_0: Float[Array, "batch cand horizon dim"],
    key: PRNGKeyArray,
) -> Float[Array, "batch cand"]:
    """Return how much likelier the policy makes each action, at a random time of each state.

    Args:
        policy: its density for batch * cand rows, a state's candidates one after the other.
        behavior: the behaviour model's.
        x_0: candidates; each gets noise of its own, but a state's share the time.
        key: a fresh one.
    """
    batch, cand, *shape = x_0.shape
    key_t, key_eps = jax.random.split(key)
    t = jax.random.uniform(key_t, (batch,), minval=vp_schedule.T_MIN, maxval=1.0)
    t, x_0 = jnp.repeat(t, cand), x_0.reshape(batch * cand, *shape)
    x = noisy(t, x_0, jax.random.normal(key_eps, x_0.shape))
    return (policy(x, t) - behavior(x, t)).reshape(batch, cand)


def sample(data: Proposals, key: Key[Array, ""], *, batch_size: int, horizon: int = 1) -> Proposals:
    """Draw states with all their proposals, with replacement (see `data.transitions.sample`)."""
    del horizon
    index = jax.random.randint(key, (batch_size,), 0, len(data.cond))
    return jax.tree.map(lambda a: a[index], data)


# ---- the algorithm -------------------------------------------------------------------------------


def make_eda(
    net: Network,
    critic: Callable[[Params, Trajectory, Cond], Values],
    method: Eda,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the aligned policy; it needs {"behavior", "critic"} and learns from what they propose.

    Args:
        net: network of f, the behaviour model's but for its dropout.
        critic: `(weights of the critic, x, cond) -> Q`.
        method: losses and sampler.
        optimiser: how to train.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """
    del cond_dim  # which the network's weights know

    def propose(frozen, cond, keys):
        def at_state(state):
            cond, key = state
            conds = jnp.repeat(cond[None], method.proposals, axis=0)
            keys = jax.random.split(key, method.proposals)
            x = draw(density(net, frozen["behavior"], conds), method, keys, shape)
            return x, critic(frozen["critic"], x, conds)

        x, values = jax.lax.map(at_state, (cond, keys), batch_size=CHUNK)
        return Proposals(x, cond, values)

    def prepare(frozen, dataset, key):
        key_rows, key_x = jax.random.split(key)
        rows = dataset.starts
        if 0 < method.states < len(rows):
            rows = jax.random.choice(key_rows, rows, (method.states,), replace=False)
        keys = jax.random.split(key_x, len(rows))
        return jax.jit(propose)(frozen, dataset.observations[rows], keys)

    def init(key, frozen):
        del key
        params = jax.tree.map(jnp.copy, frozen["behavior"])
        return train_state.create(params, optimiser, {"behavior": frozen["behavior"]})

    def update(state, batch: Proposals, key):
        conds = jnp.repeat(batch.cond, batch.values.shape[1], axis=0)
        behavior = density(net, state.frozen["behavior"], conds)

        def loss_fn(params):
            gap = density_gap(density(net, params, conds), behavior, batch.x, key)
            loss = jnp.mean(alignment_loss(gap, batch.values, method.alpha, method.beta))
            agree = jnp.argmax(gap, axis=1) == jnp.argmax(batch.values, axis=1)
            return loss, {"loss": loss, "agreement": jnp.mean(agree.astype(loss.dtype))}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        return draw(density(net, params, cond), method, keys, shape)

    return Algorithm(init, update, act, prepare=prepare, sample=sample)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the aligned policy of a configuration."""
    section, needed = context.section, context.needed
    net = needed["behavior"].context.section.network.clone(dropout=section.network.dropout)
    critic = needed["critic"].algorithm.value
    assert critic is not None
    return make_eda(net, critic, section.method, optimiser, **context.sizes)


def _needs(config: Config, stage: str) -> Mapping[str, str]:
    del config, stage
    return {"behavior": "eda_behavior", "critic": "eda_critic"}


METHODS = (
    Method(
        name="eda_critic",
        help="train the expectile critic that EDA's policy is aligned with",
        make=iql.make,
        fields=iql.Iql,
        network={"mlp": iql.Layers},
        reads=Reads.TRANSITIONS,
        label="EDA's critic",
        colour="#45906b",
        order=-5,
        values=True,
        deterministic=True,
        row=False,
        tasks=("policy",),
    ),
    Method(
        name="eda",
        help="align the behaviour model with the critic; trains both first if they are missing",
        make=make,
        fields=Eda,
        network={"bottleneck": Dropout},
        reads=Reads.TRANSITIONS,
        label="EDA",
        colour="#cd8ce2",
        order=110,
        needs=_needs,
        sampling_fields=SAMPLING_FIELDS,
        calls=lambda fields: fields.nfe,
        tasks=("policy",),
    ),
)
