"""The vocabulary: what a batch is, what a model is, what an algorithm is, and names of dimensions.

Names of array dimensions, the same everywhere:
    batch    examples, or environments acting side by side
    horizon  steps of a trajectory (16 actions for Gym tasks, 128 states for the small maze)
    dim      numbers at one step of a trajectory (the size of an action; in mazes of a state)
    cond     numbers a trajectory is conditioned on (the observation, after those before it where
             `data.history` is more than 1; in mazes first and last state)
    ens      members of an ensemble

Models come in two forms. A network or a value function takes its weights and conditions as
arguments. A denoiser D(x, t), a jump G(x, t, s) and a critic R(x) have them inside, so that losses
and samplers read like the equations; any function of these arguments will do.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray

Params = Any  # a pytree of arrays
Trajectory = Float[Array, "batch horizon dim"]
Cond = Float[Array, "batch cond"]
Levels = Float[Array, " batch"]  # the noise level of each trajectory
Values = Float[Array, " batch"]  # the loss, the return or the value of each trajectory
Scalar = Float[Array, ""]
PRECISIONS = ("float32", "bfloat16")  # in which denoising networks compute


class Batch(NamedTuple):
    """Windows of the dataset, normalised to [-1, 1].

    Attributes:
        x: the trajectory to be generated.
        cond: what it is conditioned on.
        returns: return-to-go from the trajectory's first step.
    """

    x: Trajectory
    cond: Cond
    returns: Values


class Transition(NamedTuple):
    """Single steps of the dataset: windows of one action, and what came of it.

    Models of single actions that need no reward read `x` and `cond` as they would a `Batch`'s.

    Attributes:
        x: the action, a trajectory of horizon 1.
        cond: the observation it was taken at.
        rewards: what it earned.
        next_cond: the observation after it.
        masks: 0 where the episode ended in a terminal, so that nothing can be earned any more.
    """

    x: Float[Array, "batch 1 dim"]
    cond: Float[Array, "batch cond"]
    rewards: Float[Array, " batch"]
    next_cond: Float[Array, "batch cond"]
    masks: Float[Array, " batch"]


@runtime_checkable
class Network(Protocol):
    """F(x, times, cond): a denoising network, as all of `networks` are.

    `x` is (batch, horizon, dim), `times` (batch, n_times), `cond` (batch, cond), F has the shape of
    `x`. At run time only `apply` is asked for: a model that is never trained needs no `init`.
    """

    def apply(self, variables: Any, x: Any, times: Any, cond: Any, /, **kwargs: Any) -> Any:
        """Return F for weights `variables["params"]`; `train` and `rngs` switch dropout on."""
        ...

    if TYPE_CHECKING:

        def init(self, key: Any, x: Any, times: Any, cond: Any, /) -> Any:
            """Return {"params": the first weights}."""
            ...


@runtime_checkable
class ValueFunction(Protocol):
    """V(params, x, cond, key): the value of each trajectory, as `Algorithm.value` gives it."""

    def __call__(
        self, params: Params, x: Trajectory, cond: Cond, key: PRNGKeyArray | None, /
    ) -> Values:
        """Return the value of each trajectory; with a key an ensemble may draw its members."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """D(x, t): the clean trajectories that a model sees in noisy ones."""

    def __call__(self, x: Trajectory, t: Levels, /) -> Trajectory:
        """Return D(x, t)."""
        ...


@runtime_checkable
class Jump(Protocol):
    """G(x, t, s): where the ODE leads from x at noise level t to level s."""

    def __call__(self, x: Trajectory, t: Levels, s: Levels, /) -> Trajectory:
        """Return G(x, t, s)."""
        ...


@runtime_checkable
class Critic(Protocol):
    """R(x): the value of each trajectory."""

    def __call__(self, x: Trajectory, /) -> Values:
        """Return the value of each trajectory."""
        ...


class Algorithm(NamedTuple):
    """A method as pure functions; training, acting and evaluation know nothing else about it.

    Attributes:
        init: `(key) -> TrainState`; `(key, frozen)` where it needs models of earlier stages.
        update: `(state, batch, key) -> (state, metrics)`, metrics being a flat dict of scalars,
            "loss" among them.
        act: `(params, cond, keys) -> x`, one trajectory for each row of `cond` and each key;
            None for a model that does not act.
        value: `(params, x, cond, key=None) -> (batch,)`, the value of each trajectory; with a key
            an ensemble may draw the members that answer. None for a model that values nothing.
        prepare: `(frozen, dataset, key) -> dataset`, done once before training; None for nothing.
        inference_params: `(weights, frozen, normalizer) -> params`, what `act` takes, where that is
            more than the trained weights alone; None where it is not.
        sample: draws a batch of what `prepare` returned, as `data.transitions.sample` does; None
            where that is still the dataset that was built.
    """

    init: Callable
    update: Callable
    act: Callable | None = None
    value: Callable | None = None
    prepare: Callable | None = None
    inference_params: Callable | None = None
    sample: Callable | None = None
