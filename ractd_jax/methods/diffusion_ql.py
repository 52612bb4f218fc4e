"""Diffusion-QL: a diffusion policy whose whole sampling chain is pulled towards a critic's best.

Wang, Hunt and Zhou 2023. The policy is a DDPM of few steps (`ddpm`); samples are differentiated
through all of them.

    L_d  = E |F(a_t, t, s) - eps|^2                                              `ddpm.loss`
    L_q  = -E[ Q_i(s, a) ] / E|Q_j(s, a)|,  a sampled, {i, j} = {1, 2} at random `q_loss`
    L_pi = L_d + eta L_q                                                         (Eq. 3)
    L_Q  = E[ sum_i (r + gamma (1 - done) min_j Q'_j(s', a') - Q_i(s, a))^2 ]    `critic_loss`

with a' drawn by the average of the policy's weights and Q' that of the critic's. Acting draws
candidates, 50 as published, and lets the critic choose among them (section `selection`).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ractd_jax import errors, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import ddpm, iql, vp_schedule
from ractd_jax.nn import denoising_mlp, mlp
from ractd_jax.nn.mlp import init_twins, twins
from ractd_jax.types import Algorithm, Network, Params, Scalar, Transition


@dataclasses.dataclass(frozen=True)
class Layers(iql.Layers):
    """The hidden layers of policy and critic.

    Attributes:
        hidden: width of each hidden layer.
        activation: after each, see `activations.ACTIVATIONS`.
        layer_norm: of the critic: "" for none, "before" or "after" the activation.
        embed_dim: size of the embedding of the policy's step.
    """

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "mish"
    layer_norm: str = ""
    embed_dim: int = 16


@dataclasses.dataclass(frozen=True)
class DiffusionQl:
    """How policy and critic learn.

    Attributes:
        eta: weight of the critic against that of the data.
        discount: gamma.
        steps: of the diffusion, and network calls for each candidate.
        schedule: of its noise, see `vp_schedule.SCHEDULES`.

    Raises:
        FieldError: a number is out of range, or the word is unknown.
    """

    eta: float = 1.0
    discount: float = 0.99
    steps: int = 5
    schedule: str = "vp"

    def __post_init__(self):
        errors.at_least("eta", self.eta, 0)
        iql.check_discount(self.discount)
        errors.at_least("steps", self.steps, 1)
        errors.choose_field("schedule", self.schedule, vp_schedule.SCHEDULES)


# ---- losses --------------------------------------------------------------------------------------


def critic_loss(
    q: Float[Array, "ens batch"],
    q_next: Float[Array, "ens batch"],
    discount: float,
    batch: Transition,
) -> Scalar:
    """Return the squared errors of the critics, added.

    Args:
        q: of the data's actions.
        q_next: the targets' values of the policy's next actions; the smaller counts.
        discount: gamma.
        batch: transitions.
    """
    goal = batch.rewards + discount * batch.masks * jnp.min(q_next, axis=0)
    return jnp.mean(jnp.sum((q - jax.lax.stop_gradient(goal)[None]) ** 2, axis=0))


def q_loss(q: Float[Array, "2 batch"], key: PRNGKeyArray) -> Scalar:
    """Return -E[Q_i] / E|Q_j|, {i, j} = {1, 2} at random: the same for rewards of any unit (Eq. 3).

    Args:
        q: the critics' values of the policy's actions.
        key: says which critic is which.

    Example:
        >>> float(q_loss(jnp.full((2, 4), 5.0), jax.random.key(0)))
        -1.0
    """
    q = jnp.where(jax.random.bernoulli(key), q, q[::-1])
    return -jnp.mean(q[0]) / (jnp.mean(jnp.abs(jax.lax.stop_gradient(q[1]))) + 1e-8)


# ---- the algorithm -------------------------------------------------------------------------------


def make_diffusion_ql(
    net: Network,
    q_net: mlp.MLP,
    method: DiffusionQl,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make policy and critic; averaged weights act and value.

    Args:
        net: the policy's network F(x, times, cond); its times are the numbers of the steps.
        q_net: network of Q(s, a), one number.
        method: losses and diffusion.
        optimiser: how to train; its average gives both targets, so `ema` is 1 - the rate at which
            they follow, and `ema_power` should be 0.
        shape: (1, dim) of an action.
        cond_dim: size of an observation.
    """
    chain = ddpm.Ddpm(method.steps, "ddpm", method.steps, method.schedule)

    def predictor(params: Params, cond):
        def predict(x, t):
            return net.apply({"params": params["policy"]}, x, t[:, None].astype(x.dtype), cond)

        return predict

    def act(params, cond, keys):
        return ddpm.sample(predictor(params, cond), chain, keys, shape, clip=True)

    def init(key):
        key_q, key_policy = jax.random.split(key)
        cond, action = jnp.zeros((1, cond_dim)), jnp.zeros((1, shape[-1]))
        params = {
            "q": init_twins(q_net, key_q, cond, action),
            "policy": net.init(key_policy, action[:, None], jnp.zeros((1, 1)), cond)["params"],
        }
        return train_state.create(params, optimiser)

    def update(state, batch: Transition, key):
        key_next, key_data, key_chain, key_pair = jax.random.split(key, 4)
        rows = len(batch.x)
        x_next = act(state.ema, batch.next_cond, jax.random.split(key_next, rows))
        q_next = twins(q_net, state.ema["q"], batch.next_cond, x_next[:, 0])

        def loss_fn(params):
            q = twins(q_net, params["q"], batch.cond, batch.x[:, 0])
            critic = critic_loss(q, q_next, method.discount, batch)
            imitation = jnp.mean(ddpm.loss(predictor(params, batch.cond), chain, batch.x, key_data))
            x = act(params, batch.cond, jax.random.split(key_chain, rows))
            # The critic's live weights, out of the gradient's reach.
            pull = q_loss(twins(q_net, state.params["q"], batch.cond, x[:, 0]), key_pair)
            total = critic + imitation + method.eta * pull
            metrics = {"loss": total, "q_loss": critic, "imitation": imitation}
            return total, metrics | {"q": jnp.mean(q)}

        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def value(params, x, cond, key=None):
        return jnp.min(twins(q_net, params["q"], cond, x[:, 0]), axis=0)

    return Algorithm(init, update, act, value)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make policy and critic of a configuration."""
    layers = context.section.network
    net = denoising_mlp.StepMLP(layers.hidden, layers.embed_dim, layers.activation)
    return make_diffusion_ql(
        net, layers.critic(), context.section.method, optimiser, **context.sizes
    )


METHODS = (
    Method(
        name="dql",
        help="train Diffusion-QL, a rival of five steps that its critic chooses among",
        make=make,
        fields=DiffusionQl,
        network={"mlp": Layers},
        reads=Reads.TRANSITIONS,
        label="Diffusion-QL",
        colour="#4b3d24",
        order=130,
        values=True,
        calls=lambda fields: fields.steps,
        tasks=("policy",),
    ),
)
