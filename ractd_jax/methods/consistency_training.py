"""Consistency training (CT): a consistency model without a teacher, from data alone.

Song and Dhariwal 2024 (iCT), with CleanDiffuser's details; see `consistency`. In an interval
u = t_i and t = t_{i+1} of N, and x_t = x_0 + t eps:

    L_CT = E[ huber(f(x_t, t), f_sg(x_u, u)) / (t - u) ],   x_u = x_0 + u eps       `ct_loss`

i is drawn where a log-normal density is (iCT, Eq. 10)                              `draw_interval`
while N doubles with the updates (iCT, Eq. 9)                                       `intervals`
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from ractd_jax import diffusion, errors, networks, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods.consistency import (
    NETWORKS,
    Map,
    boundary,
    consistency_map,
    interval,
    level,
    sample,
)
from ractd_jax.types import Algorithm, Batch, Network, Trajectory, Transition, Values

ROUNDINGS = ("floor", "ceil")
TARGET_DROPOUTS = ("same", "own", "none")


@dataclasses.dataclass(frozen=True)
class Training:
    """How a consistency model is trained without a teacher.

    Attributes:
        s0: N of the first updates.
        s1: N of the last updates.
        rounding: of the number of doublings, and of the updates between them: "floor", as
            published, or "ceil", as released.
        p_mean: mean of ln t.
        p_std: standard deviation of ln t.
        huber_c: see `diffusion.distance`; 0 for the customary 0.00054 sqrt(horizon dim).
        target_dropout: in the network that gives the target: "same" units are dropped as in the
            one that learns (iCT, section 3.2), "own", as released, or "none".
        clip: clip f to [-1, 1] while training too, as released; samples outside then teach
            nothing.
        nfe: network calls per action.

    Raises:
        FieldError: a word is unknown, a number is out of range, or s1 is below s0.
    """

    s0: int = 10
    s1: int = 1280
    rounding: str = "floor"
    p_mean: float = -1.1
    p_std: float = 2.0
    huber_c: float = 0.01
    target_dropout: str = "same"
    clip: bool = False
    nfe: int = 1

    def __post_init__(self):
        errors.at_least("s0", self.s0, 1)
        errors.at_least("s1", self.s1, self.s0)
        errors.choose_field("rounding", self.rounding, ROUNDINGS)
        errors.between("p_mean", self.p_mean, -10, 10)  # of a logarithm
        errors.above("p_std", self.p_std, 0)
        errors.at_least("huber_c", self.huber_c, 0)
        errors.choose_field("target_dropout", self.target_dropout, TARGET_DROPOUTS)
        errors.at_least("nfe", self.nfe, 1)


# ---- intervals -----------------------------------------------------------------------------------


def intervals(method: Training, step: Int[Array, "*batch"], steps: int) -> Int[Array, "*batch"]:
    """Return N at update number `step` of `steps`: it doubles from s0 to s1 (iCT, Eq. 9).

    That is min(s0 2^floor(k / K'), s1), where K' = floor(K / (log2 floor(s1 / s0) + 1)).

    Args:
        method: s0, s1 and the rounding.
        step: k.
        steps: K.

    Example:
        >>> intervals(Training(), jnp.array([0, 125_000, 999_999]), 1_000_000).tolist()
        [10, 20, 1280]
    """
    up = method.rounding == "ceil"
    rounded = math.ceil if up else math.floor
    updates = max(rounded(steps / (math.log2(rounded(method.s1 / method.s0)) + 1)), 1)
    return jnp.minimum(method.s0 * 2 ** ((step + up * (updates - 1)) // updates), method.s1)


def draw_interval(
    noise: diffusion.Noise, method: Training, n: Int[Array, ""], key: PRNGKeyArray, batch: int
) -> Int[Array, " {batch}"]:
    """Draw i with probability proportional to erf(z_{i+1}) - erf(z_i) (iCT, Eq. 10).

    With z = (ln t - P_mean) / (sqrt(2) P_std) this is the mass of a log-normal between t_i and
    t_{i+1}. So a level is drawn from it, cut at both ends, and its interval is looked up: there is
    no table of levels, and n may change from update to update without another compilation.

    Args:
        noise: levels.
        method: P_mean and P_std.
        n: intervals.
        key: a fresh one.
        batch: how many to draw.
    """
    ends = jnp.log(jnp.array([noise.sigma_min, noise.sigma_max]))
    low, high = (ends - method.p_mean) / method.p_std
    z = jax.random.truncated_normal(key, low, high, (batch,))
    return interval(noise, jnp.exp(method.p_mean + method.p_std * z), n)


# ---- loss ----------------------------------------------------------------------------------------


def ct_loss(
    model: Map,
    target: Map,
    noise: diffusion.Noise,
    method: Training,
    n: Int[Array, ""],
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Values:
    """Return L_CT of each example; the gradient reaches `model` only (iCT, section 3).

    Args:
        model: f of the live weights.
        target: the same, with its own dropout.
        noise: levels.
        method: how levels are drawn, and the distance.
        n: intervals.
        x_0: clean trajectories.
        key: of intervals and noise.

    Example:
        >>> x_0, zero = jnp.zeros((5, 1, 3)), lambda x, t: 0 * x
        >>> method, key = Training(), jax.random.key(0)
        >>> ct_loss(zero, zero, diffusion.Noise(), method, jnp.asarray(10), x_0, key).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    key_i, key_eps = jax.random.split(key)
    i = draw_interval(noise, method, n, key_i, x_0.shape[0])
    u, t = level(noise, i, n), level(noise, i + 1, n)
    eps = jax.random.normal(key_eps, x_0.shape)
    p = model(x_0 + diffusion.expand(t) * eps, t)
    q = jax.lax.stop_gradient(target(x_0 + diffusion.expand(u) * eps, u))
    return diffusion.distance("huber", p, q, method.huber_c) / (t - u)


# ---- the algorithm -------------------------------------------------------------------------------


def make_ct(
    net: Network,
    noise: diffusion.Noise,
    method: Training,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the model that is trained without a teacher.

    Args:
        net: a network of `networks`.
        noise: noise levels and scalings.
        method: loss, curriculum and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
    """
    bounded = boundary(noise)

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout, key_own = jax.random.split(key, 3)
        n = intervals(method, state.step, optimiser.steps)

        def f(params, key, train=True):
            kwargs = {"train": train, "rngs": {"dropout": key}, "clip": method.clip}
            return consistency_map(net, params, bounded, batch.cond, **kwargs)

        def loss_fn(params):
            same = method.target_dropout == "same"
            target = f(
                params,
                jax.random.clone(key_dropout) if same else key_own,
                train=method.target_dropout != "none",
            )
            model = f(params, key_dropout)
            return jnp.mean(ct_loss(model, target, bounded, method, n, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        metrics = {"loss": value, "intervals": n.astype(jnp.float32)}
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        return sample(consistency_map(net, params, bounded, cond), bounded, method.nfe, keys, shape)

    return Algorithm(init, update, act)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the model of a configuration."""
    section = context.section
    net = networks.in_precision(section.network, context.config.training.precision)
    return make_ct(net, context.noise, section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="ct",
        help="train a consistency model without a teacher (improved consistency training)",
        make=make,
        fields=Training,
        network=NETWORKS,
        reads=Reads.TRANSITIONS,
        label="consistency, trained",
        colour="#d0a49e",
        order=40,
        sampling_fields=("nfe",),
        calls=lambda fields: fields.nfe,
        heeds_precision=True,
        tasks=("policy",),
    ),
)
