"""EDA: a diffusion model that knows its own density, aligned with a critic.

Chen et al. 2024, "Aligning Diffusion Behaviors with Q-functions". A scalar network f is the log
density of noised actions, up to a constant that depends on s and t alone, so that its slope is the
score. Times, noise and sampler are those of `dpm_solver`.

    eps(x_t, t | s) = -sigma_t df(x_t, t | s) / dx_t                             `predict_noise`
    L_mu = E[ |eps(x_t, t | s) - eps|^2 ]                                        `behavior_loss`

Of K actions a_k that the behaviour model mu proposes at s, the policy pi is to prefer those that
the critic prefers. Both densities are seen at one noise level, shared by the actions of a state:

    gap_k = f_pi(alpha_t a_k + sigma_t eps_k, t | s) - f_mu(the same)
    L_pi = -E[ sum_k softmax_k(alpha Q(s, a_k)) log softmax_k(beta gap_k) ]     `alignment_loss`

At its minimum beta gap_k = alpha Q(s, a_k) + const: pi is mu exp(Q alpha / beta), normalised. The
policy starts from mu's weights. What mu proposes and what it is worth never changes, so it is drawn
and judged once, before training (`Algorithm.prepare`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ractd_jax import diffusion, errors, train_state
from ractd_jax.methods import dpm_solver
from ractd_jax.nn import mlp
from ractd_jax.types import Algorithm, Batch, Params, Transition

CHUNK = 256  # states whose candidates are drawn at once

Trajectory = Float[Array, "batch horizon dim"]
Density = Callable[[Trajectory, Float[Array, " batch"]], Float[Array, " batch"]]  # (x_t, t) -> f


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How actions are drawn, from the behaviour model and from the policy.

    Attributes:
        nfe: network calls per action, each of them forward and backward.
        spacing: of the times, see `dpm_solver.grid`.
        clip: clip every prediction of clean actions to [-1, 1].
    """

    nfe: int = 15
    spacing: str = "uniform"
    clip: bool = False

    def __post_init__(self):
        errors.choose("method.spacing", self.spacing, dpm_solver.SPACINGS)
        if self.nfe < 1:
            raise errors.UserError(f"method.nfe = {self.nfe}: at least 1 network call is needed")


@dataclasses.dataclass(frozen=True)
class Eda(Sampler):
    """How a policy is aligned.

    Attributes:
        alpha: how sharply the critic prefers.
        beta: how far a preference moves the policy: the smaller, the further.
        proposals: K, actions proposed for each state.
        states: how many states of the dataset are proposed for; 0 for all.
    """

    alpha: float = 3.0
    beta: float = 0.2
    proposals: int = 16
    states: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.proposals < 2 or self.states < 0:
            raise errors.UserError(
                "eda.method: at least 2 proposals and not less than 0 states are needed, not "
                f"{self.proposals} and {self.states}"
            )


class Proposals(NamedTuple):
    """States, what the behaviour model proposes to do there, and what that is worth.

    Attributes:
        x: actions, trajectories of horizon 1.
        cond: the observation.
        worth: Q of each action.
    """

    x: Float[Array, "batch cand horizon dim"]
    cond: Float[Array, "batch cond"]
    worth: Float[Array, "batch cand"]


# ---- the behaviour model -----------------------------------------------------------------------


def predict_noise(f: Density, x: Trajectory, t: Float[Array, " batch"]) -> Trajectory:
    """Return -sigma_t df/dx, the noise that a model of density f sees in x."""
    slope = jax.grad(lambda x: jnp.sum(f(x, t)))(x)  # rows do not see each other
    return -diffusion.expand(dpm_solver.sigma(t)) * slope


def behavior_loss(f: Density, x_0: Trajectory, key: PRNGKeyArray) -> Float[Array, " batch"]:
    """Return the squared error of the predicted noise, summed, at a random time of each example.

    Its gradient in the weights is of second order; on CPUs all ways to order the two derivatives
    take equally long (docs/eda.md), so this is the plainest.
    """
    key_t, key_eps = jax.random.split(key)
    t = jax.random.uniform(key_t, x_0.shape[:1], minval=dpm_solver.T_MIN, maxval=1.0)
    eps = jax.random.normal(key_eps, x_0.shape)
    error = predict_noise(f, dpm_solver.noised(t, x_0, eps), t) - eps
    return jnp.sum(error**2, axis=(1, 2))


def density(net, params: Params, cond: Float[Array, "batch cond"], **kwargs) -> Density:
    """Return f(., . | cond); `kwargs` are `train` and `rngs` for the network's dropout."""
    return lambda x, t: net.apply({"params": params}, x, t[:, None], cond, **kwargs)


def draw(
    f: Density, sampler: Sampler, keys: Key[Array, " batch"], shape: tuple[int, int]
) -> Trajectory:
    """Draw one trajectory of shape (horizon, dim) for each key.

    Args:
        f: density of noised trajectories.
        sampler: how.
        keys: one for each row.
        shape: (horizon, dim).
    """

    def denoiser(x, t):
        x_0 = dpm_solver.clean(t, x, predict_noise(f, x, jnp.full(x.shape[0], t)))
        return jnp.clip(x_0, -1, 1) if sampler.clip else x_0

    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    return dpm_solver.solve(denoiser, noise, dpm_solver.grid(sampler.nfe, sampler.spacing))


def make_behavior(
    net: mlp.Bottleneck,
    sampler: Sampler,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the behaviour model, which acts as the data do.

    Args:
        net: network of f.
        sampler: how it acts.
        optimiser: how to train.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            f = density(net, params, batch.cond, train=True, rngs={"dropout": key_dropout})
            return jnp.mean(behavior_loss(f, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        return draw(density(net, params, cond), sampler, keys, shape)

    return Algorithm(init, update, act)


# ---- alignment ---------------------------------------------------------------------------------


def alignment_loss(
    gap: Float[Array, "batch cand"], worth: Float[Array, "batch cand"], alpha: float, beta: float
) -> Float[Array, " batch"]:
    """Return the cross entropy between what the critic and what the policy prefers.

    Args:
        gap: log-densities of the policy, less those of the behaviour model.
        worth: Q of each action.
        alpha: see `Eda`.
        beta: see `Eda`.
    """
    wanted = jax.nn.softmax(alpha * worth, axis=-1)
    return -jnp.sum(wanted * jax.nn.log_softmax(beta * gap, axis=-1), axis=-1)


def density_gap(
    policy: Density, behavior: Density, x_0: Float[Array, "batch cand horizon dim"], key
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
    t = jax.random.uniform(key_t, (batch,), minval=dpm_solver.T_MIN, maxval=1.0)
    t, x_0 = jnp.repeat(t, cand), x_0.reshape(batch * cand, *shape)
    x = dpm_solver.noised(t, x_0, jax.random.normal(key_eps, x_0.shape))
    return (policy(x, t) - behavior(x, t)).reshape(batch, cand)


def sample(data: Proposals, key: Key[Array, ""], *, batch_size: int, horizon: int = 1) -> Proposals:
    """Draw states with all their proposals, with replacement (see `data.transitions.sample`)."""
    del horizon
    index = jax.random.randint(key, (batch_size,), 0, len(data.cond))
    return jax.tree.map(lambda a: a[index], data)


def make_eda(
    net: mlp.Bottleneck,
    judge: Callable[[Params, Trajectory, Array], Float[Array, " batch"]],
    method: Eda,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the aligned policy; it needs {"behavior", "critic"} and learns from what they propose.

    Args:
        net: network of f, the behaviour model's but for its dropout.
        judge: `(weights of the critic, x, cond) -> Q`.
        method: losses and sampler.
        optimiser: how to train.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """

    def propose(frozen, cond, keys):
        def at_state(state):
            cond, key = state
            conds = jnp.repeat(cond[None], method.proposals, axis=0)
            keys = jax.random.split(key, method.proposals)
            x = draw(density(net, frozen["behavior"], conds), method, keys, shape)
            return x, judge(frozen["critic"], x, conds)

        x, worth = jax.lax.map(at_state, (cond, keys), batch_size=CHUNK)
        return Proposals(x, cond, worth)

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
        conds = jnp.repeat(batch.cond, batch.worth.shape[1], axis=0)
        behavior = density(net, state.frozen["behavior"], conds)

        def loss_fn(params):
            gap = density_gap(density(net, params, conds), behavior, batch.x, key)
            loss = jnp.mean(alignment_loss(gap, batch.worth, method.alpha, method.beta))
            agree = jnp.argmax(gap, axis=1) == jnp.argmax(batch.worth, axis=1)
            return loss, {"loss": loss, "agreement": jnp.mean(agree.astype(loss.dtype))}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        return draw(density(net, params, cond), method, keys, shape)

    return Algorithm(init, update, act, prepare=prepare, sample=sample)
