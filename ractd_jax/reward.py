"""The return model R: a noise-free predictor of the discounted return-to-go.

RACTD section 3.3: R is trained on clean data, apart from teacher and student, by regression on

    r_n = sum_j gamma^j r_{n+j}                                                     `loss`

and is later the critic of what the student generates:

    L_R = -R(s_n, first action of G(x_T, T, 0))          (Eq. 8)                    `reward_loss`

Of actions R sees the first, R(s, a); of planned states every one, sum_j R(s_j) (released code).
With gamma 0 the latter is the paper's "1 if the current state reaches the goal and 0 otherwise"
(section 4.2).

Nothing holds a regression model far from its data, and a student that maximises it goes there. Two
options, both off in the published method, ease that: layer normalisation (`networks.ReturnMLP`)
and an ensemble whose disagreement counts against an action (`value`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ractd_jax import errors, networks, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.types import (
    Algorithm,
    Batch,
    Cond,
    Critic,
    Params,
    Scalar,
    Trajectory,
    ValueFunction,
    Values,
)

# (x, cond) -> (rows, inputs), as many rows for each example
Features = Callable[[Trajectory, Cond], Float[Array, "rows inputs"]]


@dataclasses.dataclass(frozen=True)
class ReturnModel:
    """How the return model learns, and how it values what is generated.

    Attributes:
        members: networks in the ensemble; 1 as published.
        pessimism: standard deviations of the ensemble subtracted from its mean.
        expectile: asymmetry of the squared error; 0.5 is the mean of the returns, as published.
        drawn: members that value one update of a student, drawn anew for each; 0 asks them all.
            The gradient of their mean stays the same on average, at a fraction of its cost.

    Raises:
        FieldError: a number is out of range, or pessimism meets members that are left out.
    """

    members: int = 1
    pessimism: float = 0.0
    expectile: float = 0.5
    drawn: int = 0

    def __post_init__(self):
        errors.at_least("members", self.members, 1)
        errors.at_least("pessimism", self.pessimism, 0)
        if not 0 < self.expectile < 1:
            raise errors.FieldError(
                "expectile", f"{{field}} is {self.expectile}: above 0 and below 1"
            )
        errors.between("drawn", self.drawn, 0, self.members)
        if self.pessimism and self.drawn not in (0, self.members):
            raise errors.FieldError(
                "pessimism",
                f"{{field}} is {self.pessimism}: it goes by how far all members disagree, so it "
                f"needs drawn=0, not {self.drawn} of {self.members}",
            )


# ---- the model -----------------------------------------------------------------------------------


def inputs(x: Trajectory, cond: Cond) -> Float[Array, "batch inputs"]:
    """Return what the model sees of actions: the first one, then the observation.

    Example:
        >>> inputs(jnp.ones((5, 16, 3)), jnp.ones((5, 11))).shape
        (5, 14)
    """
    return jnp.concatenate([x[:, 0], cond], axis=-1)


def states(x: Trajectory, cond: Cond) -> Float[Array, "batch*horizon dim"]:
    """Return what the model sees of a plan: every state, one row each.

    Example:
        >>> states(jnp.ones((5, 128, 4)), jnp.ones((5, 8))).shape
        (640, 4)
    """
    del cond  # first and last state, which are in the plan
    return x.reshape(-1, x.shape[-1])


FEATURES: dict[str, Features] = {"policy": inputs, "planner": states}  # by the kind of the task


def predict(
    net: Any, params: Params, x: Trajectory, cond: Cond, features: Features = inputs
) -> Float[Array, "ens batch"]:
    """Return every member's prediction of the normalised return-to-go, summed over its rows.

    Args:
        net: a `networks.ReturnMLP`.
        params: weights of all members, stacked.
        x: trajectories.
        cond: conditions.
        features: what the model sees of them, see `FEATURES`.
    """
    rows = features(x, cond)
    return jax.vmap(lambda p: net.apply({"params": p}, rows).reshape(len(x), -1).sum(axis=1))(
        params
    )


def value(
    net: Any,
    params: Params,
    model: ReturnModel,
    x: Trajectory,
    cond: Cond,
    features: Features = inputs,
) -> Values:
    """Return R of each trajectory: the ensemble's mean less `pessimism` standard deviations.

    Args:
        net: a `networks.ReturnMLP`.
        params: weights of the members that are asked, stacked.
        model: pessimism.
        x: trajectories.
        cond: conditions.
        features: what the model sees of them, see `FEATURES`.
    """
    members = predict(net, params, x, cond, features)
    if not model.pessimism:
        return jnp.mean(members, axis=0)
    # The small number keeps the gradient of the root finite where members agree.
    deviation = jnp.sqrt(jnp.var(members, axis=0) + 1e-12)
    return jnp.mean(members, axis=0) - model.pessimism * deviation


def draw(params: Params, model: ReturnModel, key: PRNGKeyArray) -> Params:
    """Return the members that value one update, drawn without replacement.

    Example:
        >>> model = ReturnModel(members=5, drawn=2)
        >>> draw({"w": jnp.arange(5.0)}, model, jax.random.key(0))["w"].shape
        (2,)
    """
    if model.drawn in (0, model.members):
        return params
    members = jax.random.choice(key, model.members, (model.drawn,), replace=False)
    return jax.tree.map(lambda p: p[members], params)


def loss(
    prediction: Float[Array, "*shape"], returns: Float[Array, "*#shape"], expectile: float
) -> Float[Array, "*shape"]:
    """Return 2 |tau - 1(R > r)| (r - R)^2, the squared error where the expectile tau is 0.5.

    Example:
        >>> loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]), 0.5).tolist()
        [1.0, 1.0]
        >>> loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]), 0.75).tolist()
        [1.5, 0.5]
    """
    error = returns - prediction
    return 2 * jnp.abs(expectile - (error < 0)) * error**2


# ---- Eq. 8 ---------------------------------------------------------------------------------------

SCALES = ("gradient", "none")


def reward_loss(
    critic: Critic, x: Trajectory, *, clip: bool = False, scale: str = "none"
) -> tuple[Scalar, Values]:
    """Return (L_R, R): minus the mean value of the trajectories x, and each value (RACTD Eq. 8).

    Args:
        critic: R, which says the value of each trajectory.
        x: generated trajectories.
        clip: value them clipped to [-1, 1]: outside the critic has seen nothing, and the
            environment clips actions anyway. There the gradient is zero and pulls nowhere.
        scale: "gradient" divides L_R by the mean length of dR/dx over the batch, so that its weight
            means the same for every critic; "none", as published.

    Example:
        >>> def critic(x):
        ...     return jnp.sum(x[:, 0], axis=-1)
        >>> loss, values = reward_loss(critic, jnp.ones((5, 16, 3)))
        >>> float(loss), float(values[0])
        (-3.0, 3.0)
    """
    if clip:
        x = jnp.clip(x, -1, 1)
    values, gradient = expanded(critic, x)
    loss = -jnp.mean(values)
    if scale == "gradient":
        loss = loss / (jnp.mean(jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2)))) + 1e-8)
    return loss, values


def bind(critic: ValueFunction, params: Params, cond: Cond, key: PRNGKeyArray) -> Critic:
    """Return R(x), a critic with its weights and conditions given.

    Args:
        critic: V.
        params: its weights.
        cond: conditions.
        key: of what it draws; the same in all its calls.
    """
    return lambda x: critic(params, x, cond, key)


def expanded(critic: Critic, x: Trajectory) -> tuple[Values, Trajectory]:
    """Return R(x), expanded to first order at x itself, and dR/dx.

    The expansion R(x') + dR/dx' (x - x') around a copy x' of x that no gradient reaches has the
    value and the gradient of R(x). But the critic, which costs as much as the student, runs once
    for both the loss and its scale: differentiating R(x) again would be a second pass.

    Args:
        critic: R.
        x: generated trajectories.
    """
    copy = jax.lax.stop_gradient(x)
    values, gradient = value_and_gradient(critic, copy)
    return values + jnp.sum(gradient * (x - copy), axis=(1, 2)), gradient


def value_and_gradient(critic: Critic, x: Trajectory) -> tuple[Values, Trajectory]:
    """Return (R, dR/dx) of each trajectory.

    Example:
        >>> values, gradient = value_and_gradient(lambda x: 2 * x.sum((1, 2)), jnp.ones((5, 1, 3)))
        >>> values[0].item(), gradient[0].tolist()
        (6.0, [[2.0, 2.0, 2.0]])
    """

    def total(x):
        values = critic(x)
        return jnp.sum(values), values

    gradient, values = jax.grad(total, has_aux=True)(x)
    return values, gradient


# ---- the algorithm -------------------------------------------------------------------------------


def make_return_model(
    net: Any,
    model: ReturnModel,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
    features: Features = inputs,
) -> Algorithm:
    """Make the return model.

    Args:
        net: a `networks.ReturnMLP`.
        model: ensemble and loss.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        features: what the model sees of a trajectory, see `FEATURES`.

    Returns:
        An algorithm that values and does not act.

    Example:
        >>> net, optimiser = networks.ReturnMLP((8,)), train_state.Optimiser(steps=10)
        >>> algorithm = make_return_model(net, ReturnModel(), optimiser, shape=(16, 3), cond_dim=11)
        >>> state = algorithm.init(jax.random.key(0))
        >>> algorithm.value(state.params, jnp.ones((5, 16, 3)), jnp.ones((5, 11))).shape
        (5,)
    """

    def init(key):
        example = features(jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim)))
        keys = jax.random.split(key, model.members)
        params = jax.vmap(lambda k: net.init(k, example)["params"])(keys)
        return train_state.create(params, optimiser)

    def update(state, batch: Batch, key):
        del key  # nothing random here: batches differ, members differ by their first weights

        def loss_fn(params):
            members = predict(net, params, batch.x, batch.cond, features)
            # A sum over members trains each as if it were alone.
            return jnp.mean(jnp.sum(loss(members, batch.returns[None], model.expectile), axis=0))

        total, grads = jax.value_and_grad(loss_fn)(state.params)
        state = train_state.apply_gradients(state, grads, optimiser)
        return state, {"loss": total / model.members}

    def value_of(params, x, cond, key=None):
        members = params if key is None else draw(params, model, key)
        return value(net, members, model, x, cond, features)

    return Algorithm(init, update, value=value_of)


# ---- the stage -----------------------------------------------------------------------------------


def critic_of(context: Context) -> ValueFunction | None:
    """Return the critic that a stage is trained with, or None where it needs none.

    The critic has learnt from the present observation, which is the last of those that the stage
    sees.

    Args:
        context: of a stage that needs the critic in the role "reward", or needs none.

    Raises:
        UserError: what was chosen as the critic has no value.
    """
    if "reward" not in context.needed:
        return None
    made = context.needed["reward"]
    value_of, width = made.algorithm.value, made.context.cond_dim
    if value_of is None:
        raise errors.UserError(
            f"critic is {made.context.stage!r}, which values nothing: choose a return model or a "
            "critic"
        )

    def critic(params, x, cond, key):
        return value_of(params, x, cond[:, -width:], key)

    return critic


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the return model of a configuration."""
    section, features = context.section, FEATURES[context.task.kind]
    return make_return_model(
        section.network, section.method, optimiser, **context.sizes, features=features
    )


REWARD = Method(
    name="reward",
    help="train the return model R(s, a)",
    make=make,
    fields=ReturnModel,
    network={"mlp": networks.ReturnMLP},
    reads=Reads.RETURNS,
    label="return model",
    colour="#8c6bb1",
    order=-30,
    acts=False,
    values=True,
    trained_by_all=True,
)
METHODS = (REWARD,)
