"""Flow Q-learning: a one-step policy that follows a critic and stays near a flow of the data.

Park, Li and Levine 2025. v is a velocity field learnt by flow matching, with noise z at time 0 and
the data's action a at time 1; mu(s, z) is a network that acts in one call.

    L_v  = E[ |v(s, a_t, t) - (a - z)|^2 ],   a_t = (1 - t) z + t a            `flow_loss`
    a_flow(s, z) = Euler steps of da/dt = v(s, a, t) from z                    `follow`
    L_mu = E[ alpha |mu(s, z) - a_flow(s, z)|^2 - Q(s, mu(s, z)) ]             `policy_loss`
    L_Q  = E[ (r + gamma (1 - done) Q'(s', mu(s', z)) - Q(s, a))^2 ]           `critic_loss`

The policy's gradient never passes through the flow's steps: that is the point of the second
network. All is trained at once, by one optimiser on the sum of the losses.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ractd_jax import errors, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import iql
from ractd_jax.nn import mlp
from ractd_jax.nn.mlp import init_twins, twins
from ractd_jax.types import Algorithm, Levels, Scalar, Transition

Actions = Float[Array, "batch dim"]
Velocity = Callable[[Actions, Levels], Actions]  # (a_t, t) -> da/dt
OF_TWINS = {"mean": jnp.mean, "min": jnp.min}  # how the values of two critics are joined


@dataclasses.dataclass(frozen=True)
class Layers(iql.Layers):
    """The hidden layers of flow, policy and critic.

    Attributes:
        hidden: width of each hidden layer.
        activation: after each, see `activations.ACTIVATIONS`.
        layer_norm: of the critic: "" for none, "before" or "after" the activation.
    """

    hidden: tuple[int, ...] = (512, 512, 512, 512)
    activation: str = "gelu"
    layer_norm: str = "after"


@dataclasses.dataclass(frozen=True)
class Fql:
    """How flow, critic and policy learn.

    Attributes:
        alpha: weight of the distillation, which holds the policy near the data.
        normalize_q_loss: divide the policy's Q by its mean size over the batch, so that alpha means
            the same whatever unit rewards have.
        flow_steps: Euler steps of the flow.
        q_agg: how the two critics' values of the next action are joined, see `OF_TWINS`.
        discount: gamma.

    Raises:
        FieldError: a number is out of range, or the word is unknown.
    """

    alpha: float = 10.0
    normalize_q_loss: bool = False
    flow_steps: int = 10
    q_agg: str = "mean"
    discount: float = 0.99

    def __post_init__(self):
        errors.at_least("alpha", self.alpha, 0)
        errors.at_least("flow_steps", self.flow_steps, 1)
        errors.choose_field("q_agg", self.q_agg, OF_TWINS)
        iql.check_discount(self.discount)


# ---- the flow ------------------------------------------------------------------------------------


def flow_loss(velocity: Velocity, action: Actions, key: PRNGKeyArray) -> Scalar:
    """Return the squared error of the velocity on straight lines from noise to the data.

    Args:
        velocity: v.
        action: the data's actions.
        key: of noise and times.

    Example:
        >>> loss = flow_loss(lambda a, t: 0 * a, jnp.zeros((1000, 3)), jax.random.key(0))
        >>> round(float(loss))  # the variance of the noise
        1
    """
    key_z, key_t = jax.random.split(key)
    z = jax.random.normal(key_z, action.shape)
    t = jax.random.uniform(key_t, action.shape[:1])
    a_t = (1 - t)[:, None] * z + t[:, None] * action
    return jnp.mean((velocity(a_t, t) - (action - z)) ** 2)


def follow(velocity: Velocity, z: Actions, steps: int) -> Actions:
    """Return where the flow leads from noise z, by Euler's method, clipped to [-1, 1].

    Example:
        >>> follow(lambda a, t: jnp.ones_like(a), jnp.full((1, 2), -0.5), 4).tolist()
        [[0.5, 0.5]]
    """

    def step(a, t):
        return a + velocity(a, jnp.full(a.shape[0], t)) / steps, None

    return jnp.clip(jax.lax.scan(step, z, jnp.arange(steps) / steps)[0], -1, 1)


# ---- losses of critic and policy -----------------------------------------------------------------


def critic_loss(
    q: Float[Array, "ens batch"], q_next: Float[Array, "ens batch"], method: Fql, batch: Transition
) -> Scalar:
    """Return the squared error of the critics (L_Q).

    Args:
        q: of the data's actions.
        q_next: the targets' values of the policy's next actions.
        method: discount, and how the targets are joined.
        batch: transitions.
    """
    value = OF_TWINS[method.q_agg](q_next, axis=0)
    goal = jax.lax.stop_gradient(batch.rewards + method.discount * batch.masks * value)
    return jnp.mean((q - goal[None]) ** 2)


def policy_loss(
    action: Actions, goal: Actions, q: Callable[[Actions], Float[Array, "ens batch"]], method: Fql
) -> tuple[Scalar, Scalar]:
    """Return (distillation, -Q) of the policy's actions, the two parts of L_mu.

    The former is not multiplied by alpha yet.

    Args:
        action: mu(s, z).
        goal: where the flow leads from the same z.
        q: the critics' values of actions; their weights get no gradient.
        method: whether -Q is normalised.
    """
    value = jnp.mean(q(jnp.clip(action, -1, 1)), axis=0)
    size = jnp.mean(jnp.abs(jax.lax.stop_gradient(value))) + 1e-8 if method.normalize_q_loss else 1
    return jnp.mean((action - jax.lax.stop_gradient(goal)) ** 2), -jnp.mean(value) / size


# ---- the algorithm -------------------------------------------------------------------------------


def make_fql(
    q_net: mlp.MLP,
    flow_net: iql.PlainNetwork,
    policy_net: iql.PlainNetwork,
    method: Fql,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make flow, critic and the one-step policy, which acts and is to be saved live.

    Args:
        q_net: network of Q(s, a), one number.
        flow_net: network of v(s, a, t).
        policy_net: network of mu(s, z).
        method: losses.
        optimiser: how to train; its average is Q', so `ema` is 1 - the rate at which targets
            follow, and `ema_power` should be 0.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.

    Example:
        >>> q_net, flow_net, policy_net = mlp.MLP((8,), 1), mlp.MLP((8,), 3), mlp.MLP((8,), 3)
        >>> optimiser, sizes = train_state.Optimiser(steps=10), {"shape": (1, 3), "cond_dim": 11}
        >>> algorithm = make_fql(q_net, flow_net, policy_net, Fql(), optimiser, **sizes)
        >>> params = algorithm.init(jax.random.key(0)).params
        >>> keys = jax.random.split(jax.random.key(1), 5)
        >>> algorithm.act(params, jnp.zeros((5, 11)), keys).shape
        (5, 1, 3)
    """

    def velocity(params, cond):
        def v(a, t):
            x = jnp.concatenate([cond, a, t[:, None]], axis=-1)
            return flow_net.apply({"params": params["flow"]}, x)

        return v

    def one_step(params, cond, z):
        x = jnp.concatenate([cond, z], axis=-1)
        return policy_net.apply({"params": params["policy"]}, x)

    def init(key):
        key_q, key_flow, key_policy = jax.random.split(key, 3)
        cond, action = jnp.zeros((1, cond_dim)), jnp.zeros((1, shape[-1]))
        x = jnp.concatenate([cond, action], axis=-1)
        params = {
            "q": init_twins(q_net, key_q, cond, action),
            "flow": flow_net.init(key_flow, jnp.pad(x, ((0, 0), (0, 1))))["params"],
            "policy": policy_net.init(key_policy, x)["params"],
        }
        return train_state.create(params, optimiser)

    def update(state, batch: Transition, key):
        key_next, key_flow, key_z = jax.random.split(key, 3)
        action, live = batch.x[:, 0], state.params
        z = jax.random.normal(key_z, action.shape)
        goal = follow(velocity(live, batch.cond), z, method.flow_steps)
        z_next = jax.random.normal(key_next, action.shape)
        next_action = jnp.clip(one_step(live, batch.next_cond, z_next), -1, 1)
        q_next = twins(q_net, state.ema["q"], batch.next_cond, next_action)

        def live_q(a):
            return twins(q_net, live["q"], batch.cond, a)

        def loss_fn(params):
            q = twins(q_net, params["q"], batch.cond, action)
            critic = critic_loss(q, q_next, method, batch)
            flow = flow_loss(velocity(params, batch.cond), action, key_flow)
            jumped = one_step(params, batch.cond, z)
            distill, against_q = policy_loss(jumped, goal, live_q, method)
            total = critic + flow + method.alpha * distill + against_q
            metrics = {"loss": total, "q_loss": critic, "flow": flow, "distill": distill}
            return total, metrics | {"q": jnp.mean(q)}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(live)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        z = jax.vmap(lambda key: jax.random.normal(key, shape[-1:]))(keys)
        return jnp.clip(one_step(params, cond, z), -1, 1)[:, None]

    def value(params, x, cond, key=None):
        return OF_TWINS[method.q_agg](twins(q_net, params["q"], cond, x[:, 0]), axis=0)

    return Algorithm(init, update, act, value)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the algorithm of a configuration."""
    layers = context.section.network
    net = layers.plain(context.shape[1])
    return make_fql(layers.critic(), net, net, context.section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="fql",
        help="train flow Q-learning, a one-step rival",
        make=make,
        fields=Fql,
        network={"mlp": Layers},
        reads=Reads.TRANSITIONS,
        label="FQL",
        colour="#518220",
        order=120,
        values=True,
        tasks=("policy",),
    ),
)
