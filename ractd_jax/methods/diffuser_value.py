"""The value that guides Diffuser: the return that a noisy plan leads to.

Janner et al. 2022, section 3.1: V(x_t, t) learns by squared error the normalised return-to-go of
the first step of the clean plan. Horizon and schedule are those of the section `diffuser`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ractd_jax import networks, train_state
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods.ddpm import Steps
from ractd_jax.methods.inpainting import apply, first_weights, inpaint, noisy_plans
from ractd_jax.types import Algorithm, Batch, Network, Params, Trajectory, Values


@dataclasses.dataclass(frozen=True)
class DiffuserValue:
    """The value has no fields of its own: horizon and schedule are those of `diffuser.method`."""


def value_of(net: Network, params: Params, x: Trajectory, t: Steps, **kwargs: Any) -> Values:
    """Return V(x_t, t): the mean of what a network gives for each plan.

    Args:
        net: `networks.ValueUnet1D`, which gives one number, or any denoising network.
        params: its weights.
        x: noisy plans.
        t: their steps.
        **kwargs: `train` and `rngs` for the network's dropout.
    """
    return jnp.mean(apply(net, params, x, t, **kwargs).reshape(len(x), -1), axis=1)


def make_value(
    net: Network,
    steps: int,
    optimiser: train_state.Optimiser,
    *,
    horizon: int,
    act_dim: int,
    obs_dim: int,
) -> Algorithm:
    """Make the value that guides: the normalised return-to-go of a noisy plan's first step.

    Args:
        net: `networks.ValueUnet1D`, or any denoising network: its output's mean is then the value.
        steps: of the schedule.
        optimiser: how to train.
        horizon: steps of a plan.
        act_dim: size of an action.
        obs_dim: size of a state.
    """

    def init(key):
        weights = first_weights(net, key, (horizon, act_dim + obs_dim))
        return train_state.create(weights, optimiser)

    def update(state, batch: Batch, key):
        key_noise, key_dropout = jax.random.split(key)

        def loss_fn(params):
            x, t = noisy_plans(steps, lambda x: inpaint(x, batch.cond, act_dim), batch.x, key_noise)
            values = value_of(net, params, x, t, train=True, rngs={"dropout": key_dropout})
            return jnp.mean((values - batch.returns) ** 2)

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    return Algorithm(init, update, None)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the value of a configuration."""
    task, config = context.task, context.config
    return make_value(
        networks.in_precision(context.section.network, config.training.precision),
        config.stages["diffuser"].method.steps,
        optimiser,
        horizon=context.horizon,
        act_dim=task.act_dim,
        obs_dim=task.obs_dim,
    )


def horizon(config: Config) -> int:
    """Return the steps of a plan."""
    return config.stages["diffuser"].method.horizon or config.data.horizon


def _depends(config: Config) -> Mapping[str, Any]:
    fields = config.stages["diffuser"].method
    return {f"diffuser.method.{name}": getattr(fields, name) for name in ("horizon", "steps")}


METHODS = (
    Method(
        name="diffuser_value",
        help="train the value that guides Diffuser (not in mazes, where the goal does)",
        make=make,
        fields=DiffuserValue,
        network={
            "value_unet": networks.ValueUnet1D,
            "mlp": networks.ResidualMLP,
            "unet": networks.ConditionalUnet1D,
        },
        reads=Reads.STATE_ACTION,
        label="Diffuser's value",
        colour="#8ce2d7",
        order=-20,
        acts=False,
        horizon=horizon,
        depends=_depends,
        row=False,
        heeds_precision=True,
        tasks=("policy",),
    ),
)
