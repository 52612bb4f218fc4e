"""Implicit Q-learning: a critic that never asks about actions outside the data.

Kostrikov, Nair and Levine 2022. With targets Q' (an average of Q's weights) and adv = Q' - V:

    L_V = E[ |tau - 1(adv < 0)| adv^2 ],   Q'(s, a) the smaller of two         (Eq. 5)  `expectile`
    L_Q = E[ sum of the two's (r + gamma (1 - done) V(s') - Q(s, a))^2 ]       (Eq. 6)
    L_pi = E[ -min(exp(beta adv), 100) log pi(a | s) ]                         (Eq. 7)  `make_iql`

V learns the tau-expectile of the Q of the data's actions, which for tau near 1 nears that of the
best of them. Here all three are trained at once, by one optimiser on the sum: no loss has a
gradient for another's weights. The critic's value of an action is the smaller target Q.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.nn import mlp, shapes
from ractd_jax.nn.mlp import init_twins, twins
from ractd_jax.types import Algorithm, Params, Scalar, Transition, Values


@runtime_checkable
class PlainNetwork(Protocol):
    """A network of one input without noise levels, as those of `nn.mlp`."""

    def apply(self, variables: Any, x: Any, /) -> Any:
        """Return what it gives for weights `variables["params"]`."""
        ...

    def init(self, key: Any, x: Any, /) -> Any:
        """Return {"params": the first weights}."""
        ...


@dataclasses.dataclass(frozen=True)
class Layers:
    """The hidden layers of networks of single actions: critics, values and policies.

    Attributes:
        hidden: width of each hidden layer.
        activation: after each, see `activations.ACTIVATIONS`.
        layer_norm: of critics and values: "" for none, "before" or "after" the activation.

    Raises:
        FieldError: there is no layer, a width is below 1, or a word is unknown.

    Example:
        >>> Layers(hidden=(64, 64)).critic().out
        1
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "mish"
    layer_norm: str = "before"

    def __post_init__(self):
        shapes.check_fields(self)

    def critic(self) -> mlp.MLP:
        """Return a network of one number, normalised as `layer_norm` says."""
        return mlp.MLP(self.hidden, 1, self.activation, self.layer_norm)

    def plain(self, out: int) -> mlp.MLP:
        """Return a network of `out` numbers without normalisation."""
        return mlp.MLP(self.hidden, out, self.activation, "")


def check_discount(discount: float) -> None:
    """Refuse a discount outside [0, 1).

    Raises:
        FieldError: naming the field `discount`.
    """
    if not 0 <= discount < 1:
        raise errors.FieldError("discount", f"{{field}} is {discount}: at least 0 and below 1")


@dataclasses.dataclass(frozen=True)
class Iql:
    """How the critic and its policy learn.

    Attributes:
        expectile: tau; 0.5 is the value of the data's policy, towards 1 that of its best actions.
        discount: gamma.
        temperature: beta, how much better actions are preferred when the policy is extracted.
        largest_weight: the bound of exp(beta adv).

    Raises:
        FieldError: a number is out of range.
    """

    expectile: float = 0.7
    discount: float = 0.99
    temperature: float = 3.0
    largest_weight: float = 100.0

    def __post_init__(self):
        if not 0 < self.expectile < 1:
            raise errors.FieldError(
                "expectile", f"{{field}} is {self.expectile}: above 0 and below 1"
            )
        check_discount(self.discount)
        errors.at_least("temperature", self.temperature, 0)
        errors.above("largest_weight", self.largest_weight, 0)


# ---- losses --------------------------------------------------------------------------------------


def expectile(adv: Float[Array, "..."], tau: float) -> Float[Array, "..."]:
    """Return |tau - 1(adv < 0)| adv^2 (IQL Eq. 5); for tau = 0.5 half the squared error.

    Example:
        >>> expectile(jnp.array([-2.0, 2.0]), 0.75).tolist()
        [1.0, 3.0]
    """
    return jnp.abs(tau - (adv < 0)) * adv**2


def critic_loss(
    q_net: mlp.MLP,
    v_net: PlainNetwork,
    params: Params,
    target: Params,
    method: Iql,
    batch: Transition,
) -> tuple[Scalar, Values, dict[str, Scalar]]:
    """Return the losses of Q and V, added, the advantage of each action, and metrics.

    IQL Eqs. 5 and 6.

    Args:
        q_net: network of Q.
        v_net: network of V.
        params: weights {"q", "v"}; Q's are stacked, see `mlp.twins`.
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
    """Return the log-density of a diagonal Gaussian, up to a constant.

    Args:
        x: actions.
        mean: of each.
        log_std: logarithm of the deviations.

    Example:
        >>> log_prob(jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.zeros(2)).tolist()
        [-1.0]
    """
    z = (x - mean) * jnp.exp(-log_std)[None]
    return jnp.sum(-0.5 * z**2 - log_std[None], axis=-1)


# ---- the algorithm -------------------------------------------------------------------------------


def make_iql(
    q_net: mlp.MLP,
    v_net: PlainNetwork,
    policy_net: PlainNetwork,
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
        policy_net: network of pi(a | s), a `mlp.GaussianPolicy`.
        method: losses.
        optimiser: how to train; its average is the target network, so `ema` is 1 - the rate at
            which targets follow, and `ema_power` should be 0.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.

    Example:
        >>> net, policy_net = mlp.MLP((8,), 1), mlp.GaussianPolicy((8,), 3)
        >>> optimiser, sizes = train_state.Optimiser(steps=10), {"shape": (1, 3), "cond_dim": 11}
        >>> algorithm = make_iql(net, net, policy_net, Iql(), optimiser, **sizes)
        >>> params = algorithm.init(jax.random.key(0)).params
        >>> algorithm.value(params, jnp.zeros((5, 1, 3)), jnp.zeros((5, 11))).shape
        (5,)
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


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the critic of a configuration, and its policy."""
    layers, act_dim = context.section.network, context.shape[1]
    policy_net = mlp.GaussianPolicy(layers.hidden, act_dim, layers.activation)
    nets = layers.critic(), layers.critic(), policy_net
    return make_iql(*nets, context.section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="iql",
        help="train the expectile critic (implicit Q-learning) and its policy",
        make=make,
        fields=Iql,
        network={"mlp": Layers},
        reads=Reads.TRANSITIONS,
        label="IQL",
        colour="#055d6a",
        order=100,
        values=True,
        deterministic=True,
        tasks=("policy",),
    ),
)
