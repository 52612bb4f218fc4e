"""A policy, a planner or a critic, from the folder of its run."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ractd_jax import config as configuration
from ractd_jax import networks, tasks
from ractd_jax.config import Config
from ractd_jax.data import normalization
from ractd_jax.errors import UserError, choose
from ractd_jax.methods import registry
from ractd_jax.policies import planning, selection
from ractd_jax.policies.policy import Policy
from ractd_jax.policies.selection import BestOfN
from ractd_jax.training import checkpoints, compilation_cache, restore, run_dir
from ractd_jax.types import Algorithm


class Model(NamedTuple):
    """A trained model.

    Attributes:
        algorithm: its functions.
        saved: {"params", "normalizer"}.
        config: the configuration of its run.
        stage: whose model it is.
    """

    algorithm: Algorithm
    saved: dict[str, Any]
    config: Config
    stage: str

    @property
    def task(self) -> tasks.TaskSpec:
        """The task it was made for."""
        return self.config.task


def load_model(
    run: str | pathlib.Path,
    precision: str = "",
    *,
    acts: bool = True,
    update: int | None = None,
    **sampling: Any,
) -> Model:
    """Return a trained model; see `ractd_jax.load_policy` for the other arguments.

    Args:
        run: directory of a training run.
        precision: in which its network computes, "" for the one it was trained in.
        acts: it has to act.
        update: after which it was saved; None: the last.
        **sampling: fields of its method that only acting heeds.

    Raises:
        UserError: as `load_policy`.
    """
    run = pathlib.Path(run)
    config, stage = run_dir.read(run)
    if config.training.compilation_cache:  # where it lies is never for a run's folder to say
        compilation_cache.keep()
    with run_dir.of_this_version(run):  # as it was saved: below come the caller's words
        like = restore.stage_template(config, stage)
    for name, value in sampling.items():
        choose("field", name, registry.get(stage).sampling_fields)
        plain = configuration.plain(config.stages[stage].method) | {name: value}
        fields = configuration.build(registry.get(stage).fields, plain, f"{stage}.method")
        config = configuration.replace(config, **{f"{stage}__method": fields})
    if precision:
        choose("precision", precision, configuration.PRECISIONS)
        config = configuration.replace(config, training__precision=precision)
    algorithm = registry.make(config, stage)
    if acts and algorithm.act is None:
        raise UserError(f"{run} holds a model of the stage {stage}, which values and does not act")
    saved = restore.restore(run, like, update)
    if registry.get(stage).heeds_precision and not algorithm.inference_params:
        # Once, here: the network would do the same to the same weights at every call. Parameters
        # that hold more than the weights (`inference_params`) are left to it.
        params = networks.cast_weights(saved["params"], config.training.precision)
        saved = saved | {"params": params}
    return Model(algorithm, saved, config, stage)


def load_policy(
    run: str | pathlib.Path,
    seed: int = 0,
    precision: str = "",
    *,
    candidates: int = 0,
    critic: str | pathlib.Path | None = None,
    inverse_temperature: float | None = None,
    update: int | None = None,
    **sampling: Any,
) -> Policy:
    """Load a trained policy: see `ractd_jax.load_policy`, which explains the arguments.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, the model
            does not act, or the critic values nothing or is of another task.
    """
    run = pathlib.Path(run)
    model = load_model(run, precision, update=update, **sampling)
    if model.task.kind == "planner":
        raise UserError(f"{run} plans states: ractd_jax.load_planner loads it")
    chosen = registry.selection(model.config, model.stage)
    count = candidates or chosen.candidates
    best_of_n = None
    if count > 1:
        if inverse_temperature is None:
            inverse_temperature = chosen.inverse_temperature
        critic_run = pathlib.Path(critic or run.parent / chosen.critic)
        best_of_n = _best_of_n(run, model, critic_run, update, count, inverse_temperature)
    history = registry.history(model.config, model.stage)
    saved = model.saved
    return Policy(
        model.algorithm, saved["params"], saved["normalizer"], model.task, seed, best_of_n, history
    )


def _best_of_n(
    run: pathlib.Path,
    model: Model,
    critic_run: pathlib.Path,
    update: int | None,
    count: int,
    inverse_temperature: float,
) -> BestOfN:
    # A policy that is its own critic is one checkpoint.
    itself = critic_run.absolute() == run.absolute()
    critic = load_critic(critic_run, update if itself else None)
    if critic.task.name != model.task.name:
        raise UserError(f"{run} acts in {model.task.name}, {critic_run} values {critic.task.name}")
    units = [jax.tree.map(np.asarray, m.saved["normalizer"][:2]) for m in (model, critic)]
    value = critic.algorithm.value
    assert value is not None
    if max(map(normalization.gap, *units)) > 1e-4:  # not of other rounding alone
        value = selection.in_units_of(value, *units)
    return BestOfN(value, critic.saved["params"], count, inverse_temperature)


def load_critic(run: str | pathlib.Path, update: int | None = None) -> Model:
    """Return a model that values trajectories.

    Raises:
        UserError: `run` holds none.
    """
    run = pathlib.Path(run)
    if not (run / checkpoints.CONFIG).exists():
        raise UserError(
            f"several candidates need a critic, and there is no trained one in {run}: train the "
            f"stage {run.name}, or ask for candidates=1"
        )
    model = load_model(run, acts=False, update=update)
    if model.algorithm.value is None:
        raise UserError(f"{run} acts and values nothing: name a return model or a critic")
    return model


def value_of(
    run: str | pathlib.Path,
) -> Callable[[Float[np.ndarray, "batch obs"], Float[np.ndarray, "batch act"]], np.ndarray]:
    """Return `(obs (batch, obs), actions (batch, act)) -> (batch,)`, a critic's values.

    Raises:
        UserError: `run` holds no trained critic.
    """
    model = load_critic(run)
    origin, centered = normalization.split_origin(model.saved["normalizer"])
    saved = jax.device_put(model.saved | {"normalizer": centered})

    @jax.jit
    def value(saved: Any, obs: Any, actions: Any) -> Any:
        normalizer = saved["normalizer"]
        x = normalization.normalize(actions, normalizer.actions)[:, None]
        cond = normalization.normalize(obs, normalizer.observations)
        assert model.algorithm.value is not None
        return model.algorithm.value(saved["params"], x, cond)

    def call(
        obs: Float[np.ndarray, "batch obs"], actions: Float[np.ndarray, "batch act"]
    ) -> np.ndarray:
        return np.asarray(value(saved, normalization.center(obs, origin), actions))

    return call


def load_control(run: str | pathlib.Path) -> planning.Control:
    """Return the control of trained inverse dynamics; the stage `inverse` makes such a run.

    Raises:
        UserError: there is no finished checkpoint, or it does not fit its configuration.
    """
    model = load_model(run)
    draw = model.algorithm.act
    assert draw is not None
    low, high = model.task.action_limits()
    origin, centered = normalization.split_origin(model.saved["normalizer"])

    @jax.jit
    def control(saved: Any, obs: Any, wanted: Any) -> Any:
        normalizer = saved["normalizer"]
        ends = (normalization.normalize(end, normalizer.observations) for end in (obs, wanted))
        pair = jnp.concatenate([*ends], axis=-1)
        keys = jax.random.split(jax.random.key(0), len(pair))  # of noise that it never draws
        actions = draw(saved["params"], pair, keys)[:, 0]
        return normalization.unnormalize(actions, normalizer.actions).clip(low[None], high[None])

    saved = jax.device_put(model.saved | {"normalizer": centered})

    def call(obs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        ends = (normalization.center(np.asarray(end), origin) for end in (obs, wanted))
        return np.asarray(control(saved, *ends))

    return call


def load_planner(
    run: str | pathlib.Path, seed: int = 0, *, update: int | None = None, **sampling: Any
) -> planning.Planner:
    """Load a trained planner: see `ractd_jax.load_planner`, which explains the arguments.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, or the model
            plans no states.
    """
    model = load_model(run, update=update, **sampling)
    if model.task.kind != "planner":
        raise UserError(f"{run} holds a policy, which acts: ractd_jax.load_policy loads it")
    if not registry.get(model.stage).row:
        raise UserError(f"{run} plans no states: it turns those of a plan into actions")
    saved = model.saved
    return planning.Planner(model.algorithm, saved["params"], saved["normalizer"], model.task, seed)
