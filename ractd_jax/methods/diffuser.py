"""Diffuser: a DDPM of whole plans, state and action at every step, that a value guides.

Janner et al. 2022, "Planning with Diffusion for Flexible Behavior Synthesis"; the rival with long
plans in RACTD's tables. A row of x is (action, state), the condition is no input of the network:

    x <- x with the known states in their places, after every step        `inpainting.inpaint`
    L = E |w (x_0 - F(x_t, t))|^2                                         `loss`
    x_t <- x_t + scale var(x_{t-1} | x_t, x_0) dV(x_t, t)/dx_t            `guide`, a few times
    x_{t-1} ~ q(x_{t-1} | x_t, F(x_t, t))                                 `sample`

Known are the first state and, in mazes, the last. There nothing guides, the ends do. For locomotion
V is a network for the return of noisy plans (`diffuser_value`), and of many plans the one of the
highest value gives its first action. Schedule and posterior are those of `ddpm`; the network
predicts x_0.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from ractd_jax import errors, networks, train_state
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import ddpm, diffuser_value, vp_schedule
from ractd_jax.methods.inpainting import Known, apply, first_weights, inpaint, noisy_plans
from ractd_jax.types import Algorithm, Batch, Network, Trajectory, Values


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

    Raises:
        FieldError: a number is out of range.
    """

    horizon: int = 32
    steps: int = 20
    action_weight: float = 10.0
    clip: bool = False
    guide_steps: int = 2
    guide_scale: float = 0.1
    guide_stop: int = 2
    plans: int = 64

    def __post_init__(self):
        for field in ("steps", "plans"):
            errors.at_least(field, getattr(self, field), 1)
        for field in ("horizon", "action_weight", "guide_steps", "guide_scale", "guide_stop"):
            errors.at_least(field, getattr(self, field), 0)


# ---- loss ----------------------------------------------------------------------------------------


def loss(
    predictor: ddpm.Predictor,
    diffuser: Diffuser,
    known: Known,
    x_0: Trajectory,
    key: PRNGKeyArray,
    act_dim: int,
) -> Values:
    """Return the weighted squared error of the predicted x_0; what is known counts as right.

    Args:
        predictor: of x_0.
        diffuser: schedule, and the weight of the first action.
        known: in-painting.
        x_0: clean plans.
        key: of steps and noise.
        act_dim: size of an action.

    Example:
        >>> x_0, key = jnp.zeros((5, 32, 14)), jax.random.key(0)
        >>> loss(lambda x, t: 0 * x, Diffuser(), lambda x: x, x_0, key, act_dim=3).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    x_t, t = noisy_plans(diffuser.steps, known, x_0, key)
    weights = jnp.ones(x_0.shape[1:]).at[0, :act_dim].set(diffuser.action_weight)
    error = known(predictor(x_t, t)) - known(x_0)
    return jnp.mean(weights[None] * error**2, axis=(1, 2))


# ---- planning ------------------------------------------------------------------------------------


def guide(
    value: Callable[[Trajectory], Values],
    known: Known,
    x: Trajectory,
    size: Float[Array, ""],
    steps: int,
) -> tuple[Trajectory, Values]:
    """Climb the value, x <- x + size dV/dx, `steps` times; return (x, V before the last time).

    Janner et al. 2022, Algorithm 1.

    Args:
        value: of plans at one noise level.
        known: in-painting, after every step.
        x: noisy plans.
        size: of a step.
        steps: how many.
    """

    def total(x):
        values = value(x)
        return jnp.sum(values), values  # rows do not see each other

    def climb(x, _):
        slope, values = jax.grad(total, has_aux=True)(x)
        return known(x + size * slope), values

    x, values = jax.lax.scan(climb, x, None, length=steps)
    return x, values[-1]


def sample(
    predictor: ddpm.Predictor,
    diffuser: Diffuser,
    known: Known,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
    value: Callable[[Trajectory, ddpm.Steps], Values] | None = None,
) -> tuple[Trajectory, Values]:
    """Draw one plan a key; return the plans and their values, 0 where nothing guides.

    Args:
        predictor: of x_0.
        diffuser: schedule and guidance.
        known: in-painting.
        keys: one for each row.
        shape: (horizon, dim) of a plan.
        value: of noisy plans, `(x, t) -> return`.

    Example:
        >>> keys, diffuser = jax.random.split(jax.random.key(0), 5), Diffuser(steps=3)
        >>> plans, values = sample(lambda x, t: 0 * x, diffuser, lambda x: x, keys, (32, 14))
        >>> plans.shape, values.shape
        ((5, 32, 14), (5,))
    """
    schedule = ddpm.Ddpm(diffuser.steps, sample_steps=diffuser.steps)
    steps, a = ddpm.visited(schedule), vp_schedule.alpha_bars(diffuser.steps)[::-1]

    def draw(t):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

    def step(carry, now):
        x, values = carry
        t, t_next, a, a_next = now
        times = jnp.full(len(x), t)
        if value is not None and diffuser.guide_steps:
            _, deviation = ddpm.posterior(x, x, a, a_next)
            size = jnp.where(t > diffuser.guide_stop, diffuser.guide_scale * deviation**2, 0.0)
            x, values = guide(
                lambda x, value=value: value(x, times), known, x, size, diffuser.guide_steps
            )
        x_0 = predictor(x, times)
        x_0 = jnp.clip(x_0, -1, 1) if diffuser.clip else x_0
        mean, deviation = ddpm.posterior(x, x_0, a, a_next)
        return (known(mean + deviation * draw(t_next)), values), None

    start = known(draw(steps[0])), jnp.zeros(len(keys))
    return jax.lax.scan(step, start, (steps[:-1], steps[1:], a[:-1], a[1:]))[0]


# ---- the algorithm -------------------------------------------------------------------------------


def make_diffuser(
    net: Network,
    value_net: Network | None,
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
        value_net: that of `diffuser_value`; None without guidance.
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
        return train_state.create(first_weights(net, key, shape), optimiser, frozen)

    def update(state, batch: Batch, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            def predictor(x, t):
                return apply(net, params, x, t, train=True, rngs={"dropout": key_dropout})

            known = known_in(batch.cond)
            return jnp.mean(loss(predictor, diffuser, known, batch.x, key_loss, act_dim))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def inference_params(params, frozen, normalizer):
        if not with_value:
            return {"plan": params}
        unit = 1 / normalizer.returns.scale
        return {"plan": params, "value": frozen["diffuser_value"], "unit": unit}

    def act(params, cond, keys):
        rows, count = len(cond), diffuser.plans if with_value else 1
        known = known_in(jnp.repeat(cond, count, axis=0))
        keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)

        def predictor(x, t):
            return apply(net, params["plan"], x, t)

        def value(x, t):
            assert value_net is not None
            return params["unit"] * diffuser_value.value_of(value_net, params["value"], x, t)

        x, values = sample(predictor, diffuser, known, keys, shape, value if with_value else None)
        best = jnp.argmax(values.reshape(rows, count), axis=1)
        return x.reshape(rows, count, *shape)[jnp.arange(rows), best][..., shown]

    return Algorithm(init, update, act, inference_params=inference_params)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the planner of a configuration.

    Raises:
        FieldError: a planner of mazes is to be guided.
    """
    task, method = context.task, context.section.method
    precision = context.config.training.precision
    if method.guide_steps and task.kind == "planner":
        raise errors.FieldError(
            "guide_steps",
            f"{{field}} is {method.guide_steps}: in a maze nothing guides, the ends of a plan do; "
            "it takes 0",
        )
    value_net = None
    if method.guide_steps:
        value_net = context.needed["diffuser_value"].context.section.network
        value_net = networks.in_precision(value_net, precision)
    return make_diffuser(
        networks.in_precision(context.section.network, precision),
        value_net,
        method,
        optimiser,
        horizon=context.horizon,
        act_dim=task.act_dim,
        obs_dim=task.obs_dim,
        gives="states" if task.kind == "planner" else "actions",
    )


def _needs(config: Config, stage: str) -> Mapping[str, str]:
    guided = config.stages[stage].method.guide_steps and config.task.kind == "policy"
    return {"diffuser_value": "diffuser_value"} if guided else {}


METHODS = (
    Method(
        name="diffuser",
        help="train Diffuser, a rival that `all` leaves out, after its value",
        make=make,
        fields=Diffuser,
        network={"unet": networks.ConditionalUnet1D, "mlp": networks.ResidualMLP},
        reads=Reads.STATE_ACTION,
        label="Diffuser",
        colour="#208276",
        order=60,
        needs=_needs,
        sampling_fields=("guide_scale", "guide_stop", "plans"),
        calls=lambda fields: fields.steps,
        horizon=diffuser_value.horizon,
        heeds_precision=True,
    ),
)
