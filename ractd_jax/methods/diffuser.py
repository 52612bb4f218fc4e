"""Diffuser: a DDPM of whole ways, state and action at every step, that a value guides.

Janner et al. 2022, "Planning with Diffusion for Flexible Behavior Synthesis"; the rival with long
plans in RACTD's tables. A row of x is (action, state), the condition is no input of the network:

    x <- x with the known states in their places, after every step                 `inpaint`
    L = E |w (x_0 - F(x_t, t))|^2                                                  `loss`
    x_t <- x_t + scale var(x_{t-1} | x_t, x_0) dV(x_t, t)/dx_t, a few times        `guided`
    x_{t-1} ~ q(x_{t-1} | x_t, F(x_t, t))                                          `sample`

Known are the first state and, in mazes, the last. There nothing guides, the ends do. For locomotion
V is a network for the return of noisy plans (`make_value`), and of many plans the one it likes best
gives its first action. Schedule and posterior are those of `ddpm`; the network predicts x_0.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ractd_jax import errors, reward, train_state
from ractd_jax.methods import ddpm
from ractd_jax.types import Algorithm, Batch, Params

Trajectory = Float[Array, "batch horizon dim"]
Steps = ddpm.Steps
Known = Callable[[Trajectory], Trajectory]  # puts the known states in their places


@dataclasses.dataclass(frozen=True)
class Diffuser:
    """How Diffuser learns and plans.

    Attributes:
        horizon: steps of a plan; 0 for `data.horizon`.
        steps: of the schedule; every one is a network call.
        action_weight: of the first action in the loss.
        clip: clip predictions of x_0 to [-1, 1] when sampling.
        guide_steps: along the value's gradient at each step of the schedule; 0 for a planner that
            knows no value.
        guide_scale: length of these, per unit of the return.
        guide_stop: the last steps of the schedule are not guided, so many.
        plans: to choose from.
    """

    horizon: int = 0
    steps: int = 20
    action_weight: float = 10.0
    clip: bool = False
    guide_steps: int = 2
    guide_scale: float = 0.1
    guide_stop: int = 2
    plans: int = 64

    def __post_init__(self):
        if self.steps < 1 or self.plans < 1 or self.guide_steps < 0:
            raise errors.UserError(
                "diffuser.method: steps and plans start at 1, guide_steps at 0, not "
                f"{self.steps}, {self.plans}, {self.guide_steps}"
            )


# ---- what is known -----------------------------------------------------------------------------


def inpaint(x: Trajectory, cond: Float[Array, "batch cond"], act_dim: int) -> Trajectory:
    """Return x with the states of `cond` in their places: the first, then, if there, the last.

    Args:
        x: rows of (action, state).
        cond: one state, or two side by side.
        act_dim: size of an action.
    """
    states = cond.reshape(len(cond), -1, x.shape[-1] - act_dim)
    for index, place in zip(range(states.shape[1]), (0, -1), strict=False):
        x = x.at[:, place, act_dim:].set(states[:, index])
    return x


# ---- losses ------------------------------------------------------------------------------------


def noised(
    diffuser: Diffuser, known: Known, x_0: Trajectory, key: PRNGKeyArray
) -> tuple[Trajectory, Steps]:
    """Return (x_t, t) at a random step of the schedule, what is known without noise."""
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, diffuser.steps + 1)
    eps = jax.random.normal(key_eps, x_0.shape)
    return known(ddpm.noised(ddpm.alpha_bars(diffuser.steps)[t], x_0, eps)), t


def loss(
    predictor: ddpm.Predictor,
    diffuser: Diffuser,
    known: Known,
    x_0: Trajectory,
    key: PRNGKeyArray,
    act_dim: int,
) -> Float[Array, " batch"]:
    """Return the weighted squared error of the predicted x_0; what is known counts as right."""
    x_t, t = noised(diffuser, known, x_0, key)
    weights = jnp.ones(x_0.shape[1:]).at[0, :act_dim].set(diffuser.action_weight)
    error = known(predictor(x_t, t)) - known(x_0)
    return jnp.mean(weights[None] * error**2, axis=(1, 2))


# ---- planning ----------------------------------------------------------------------------------


def guided(
    value: Callable[[Trajectory], Float[Array, " batch"]],
    known: Known,
    x: Trajectory,
    size: Float[Array, ""],
    steps: int,
) -> tuple[Trajectory, Float[Array, " batch"]]:
    """Climb the value, x <- x + size dV/dx, `steps` times; return (x, V before the last time)."""

    def climb(x, _):
        values, slope = reward.value_and_slope(value, x)
        return known(x + size * slope), values

    x, values = jax.lax.scan(climb, x, None, length=steps)
    return x, values[-1]


def sample(
    predictor: ddpm.Predictor,
    diffuser: Diffuser,
    known: Known,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
    value: Callable[[Trajectory, Steps], Float[Array, " batch"]] | None = None,
) -> tuple[Trajectory, Float[Array, " batch"]]:
    """Draw one plan a key; return the plans and what they are worth, 0 where nothing guides.

    Args:
        predictor: of x_0.
        diffuser: schedule and guidance.
        known: in-painting.
        keys: one for each row.
        shape: (horizon, dim) of a plan.
        value: of noisy plans, `(x, t) -> return`.
    """
    schedule = ddpm.Ddpm(diffuser.steps, sample_steps=diffuser.steps)
    steps, a = ddpm.visited(schedule), ddpm.alpha_bars(diffuser.steps)[::-1]

    def draw(t):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

    def step(carry, now):
        x, values = carry
        t, t_next, a, a_next = now
        times = jnp.full(len(x), t)
        if value is not None and diffuser.guide_steps:
            _, deviation = ddpm.posterior(x, x, a, a_next)
            size = jnp.where(t > diffuser.guide_stop, diffuser.guide_scale * deviation**2, 0.0)
            x, values = guided(lambda x: value(x, times), known, x, size, diffuser.guide_steps)
        x_0 = predictor(x, times)
        x_0 = jnp.clip(x_0, -1, 1) if diffuser.clip else x_0
        mean, deviation = ddpm.posterior(x, x_0, a, a_next)
        return (known(mean + deviation * draw(t_next)), values), None

    start = known(draw(steps[0])), jnp.zeros(len(keys))
    return jax.lax.scan(step, start, (steps[:-1], steps[1:], a[:-1], a[1:]))[0]


# ---- the algorithms ----------------------------------------------------------------------------


def make_diffuser(
    net,
    value_net,
    diffuser: Diffuser,
    optimiser: train_state.Optimiser,
    *,
    horizon: int,
    act_dim: int,
    obs_dim: int,
    gives: str,
) -> Algorithm:
    """Make the planner. With guidance `init(key, frozen)` takes {"diffuser_value": params}.

    What acts is {"plan": weights}, and with guidance also "value", the frozen weights, and "unit",
    the return that a normalised return of 1 stands for.

    Args:
        net: a network of `networks`, given an empty condition.
        value_net: that of `make_value`; None without guidance.
        diffuser: loss, sampler, guidance.
        optimiser: how to train.
        horizon: steps of a plan.
        act_dim: size of an action.
        obs_dim: size of a state.
        gives: what `act` returns of the best plan, its "actions" or its "states".
    """
    shape = horizon, act_dim + obs_dim
    shown = slice(act_dim) if gives == "actions" else slice(act_dim, None)
    with_value = bool(diffuser.guide_steps)

    def known_in(cond):
        return lambda x: inpaint(x, cond, act_dim)

    def init(key, frozen=None):
        return train_state.create(_init(net, key, shape), optimiser, frozen)

    def update(state, batch: Batch, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            def predictor(x, t):
                return _apply(net, params, x, t, train=True, rngs={"dropout": key_dropout})

            known = known_in(batch.cond)
            return jnp.mean(loss(predictor, diffuser, known, batch.x, key_loss, act_dim))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def inference_params(params, frozen, limits):
        if not with_value:
            return {"plan": params}
        unit = 1 / limits.returns.scale
        return {"plan": params, "value": frozen["diffuser_value"], "unit": unit}

    def act(params, cond, keys):
        rows, count = len(cond), diffuser.plans if with_value else 1
        known = known_in(jnp.repeat(cond, count, axis=0))
        keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)

        def predictor(x, t):
            return _apply(net, params["plan"], x, t)

        def value(x, t):
            return params["unit"] * _value(value_net, params["value"], x, t)

        x, values = sample(predictor, diffuser, known, keys, shape, value if with_value else None)
        best = jnp.argmax(values.reshape(rows, count), axis=1)
        return x.reshape(rows, count, *shape)[jnp.arange(rows), best][..., shown]

    return Algorithm(init, update, act, inference_params=inference_params)


def make_value(
    net,
    diffuser: Diffuser,
    optimiser: train_state.Optimiser,
    *,
    horizon: int,
    act_dim: int,
    obs_dim: int,
) -> Algorithm:
    """Make the value that guides: the normalised return-to-go of a noisy plan's first step.

    Args:
        net: `networks.ValueUnet1D`, or any denoising network: its output's mean is then the value.
        diffuser: the schedule.
        optimiser: how to train.
        horizon: steps of a plan.
        act_dim: size of an action.
        obs_dim: size of a state.
    """

    def init(key):
        return train_state.create(_init(net, key, (horizon, act_dim + obs_dim)), optimiser)

    def update(state, batch: Batch, key):
        key_noise, key_dropout = jax.random.split(key)

        def loss_fn(params):
            x, t = noised(diffuser, lambda x: inpaint(x, batch.cond, act_dim), batch.x, key_noise)
            values = _value(net, params, x, t, train=True, rngs={"dropout": key_dropout})
            return jnp.mean((values - batch.returns) ** 2)

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    return Algorithm(init, update, None)


def _apply(net, params: Params, x: Trajectory, t: Steps, **kwargs):
    return net.apply({"params": params}, x, t[:, None].astype(x.dtype), x[:, 0, :0], **kwargs)


def _value(net, params: Params, x: Trajectory, t: Steps, **kwargs) -> Float[Array, " batch"]:
    return jnp.mean(_apply(net, params, x, t, **kwargs).reshape(len(x), -1), axis=1)


def _init(net, key, shape: tuple[int, int]) -> Params:
    return net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1, 1)), jnp.zeros((1, 0)))["params"]
