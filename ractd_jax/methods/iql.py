"""Implicit Q-learning: a critic that never asks about actions outside the data.

Kostrikov, Nair and Levine 2022. With targets Q' (an average of Q's weights) and adv = Q' - V:

    L_V = E[ |tau - 1(adv < 0)| adv^2 ],   Q'(s, a) the smaller of two         (Eq. 5)  `expectile`
    L_Q = E[ sum of the two's (r + gamma (1 - done) V(s') - Q(s, a))^2 ]       (Eq. 6)
    L_pi = E[ -min(exp(beta adv), 100) log pi(a | s) ]                         (Eq. 7)

V learns the tau-expectile of what the data's actions are worth, which for tau near 1 nears the
best of them. Here all three are trained at once, by one optimiser on the sum: no loss has a
gradient for another's weights. As a judge the critic says the smaller target Q (`make_iql`).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors, train_state
from ractd_jax.nn import mlp
from ractd_jax.nn.mlp import init_twins, twins
from ractd_jax.types import Algorithm, Params, Transition


@dataclasses.dataclass(frozen=True)
class Iql:
    """How the critic and its policy learn.

    Attributes:
        expectile: tau; 0.5 is the value of the data's policy, towards 1 that of its best actions.
        discount: gamma.
        temperature: beta, how much better actions are preferred when the policy is extracted.
        largest_weight: the bound of exp(beta adv).
    """

    expectile: float = 0.7
    discount: float = 0.99
    temperature: float = 3.0
    largest_weight: float = 100.0

    def __post_init__(self):
        if not 0 < self.expectile < 1 or not 0 <= self.discount < 1:
            raise errors.UserError(
                f"iql.method: an expectile in (0, 1) and a discount in [0, 1) are needed, not "
                f"{self.expectile} and {self.discount}"
            )


def expectile(adv: Float[Array, "..."], tau: float) -> Float[Array, "..."]:
    """Return |tau - 1(adv < 0)| adv^2 (IQL Eq. 5); for tau = 0.5 half the squared error."""
    return jnp.abs(tau - (adv < 0)) * adv**2


def critic_loss(
    q_net,
    v_net,
    params: Params,
    target: Params,
    method: Iql,
    batch: Transition,
) -> tuple[Float[Array, ""], Float[Array, " batch"], dict[str, Float[Array, ""]]]:
    """Return the losses of Q and V, added, the advantage of each action, and metrics.

    Args:
        q_net: network of Q.
        v_net: network of V.
        params: weights {"q", "v"}; Q's are stacked, see `action_networks.twins`.
        target: weights of Q'.
        method: expectile and discount.
        batch: transitions.
    """
    action = batch.x[:, 0]
    v = v_net.apply({"params": params["v"]}, batch.cond)[:, 0]
    adv = jnp.min(twins(q_net, target, batch.cond, action), axis=0) - v
    v_loss = jnp.mean(expectile(adv, method.expectile))
    v_next = jax.lax.stop_gradient(v_net.apply({"params": params["v"]}, batch.next_cond)[:, 0])
    goal = batch.rewards + method.discount * batch.masks * v_next
    q = twins(q_net, params["q"], batch.cond, action)
    q_loss = jnp.mean(jnp.sum((q - goal[None]) ** 2, axis=0))
    metrics = {"q_loss": q_loss, "v_loss": v_loss, "q": jnp.mean(q)}
    return q_loss + v_loss, jax.lax.stop_gradient(adv), metrics


def log_prob(
    x: Float[Array, "batch dim"], mean: Float[Array, "batch dim"], log_std: Float[Array, " dim"]
) -> Float[Array, " batch"]:
    """Return the log-density of a diagonal Gaussian, up to a constant."""
    z = (x - mean) * jnp.exp(-log_std)[None]
    return jnp.sum(-0.5 * z**2 - log_std[None], axis=-1)


def make_iql(
    q_net: mlp.MLP,
    v_net: mlp.MLP,
    policy_net: mlp.GaussianPolicy,
    method: Iql,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the critic and the policy that is extracted from it, which acts with its mean.

    Args:
        q_net: network of Q(s, a), one number.
        v_net: network of V(s), one number.
        policy_net: network of pi(a | s).
        method: losses.
        optimiser: how to train; its average is the target network, so `ema` is 1 - the rate at
            which targets follow, and `ema_power` should be 0.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """

    def init(key):
        key_q, key_v, key_pi = jax.random.split(key, 3)
        cond, action = jnp.zeros((1, cond_dim)), jnp.zeros((1, shape[-1]))
        params = {
            "q": init_twins(q_net, key_q, cond, action),
            "v": v_net.init(key_v, cond)["params"],
            "policy": policy_net.init(key_pi, cond)["params"],
        }
        return train_state.create(params, optimiser)

    def update(state, batch: Transition, key):
        del key  # nothing random here

        def loss_fn(params):
            critic, adv, metrics = critic_loss(q_net, v_net, params, state.ema["q"], method, batch)
            mean, log_std = policy_net.apply({"params": params["policy"]}, batch.cond)
            weight = jnp.minimum(jnp.exp(method.temperature * adv), method.largest_weight)
            imitation = -jnp.mean(weight * log_prob(batch.x[:, 0], mean, log_std))
            return critic + imitation, {"loss": critic} | metrics | {"imitation": imitation}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        del keys  # the mean is what IQL is evaluated with
        return policy_net.apply({"params": params["policy"]}, cond)[0][:, None]

    def value(params, x, cond, key=None):
        return jnp.min(twins(q_net, params["q"], cond, x[:, 0]), axis=0)

    return Algorithm(init, update, act, value)
