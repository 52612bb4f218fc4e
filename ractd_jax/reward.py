"""The return model R: a noise-free predictor of the discounted return-to-go.

RACTD section 3.3: R is trained on clean data, apart from teacher and student, by regression on
r_n = sum_j gamma^j r_{n+j}, and later judges what the student generates: of actions the first,
R(s, a) (Eq. 8), of planned states every one, sum_j R(s_j) (released code). With gamma 0 the latter
is the paper's "1 if the current state reaches the goal and 0 otherwise" (section 4.2).

Nothing holds a regression model far from its data, and a student that maximises it goes there. Two
options, both off in the published method, ease that: layer normalisation (`networks.ReturnMLP`)
and an ensemble whose disagreement counts against an action (`value`).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ractd_jax import errors, train_state
from ractd_jax.types import Algorithm, Batch, Params

Sees = Callable[..., Array]  # (x, cond) -> (rows, inputs), as many rows for each example


@dataclasses.dataclass(frozen=True)
class ReturnModel:
    """How the return model learns and judges.

    Attributes:
        members: networks in the ensemble; 1 as published.
        pessimism: standard deviations of the ensemble subtracted from its mean.
        expectile: asymmetry of the squared error; 0.5 is the mean of the returns, as published.
        drawn: members that judge one update of a student, drawn anew for each; 0 asks them all.
            The gradient of their mean stays the same on average, at a fraction of its cost.
    """

    members: int = 1
    pessimism: float = 0.0
    expectile: float = 0.5
    drawn: int = 0

    def __post_init__(self):
        if not 0 <= self.drawn <= self.members or self.members < 1:
            raise errors.UserError(
                f"reward.method: {self.drawn} of {self.members} members cannot be drawn"
            )
        if self.pessimism and self.drawn not in (0, self.members):
            raise errors.UserError(
                f"reward.method.pessimism is {self.pessimism}: it goes by how far all members "
                f"disagree, so it needs drawn=0, not {self.drawn} of {self.members}"
            )


def inputs(
    x: Float[Array, "batch horizon dim"], cond: Float[Array, "batch cond"]
) -> Float[Array, "batch inputs"]:
    """Return what the model sees of actions: the first one, then the observation."""
    return jnp.concatenate([x[:, 0], cond], axis=-1)


def states(
    x: Float[Array, "batch horizon dim"], cond: Float[Array, "batch cond"]
) -> Float[Array, "batch*horizon dim"]:
    """Return what the model sees of a plan: every state, one row each."""
    del cond  # first and last state, which are in the plan
    return x.reshape(-1, x.shape[-1])


SEES = {"policy": inputs, "planner": states}  # by the kind of the task


def predict(net, params: Params, x, cond, sees: Sees = inputs) -> Float[Array, "ens batch"]:
    """Return every member's prediction of the normalised return-to-go, summed over its rows."""
    rows = sees(x, cond)
    return jax.vmap(lambda p: net.apply({"params": p}, rows).reshape(len(x), -1).sum(axis=1))(
        params
    )


def value(
    net, params: Params, model: ReturnModel, x, cond, sees: Sees = inputs
) -> Float[Array, " batch"]:
    """Return R: the ensemble's mean less `pessimism` standard deviations."""
    members = predict(net, params, x, cond, sees)
    if not model.pessimism:
        return jnp.mean(members, axis=0)
    # The small number keeps the gradient of the root finite where members agree.
    deviation = jnp.sqrt(jnp.var(members, axis=0) + 1e-12)
    return jnp.mean(members, axis=0) - model.pessimism * deviation


def draw(params: Params, model: ReturnModel, key: Key[Array, ""]) -> Params:
    """Return the members that judge one update, drawn without replacement."""
    if model.drawn in (0, model.members):
        return params
    chosen = jax.random.choice(key, model.members, (model.drawn,), replace=False)
    return jax.tree.map(lambda p: p[chosen], params)


def loss(prediction, returns, expectile: float) -> Float[Array, "..."]:
    """Return 2 |tau - 1(R > r)| (r - R)^2, the squared error where tau is 0.5."""
    error = returns - prediction
    return 2 * jnp.abs(expectile - (error < 0)) * error**2


# ---- what a student or a teacher makes of it -----------------------------------------------------

Judge = Callable[[Float[Array, "batch horizon dim"]], Float[Array, " batch"]]
SCALES = ("gradient", "none")


def maximise(
    judge: Judge, x: Float[Array, "batch horizon dim"], *, clip: bool, scale: str
) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
    """Return (L_R, predicted return of each trajectory x) (RACTD Eq. 8).

    Args:
        judge: says what a trajectory is worth.
        x: generated trajectories.
        clip: judge them clipped to [-1, 1]: outside the return model has seen nothing, and the
            environment clips actions anyway. There the gradient is zero and pulls nowhere.
        scale: "gradient" divides L_R by the mean length of dR/dx over the batch; "none".
    """
    if clip:
        x = jnp.clip(x, -1, 1)
    at = jax.lax.stop_gradient(x)
    returns, slope = value_and_slope(judge, at)
    size = 1.0
    if scale == "gradient":
        size = jnp.mean(jnp.sqrt(jnp.sum(slope**2, axis=(1, 2)))) + 1e-8
    # R expanded to first order at x itself: the same value, the same gradient, and the return
    # model, which costs as much as the student, runs once for the loss and for its scale.
    expanded = returns + jnp.sum(slope * (x - at), axis=(1, 2))
    return -jnp.mean(expanded) / size, returns


def value_and_slope(
    judge: Judge, x: Float[Array, "batch horizon dim"]
) -> tuple[Float[Array, " batch"], Float[Array, "batch horizon dim"]]:
    """Return (R, dR/dx) of each trajectory."""

    def total(x):
        returns = judge(x)
        return jnp.sum(returns), returns

    slope, returns = jax.grad(total, has_aux=True)(x)
    return returns, slope


# ---- the algorithm -------------------------------------------------------------------------------


def make_return_model(
    net,
    model: ReturnModel,
    optimiser: train_state.Optimiser,
    *,
    shape,
    cond_dim: int,
    sees: Sees = inputs,
) -> Algorithm:
    """Make the return model.

    Args:
        net: a `networks.ReturnMLP`.
        model: ensemble and loss.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        sees: what it is shown of a trajectory, see `SEES`.
    """

    def init(key):
        example = sees(jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim)))
        keys = jax.random.split(key, model.members)
        params = jax.vmap(lambda k: net.init(k, example)["params"])(keys)
        return train_state.create(params, optimiser)

    def update(state, batch: Batch, key):
        del key  # nothing random here: batches differ, members differ by their first weights

        def loss_fn(params):
            members = predict(net, params, batch.x, batch.cond, sees)
            # A sum over members trains each as if it were alone.
            return jnp.mean(jnp.sum(loss(members, batch.returns[None], model.expectile), axis=0))

        value_, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {
            "loss": value_ / model.members
        }

    def value_of(params, x, cond, key=None):
        members = params if key is None else draw(params, model, key)
        return value(net, members, model, x, cond, sees)

    return Algorithm(init, update, value=value_of)
