"""Consistency distillation (CD): a consistency model that follows a teacher's steps.

Song et al. 2023 (CM), Algorithm 2, with CleanDiffuser's details; see `consistency`. In an interval
u = t_i and t = t_{i+1} of N, i drawn uniformly, and x_t = x_0 + t eps:

    L_CD = E[ |f(x_t, t) - f_ema(x_u, u)|^2 / (t - u) ]                          `cd_loss`
    x_u  = Euler(x_t, t, u; teacher)                                             `edm.euler`
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ractd_jax import diffusion, edm, errors, networks, train_state
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods.consistency import (
    NETWORKS,
    Map,
    boundary,
    consistency_map,
    level,
    sample,
)
from ractd_jax.types import Algorithm, Batch, Denoiser, Network, Trajectory, Transition, Values

WEIGHTS = ("interval", "one")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How a consistency model is distilled.

    Attributes:
        intervals: N.
        weight: of each example: "interval", 1 / (t - u), as in CleanDiffuser, or "one", as in CM.
            The former weighs the lowest level some thousand times more than the highest, which is
            where the single call of `nfe` 1 is made.
        clip: clip f to [-1, 1] while training too, as released; samples outside then teach
            nothing.
        warm_start: start from the teacher's weights.
        nfe: network calls per action.

    Raises:
        FieldError: a word is unknown, or a number is below 1.
    """

    intervals: int = 18
    weight: str = "interval"
    clip: bool = False
    warm_start: bool = True
    nfe: int = 1

    def __post_init__(self):
        errors.at_least("intervals", self.intervals, 1)
        errors.choose_field("weight", self.weight, WEIGHTS)
        errors.at_least("nfe", self.nfe, 1)


def cd_loss(
    model: Map,
    target: Map,
    teacher: Denoiser,
    noise: diffusion.Noise,
    method: Distillation,
    x_0: Trajectory,
    key: PRNGKeyArray,
) -> Values:
    """Return L_CD of each example; the gradient reaches `model` only (CM, Eq. 7).

    Args:
        model: f of the live weights.
        target: f of the averaged weights.
        teacher: D, whose ODE Euler's step follows.
        noise: levels.
        method: intervals and weights.
        x_0: clean trajectories.
        key: of intervals and noise.

    Example:
        >>> x_0, zero = jnp.zeros((5, 1, 3)), lambda x, t: 0 * x
        >>> method, key = Distillation(), jax.random.key(0)
        >>> cd_loss(zero, zero, zero, diffusion.Noise(), method, x_0, key).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    key_i, key_eps = jax.random.split(key)
    n = method.intervals
    i = jax.random.randint(key_i, x_0.shape[:1], 0, n)
    u, t = level(noise, i, n), level(noise, i + 1, n)
    x_t = x_0 + diffusion.expand(t) * jax.random.normal(key_eps, x_0.shape)
    x_u = edm.euler(teacher, x_t, t, u)
    goal = jax.lax.stop_gradient(target(x_u, u))
    losses = diffusion.distance("squared", model(x_t, t), goal)
    return losses / (t - u) if method.weight == "interval" else losses


def make_cd(
    net: Network,
    teacher_net: Network,
    noise: diffusion.Noise,
    method: Distillation,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the distilled model; its `init(key, frozen)` takes {"teacher": params}.

    Args:
        net: a network of `networks`.
        teacher_net: the teacher's network, of the same kind and size for a warm start.
        noise: the teacher's noise levels and scalings.
        method: loss and sampler.
        optimiser: how to train; its average gives the targets.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.

    Raises:
        FieldError: a warm start is asked for, and the networks differ.
    """
    bounded = boundary(noise)
    example = jnp.zeros((1, *shape)), jnp.zeros((1, 1)), jnp.zeros((1, cond_dim))
    if method.warm_start:
        _check_alike(net, teacher_net, example)

    def init(key, frozen):
        if method.warm_start:  # a copy, for the frozen teacher's own buffers live on
            params = jax.tree.map(jnp.copy, frozen["teacher"])
        else:
            params = net.init(key, *example)["params"]
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch | Transition, key):
        key_loss, key_dropout = jax.random.split(key)

        def teacher(x, t):
            return edm.denoise(teacher_net, state.frozen["teacher"], noise, x, t, batch.cond)

        def loss_fn(params):
            kwargs = {"train": True, "rngs": {"dropout": key_dropout}, "clip": method.clip}
            model = consistency_map(net, params, bounded, batch.cond, **kwargs)
            target = consistency_map(net, state.ema, bounded, batch.cond, clip=method.clip)
            losses = cd_loss(model, target, teacher, bounded, method, batch.x, key_loss)
            return jnp.mean(losses)

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        return sample(consistency_map(net, params, bounded, cond), bounded, method.nfe, keys, shape)

    return Algorithm(init, update, act)


def _check_alike(net: Network, teacher_net: Network, example: tuple) -> None:
    """Refuse two networks whose weights differ in shape."""
    shapes = [
        jax.eval_shape(lambda n=n: n.init(jax.random.key(0), *example)["params"])
        for n in (net, teacher_net)
    ]
    if shapes[0] != shapes[1]:
        raise errors.FieldError(
            "warm_start",
            "{field} copies the teacher's weights, so both need networks of the same kind and "
            "size: make cd.network like edm_bc.network, or set it to False",
        )


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the distilled model of a configuration; it heeds the teacher's noise levels."""
    precision, teacher = context.config.training.precision, context.needed["teacher"].context
    return make_cd(
        networks.in_precision(context.section.network, precision),
        networks.in_precision(teacher.section.network, precision),
        teacher.noise,
        context.section.method,
        optimiser,
        **context.sizes,
    )


def _needs(config: Config, stage: str) -> Mapping[str, str]:
    del config, stage
    return {"teacher": "edm_bc"}


METHODS = (
    Method(
        name="cd",
        help="distil edm_bc into a consistency model (consistency distillation)",
        make=make,
        fields=Distillation,
        network=NETWORKS,
        reads=Reads.TRANSITIONS,
        label="consistency, distilled",
        colour="#511659",
        order=30,
        needs=_needs,
        sampling_fields=("nfe",),
        calls=lambda fields: fields.nfe,
        heeds_precision=True,
        tasks=("policy",),
    ),
)
