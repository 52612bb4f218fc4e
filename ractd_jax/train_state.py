"""Training state and optimiser: immutable, built inside jit, one pytree for checkpoints."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from ractd_jax import errors
from ractd_jax.types import Params

SCHEDULES = ("cosine", "constant")


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """AdamW, its learning rate, and the average of the weights.

    Attributes:
        steps: updates in the whole run; 0 where the epochs say how many.
        batch_size: windows per update.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay.
        b1: decay of the first moment.
        b2: decay of the second moment.
        warmup: updates of linear warm-up.
        ema: largest decay of the averaged weights; 0 makes them the live weights.
        ema_power: the k-th update averages with decay min(ema, 1 - k^-ema_power); 0 switches this
            warm-up of the average off.
        schedule: of the learning rate after its warm-up: "cosine" decay to 0 at `steps`, as RACTD's
            models were trained, or "constant".
        clip: largest length of the gradient of each entry of the weights, which in methods of
            several networks is each network; 0: any.
        axis: name of the mapped axis (devices, each with a share of the batch) over which
            gradients are averaged; "" for a program that has none.

    Raises:
        FieldError: a number with which nothing can be trained.

    Example:
        >>> Optimiser(b1=1.5)
        Traceback (most recent call last):
        ...
        ractd_jax.errors.FieldError: b1 is 1.5: at least 0 and below 1
    """

    steps: int = 0
    batch_size: int = 256
    learning_rate: float = 1e-4
    weight_decay: float = 1e-6
    b1: float = 0.95
    b2: float = 0.999
    warmup: int = 500
    ema: float = 0.9999
    ema_power: float = 0.75
    schedule: str = "cosine"
    clip: float = 0.0
    axis: str = dataclasses.field(default="", metadata={"internal": True})

    def __post_init__(self):
        for field in ("steps", "weight_decay", "warmup", "ema_power", "clip"):
            errors.at_least(field, getattr(self, field), 0)
        errors.at_least("batch_size", self.batch_size, 1)
        errors.above("learning_rate", self.learning_rate, 0)
        errors.between("learning_rate", self.learning_rate, 0, 10)
        for field in ("b1", "b2"):
            decay = getattr(self, field)
            if not 0 <= decay < 1:
                raise errors.FieldError(field, f"{{field}} is {decay}: at least 0 and below 1")
        errors.between("ema", self.ema, 0, 1)
        errors.choose_field("schedule", self.schedule, SCHEDULES)


@typing.no_type_check  # JAX rebuilds pytrees with leaves that are not arrays
@struct.dataclass
class TrainState:
    """Everything an update changes, and the frozen models it looks at.

    Attributes:
        step: number of updates made.
        params: live weights.
        ema: averaged weights, those that act.
        opt_state: moments of the optimiser.
        frozen: weights of earlier stages (teacher, return model); never changed.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    opt_state: Params
    frozen: Params


def transformation(optimiser: Optimiser) -> optax.GradientTransformation:
    """Return the optimiser as an optax transformation.

    Example:
        >>> updates = transformation(Optimiser(steps=10))
        >>> state = updates.init({"w": jnp.zeros(3)})
    """
    peak, warmup = optimiser.learning_rate, optimiser.warmup
    if optimiser.schedule == "constant":
        # Optax takes a warmup of no updates for one that never ends.
        rate = optax.warmup_constant_schedule(0.0, peak, warmup) if warmup else peak
    else:
        last = max(optimiser.steps, warmup + 1)
        rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, last)
    return optax.adamw(
        rate, b1=optimiser.b1, b2=optimiser.b2, eps=1e-8, weight_decay=optimiser.weight_decay
    )


def create(params: Params, optimiser: Optimiser, frozen: Params = None) -> TrainState:
    """Return the state before the first update; the average starts at the weights themselves.

    Args:
        params: the first weights.
        optimiser: how they will be trained.
        frozen: weights of earlier stages, by the role they play.

    Example:
        >>> state = create({"w": jnp.zeros(3)}, Optimiser(steps=10))
        >>> int(state.step)
        0
    """
    # A copy, because a donated state must not hold one buffer twice.
    ema = jax.tree.map(jnp.copy, params)
    opt_state = transformation(optimiser).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, opt_state, frozen)


def ema_decay(optimiser: Optimiser, step: Int[Array, ""]) -> Float[Array, ""]:
    """Return the decay of the average at update number `step`, counted from 0.

    Example:
        >>> float(ema_decay(Optimiser(ema=0.5, ema_power=0.0), jnp.array(7)))
        0.5
    """
    if not optimiser.ema_power:
        return jnp.float32(optimiser.ema)
    # Nothing is averaged in the first two updates (k = 0, 1), as published.
    return jnp.clip(1 - jnp.maximum(step, 1.0) ** -optimiser.ema_power, 0.0, optimiser.ema)


def clip(grads: Params, length: float) -> Params:
    """Return the gradients, shortened to a length if they are longer.

    Example:
        >>> clip({"w": jnp.array([3.0, 4.0])}, 1.0)["w"].round(1).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    shorten = optax.clip_by_global_norm(length)
    return shorten.update(grads, shorten.init(grads))[0]


def apply_gradients(state: TrainState, grads: Params, optimiser: Optimiser) -> TrainState:
    """Return the state after one optimiser step and one step of the average.

    Every method ends its update here, so this is where the devices' gradients meet.

    Args:
        state: before the update.
        grads: of the loss by `state.params`, and of the same structure.
        optimiser: the one that the state was created with.

    Example:
        >>> optimiser = Optimiser(steps=10, warmup=0, learning_rate=0.1, weight_decay=0.0)
        >>> state = create({"w": jnp.array(1.0)}, optimiser)
        >>> state = apply_gradients(state, {"w": jnp.array(5.0)}, optimiser)
        >>> int(state.step), round(float(state.params["w"]), 3)
        (1, 0.9)
    """
    if optimiser.axis:
        grads = jax.lax.pmean(grads, optimiser.axis)
    if optimiser.clip:
        grads = {name: clip(entry, optimiser.clip) for name, entry in grads.items()}
    updates, opt_state = transformation(optimiser).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optax.incremental_update(params, state.ema, 1 - ema_decay(optimiser, state.step))
    return TrainState(state.step + 1, params, ema, opt_state, state.frozen)
