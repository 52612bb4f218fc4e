"""Acting with a trained model: normalise, sample, un-normalise, take the first action.

policy = ractd_jax.load_policy("runs/.../student")
action = policy(observation)
"""

import pathlib

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ractd_jax import checkpoints, compilation, stages, tasks
from ractd_jax.data import dataset, normalizer
from ractd_jax.errors import UserError, choose
from ractd_jax.types import Algorithm, Params


def row_keys(seeds: Int[Array, " batch"], step: Int[Array, ""]) -> Key[Array, " batch"]:
    """Return the key of each row's noise: of (its seed, the step) alone, not of its neighbours."""
    base = jax.random.key(0)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(base, seed), step))(seeds)


class Policy:
    """A policy with a jitted sampler.

    Args:
        algorithm: whose `act` draws trajectories.
        params: its weights.
        limits: the normaliser it was trained with.
        task: what it acts in.
        seed: of the noise of `__call__`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        limits: dataset.Normalizer,
        task: tasks.TaskSpec,
        seed: int = 0,
    ):
        self.task, self.seed, self.step = task, seed, 0
        self._params, self._limits = jax.device_put((params, limits))
        low, high = task.action_limits()

        def act(params, limits, obs, seeds, step):
            keys = row_keys(seeds, step)
            cond = normalizer.normalize(obs, limits.observations)
            plan = algorithm.act(params, cond, keys)
            return normalizer.unnormalize(plan[:, 0], limits.actions).clip(low[None], high[None])

        self._act = jax.jit(act)

    def act(
        self, obs: Float[np.ndarray, "batch obs"], seeds: Int[np.ndarray, " batch"], step: int
    ) -> Float[np.ndarray, "batch act"]:
        """Return an action for each row; its noise depends on (seed of the row, step) alone."""
        obs, seeds = np.asarray(obs, np.float32), np.asarray(seeds, np.int32)
        return np.asarray(self._act(self._params, self._limits, obs, seeds, np.int32(step)))

    def __call__(self, obs: Float[np.ndarray, "*batch obs"]) -> Float[np.ndarray, "*batch act"]:
        """Return the next action for one observation (obs,) or for several (batch, obs).

        Raises:
            UserError: the observation has another size, or is not finite.
        """
        obs = np.asarray(obs, np.float32)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.task.obs_dim:
            raise UserError(
                f"observation of shape {obs.shape}: {self.task.name} has {self.task.obs_dim} "
                f"numbers, so give ({self.task.obs_dim},) or (batch, {self.task.obs_dim})"
            )
        if not np.isfinite(obs).all():
            raise UserError("the observation holds NaN or infinity")
        rows = np.atleast_2d(obs)
        seeds = self.seed + np.arange(len(rows))
        action = self.act(rows, seeds, self.step).reshape(*obs.shape[:-1], -1)
        self.step += 1
        return action


def template(algorithm: Algorithm, task: tasks.TaskSpec, frozen: Params = None):
    """Return shapes and types of (acting weights, normaliser), without allocating them."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key,) if frozen is None else (key, frozen)
    params = jax.eval_shape(algorithm.init, *arguments).params
    limits = jax.eval_shape(lambda: dataset.identity(task.obs_dim, task.act_dim))
    return {"params": params, "normalizer": limits}


def abstract_frozen(config: dict, task: tasks.TaskSpec, stage: str) -> Params:
    """Return shapes and types of the weights a stage needs of earlier stages, None if none."""
    needs = stages.needs(config, stage)
    return {n: template(stages.make(config, task, n), task)["params"] for n in needs} or None


def load_policy(run: str | pathlib.Path, seed: int = 0, precision: str = "", **sampling) -> Policy:
    """Load a trained policy.

    Args:
        run: directory of a training run, e.g. `runs/hopper-medium-replay-v2/<...>/student`.
        seed: of the policy's noise.
        precision: "float32" or "bfloat16", in which its network computes; "" for the one it was
            trained in.
        **sampling: fields of its method that only acting heeds (`stages.SAMPLING`), where they are
            not to be those it was trained with: nfe=2 for a student.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, or the model
            does not act.
    """
    algorithm, saved, task = load(run, precision, **sampling)
    if task.kind == "planner":
        raise UserError(f"{run} plans states: ractd_jax.load_planner loads it")
    return Policy(algorithm, saved["params"], saved["normalizer"], task, seed)


def load(
    run: str | pathlib.Path, precision: str = "", **sampling
) -> tuple[Algorithm, Params, tasks.TaskSpec]:
    """Return a trained model: its algorithm, {"params", "normalizer"}, and what it was made for.

    Raises:
        UserError: as `load_policy`, and for a return model.
    """
    run = pathlib.Path(run)
    meta = checkpoints.read_json(run / checkpoints.CONFIG)
    config, stage = meta["config"], meta["stage"]
    compilation.keep(config["training"].get("compilation_cache", compilation.FOLDER))
    for name, value in sampling.items():
        config[stage]["method"][choose("field", name, stages.SAMPLING.get(stage, ()))] = value
    if precision:
        config["training"]["precision"] = precision
    task = tasks.from_config(config)
    algorithm = stages.make(config, task, stage)
    if algorithm.act is None:
        raise UserError(f"{run} holds a return model, which judges actions and does not act")
    saved = restore(run, template(algorithm, task, abstract_frozen(config, task, stage)))
    # Once, here: the network would do the same to the same weights at every call.
    dtype = stages.precision(config)
    params = jax.tree.map(lambda a: a.astype(dtype), saved["params"])
    return algorithm, saved | {"params": params}, task


def restore(run: pathlib.Path, like: Params) -> Params:
    """Return the `policy` item of a run's newest checkpoint.

    Raises:
        UserError: there is none, or it does not fit.
    """
    store = checkpoints.Checkpoints(run)
    step = store.latest()
    if step is None:
        raise UserError(f"{run} holds no whole checkpoint; train it again with --resume")
    saved = store.restore(step, "policy", like)
    store.close()
    return saved
