"""The RACTD student: consistency trajectory distillation with a reward.

RACTD sections 2.3, 3.3 and 5.3; Kim et al. 2023 (CTM). "0" in the equations is sigma_min.

    g(x, t, s) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), c_noise(s), cond)
    G(x, t, s) = s/t x + (1 - s/t) g(x, t, s)                                     `jump`
    L_CTM, L_DSM, L_R and their sum L                     (Eqs. 5 to 9)     `ctm_losses`
    x_0 = G(x_T, T, 0), and with more calls noise again and jump back           `sample`

The losses are in `ctm_losses` and can be reached from here, as `ctm.ctm_loss`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

from ractd_jax import diffusion, edm, errors, reward, train_state
from ractd_jax.config import Config
from ractd_jax.ctm_losses import (
    Keys,
    Models,
    Student,
    Terms,
    advantage_weights,
    call_keys,
    ctm_loss,
    dsm_loss,
    dsm_scale,
    from_noise,
    long_triples,
    loss_terms,
    student_loss,
    triples,
)
from ractd_jax.method import Context, Method, Reads
from ractd_jax.nn.warm_start import warm_start
from ractd_jax.types import (
    Algorithm,
    Batch,
    Cond,
    Jump,
    Levels,
    Network,
    Params,
    Trajectory,
    ValueFunction,
)

__all__ = [
    "CTD",
    "METHODS",
    "STUDENT",
    "Keys",
    "Models",
    "Networks",
    "Student",
    "Terms",
    "advantage_weights",
    "bind",
    "call_keys",
    "chain",
    "ctm_loss",
    "denoised",
    "dsm_loss",
    "dsm_scale",
    "from_noise",
    "jump",
    "long_triples",
    "loss_terms",
    "make",
    "make_student",
    "sample",
    "student_loss",
    "triples",
    "warm_start",
]


def denoised(
    net: Network,
    params: Params,
    noise: diffusion.Noise,
    x: Trajectory,
    t: Levels,
    s: Levels,
    cond: Cond,
    **kwargs: Any,
) -> Trajectory:
    """Return g(x, t, s): what `jump` mixes with x; at s = t it denoises (CTM, section 3).

    Args:
        net: a network of `networks`.
        params: its weights.
        noise: scalings.
        x: noisy trajectories.
        t: noise level of each.
        s: level to jump to, at most t.
        cond: conditions.
        **kwargs: `train` and `rngs` for the network's dropout.
    """
    c_skip, c_out, c_in = map(diffusion.expand, diffusion.scalings(noise, t))
    times = jnp.stack([diffusion.c_noise(t), diffusion.c_noise(s)], axis=-1)
    return c_skip * x + c_out * net.apply({"params": params}, c_in * x, times, cond, **kwargs)


def jump(
    net: Network,
    params: Params,
    noise: diffusion.Noise,
    x: Trajectory,
    t: Levels,
    s: Levels,
    cond: Cond,
    **kwargs: Any,
) -> Trajectory:
    """Return G(x, t, s): where the student says the ODE leads from x at level t to level s.

    Takes what `denoised` takes; s = t returns x.

    Example:
        >>> from ractd_jax import networks
        >>> net, x, cond = networks.ResidualMLP(hidden=8), jnp.ones((5, 16, 3)), jnp.ones((5, 11))
        >>> params = net.init(jax.random.key(0), x, jnp.ones((5, 2)), cond)["params"]
        >>> t, s = jnp.full(5, 80.0), jnp.full(5, 0.02)
        >>> jump(net, params, diffusion.Noise(), x, t, s, cond).shape
        (5, 16, 3)
    """
    g = denoised(net, params, noise, x, t, s, cond, **kwargs)
    ratio = diffusion.expand(s / t)
    return ratio * x + (1 - ratio) * g


# ---- sampling ------------------------------------------------------------------------------------


def chain(noise: diffusion.Noise, nfe: int) -> list[int]:
    """Return the bins at which an action of `nfe` calls is noised again, from high to low level.

    Raises:
        FieldError: so many calls would noise it again to the lowest level, where none changes it.

    Example:
        >>> chain(diffusion.Noise(bins=80), nfe=3)
        [27, 54]
    """
    if nfe > max(noise.bins // 2, 1):
        raise errors.FieldError(
            "nfe",
            f"{{field}} is {nfe}: with noise.bins={noise.bins} at most {noise.bins // 2}, each "
            "from a level of its own above the lowest",
        )
    return [-(-noise.bins * i // nfe) for i in range(1, nfe)]


def sample(
    model: Jump,
    noise: diffusion.Noise,
    nfe: int,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
) -> Trajectory:
    """Draw one trajectory a key with `nfe` network calls (RACTD section 5.3).

    Args:
        model: G.
        noise: the grid of levels, and whether clean predictions are clipped.
        nfe: number of calls.
        keys: one for each trajectory.
        shape: (horizon, dim) of a trajectory.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> sample(lambda x, t, s: 0 * x, diffusion.Noise(), 2, keys, (16, 3)).shape
        (5, 16, 3)
    """
    keys_of_calls = call_keys(keys, nfe)
    x = diffusion.clip(noise, from_noise(model, noise, keys_of_calls[:, 0], shape))
    for call, level_bin in enumerate(chain(noise, nfe), start=1):
        t = jnp.full(x.shape[0], diffusion.sigmas(noise, jnp.asarray(level_bin)))
        eps = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_of_calls[:, call])
        x_t = x + diffusion.expand(t) * eps
        x = diffusion.clip(noise, model(x_t, t, jnp.full_like(t, noise.sigma_min)))
    return x


# ---- the models of an update ---------------------------------------------------------------------


class Networks(NamedTuple):
    """What a student is trained with: its own network, the teacher's, and the critic."""

    student: Network
    teacher: Network
    critic: ValueFunction | None


def bind(
    networks: Networks,
    noise: diffusion.Noise,
    student: Student,
    params: Params,
    state: train_state.TrainState,
    cond: Cond,
    keys: Keys,
) -> Models:
    """Return the models of one update.

    Args:
        networks: what they are made of.
        noise: scalings.
        student: the target's weights and dropout.
        params: the live weights, by which the loss is differentiated.
        state: average and frozen weights.
        cond: conditions.
        keys: of dropout and critic.
    """

    def student_with(
        weights: Params, key: PRNGKeyArray, train: bool = True, function: Any = jump
    ) -> Jump:
        def model(x, t, s, key):
            rngs = {"dropout": key}
            return function(networks.student, weights, noise, x, t, s, cond, train=train, rngs=rngs)

        return diffusion.WithDropout(model, key)

    # The target is a copy that the gradient must not reach (sg(theta) in Eq. 6).
    target = jax.lax.stop_gradient(state.ema if student.target == "ema" else params)

    def teacher(x, t, key):
        kwargs = {"train": student.target_dropout, "rngs": {"dropout": key}}
        if student.guide == "student":
            return denoised(networks.student, target, noise, x, t, t, cond, **kwargs)
        return edm.denoise(networks.teacher, state.frozen["teacher"], noise, x, t, cond, **kwargs)

    critic = None
    if student.uses_critic and networks.critic is not None:
        critic = reward.bind(networks.critic, state.frozen["reward"], cond, keys.critic)
    return Models(
        ctm=student_with(params, keys.dropout_ctm),
        dsm=student_with(
            params, keys.dropout_dsm, function=jump if student.dsm_stop == "zero" else denoised
        ),
        start=student_with(params, keys.dropout_start),
        target=student_with(target, keys.dropout_target, train=student.target_dropout),
        teacher=diffusion.WithDropout(teacher, keys.dropout_teacher),
        critic=critic,
    )


# ---- the algorithm -------------------------------------------------------------------------------


def make_student(
    net: Network,
    teacher_net: Network,
    critic: ValueFunction | None,
    noise: diffusion.Noise,
    student: Student,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
    critic_units: bool = False,
) -> Algorithm:
    """Make the student; its `init(key, frozen)` takes {"teacher": params, "reward": params}.

    Args:
        net: the student's network.
        teacher_net: the teacher's network.
        critic: `(reward_params, x, cond, key) -> (batch,)`; None for a student without reward.
        noise: noise levels and scalings, the teacher's.
        student: losses and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        critic_units: the critic does not predict the data's returns. The advantage of an example
            is then R(s, a) - R(s, student's a), where it is else its return less the latter.

    Raises:
        FieldError: too many network calls, or a reward without a critic.
    """
    chain(noise, student.nfe)  # says so now if there are too many calls
    if student.uses_critic and critic is None:
        field = "reward_weight" if student.reward_weight else "advantage"
        value = getattr(student, field)
        raise errors.FieldError(field, f"{{field}} is {value}: without a critic it takes 0")
    networks = Networks(net, teacher_net, critic)

    def init(key, frozen):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        params = net.init(key, x, jnp.zeros((1, 2)), cond)["params"]
        if student.warm_start:
            params = warm_start(params, frozen["teacher"], getattr(net, "embed_dim", 0))
        return train_state.create(params, optimiser, frozen)

    def update(state, batch: Batch, key):
        def loss_fn(params, key, scale=1.0):
            keys = Keys(*jax.random.split(key, 9))
            models = bind(networks, noise, student, params, state, batch.cond, keys)
            terms, values = loss_terms(models, noise, student, batch, keys, critic_units)
            loss = student_loss(student, terms._replace(dsm=scale * terms.dsm))
            metrics = {"loss": loss, "ctm": terms.ctm, "dsm": terms.dsm}
            if values is not None:
                metrics["return"] = jnp.mean(values)
            return loss, (terms, metrics)

        scale = 1.0
        if student.balance == "gradient":
            scale = dsm_scale(lambda p: loss_fn(p, jax.random.clone(key))[1][0], state.params)
        grads, (_, metrics) = jax.grad(loss_fn, has_aux=True)(state.params, key, scale)
        return train_state.apply_gradients(state, grads, optimiser), metrics

    def act(params, cond, keys):
        def model(x, t, s):
            return jump(net, params, noise, x, t, s, cond)

        return sample(model, noise, student.nfe, keys, shape)

    return Algorithm(init, update, act)


# ---- the stages ----------------------------------------------------------------------------------


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the student of a configuration."""
    # A critic of another kind has units of its own, and the value of a plan is a sum over its
    # states: neither can be compared with the data's returns.
    critic, teacher = context.needed.get("reward"), context.needed["teacher"]
    other_critic = critic is not None and critic.context.stage != reward.REWARD.name
    algorithm = make_student(
        edm.network_of(context),
        edm.network_of(teacher.context),
        reward.critic_of(context),
        context.noise,
        context.section.method,
        optimiser,
        **context.sizes,
        critic_units=other_critic or context.task.kind == "planner",
    )

    def init(key, frozen):
        try:
            return algorithm.init(key, frozen)
        except errors.FieldError as error:  # only here weights show whether networks are alike
            raise error.within(f"{context.stage}.method") from None

    return algorithm._replace(init=init)


def _needs(config: Config, stage: str) -> Mapping[str, str]:
    rewarded = {"reward": config.critic} if config.stages[stage].method.uses_critic else {}
    return {"teacher": "teacher"} | rewarded


def _calls(student: Student) -> int:
    return student.nfe


STUDENT = Method(
    name="student",
    help="distil the RACTD student; trains a missing teacher and return model first",
    make=make,
    fields=Student,
    network=edm.NETWORKS,
    reads=Reads.WINDOWS,
    label="RACTD student",
    colour="#c8384f",
    order=90,
    needs=_needs,
    uses_history=True,
    sampling_fields=("nfe",),
    calls=_calls,
    heeds_precision=True,
    trained_by_all=True,
)
CTD = dataclasses.replace(
    STUDENT,
    name="ctd",
    help="distil a student without reward (consistency trajectory distillation)",
    label="ctd (no reward)",
    colour="#e39a2d",
    order=80,
)
METHODS = (CTD, STUDENT)
