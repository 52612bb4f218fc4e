"""Acting with a trained model: normalise, sample, choose, un-normalise, take the first action.

policy = ractd_jax.load_policy("runs/.../student")
action = policy(observation)
best_of_16 = ractd_jax.load_policy("runs/.../student", candidates=16)
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ractd_jax import networks, stages, tasks
from ractd_jax.data import normalization, windows
from ractd_jax.errors import UserError, choose
from ractd_jax.nn.cpu import matmul
from ractd_jax.training import checkpoints, compilation_cache, run_dir
from ractd_jax.types import Algorithm, Params


def row_keys(seeds: Int[Array, " batch"], step: Int[Array, ""]) -> Key[Array, " batch"]:
    """Return the key of each row's noise: of (its seed, the step) alone, not of its neighbours."""
    base = jax.random.key(0)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(base, seed), step))(seeds)


class Reselect(NamedTuple):
    """How one of several sampled trajectories is chosen.

    Attributes:
        algorithm: whose `judge` says what each is worth.
        params: its weights.
        candidates: how many are drawn for each decision.
        inverse_temperature: one is drawn with probabilities softmax(inverse_temperature worth); 0
            takes the best.
    """

    algorithm: Algorithm
    params: Params
    candidates: int
    inverse_temperature: float = 0.0


def candidate_keys(keys: Key[Array, " batch"], count: int) -> Key[Array, "batch {count}"]:
    """Return `count` keys for each row."""
    return jax.vmap(lambda key: jax.random.split(key, count))(keys)


def choose_candidate(
    reselect: Reselect,
    params: Params,
    x: Float[Array, "batch candidates horizon dim"],
    cond: Float[Array, "batch cond"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch horizon dim"]:
    """Return one candidate for each row: the best, or one drawn by what it is worth."""
    batch, count = x.shape[:2]
    rows = jnp.repeat(cond, count, axis=0)
    worth = reselect.algorithm.value(params, x.reshape(batch * count, *x.shape[2:]), rows)
    worth = worth.reshape(batch, count)
    if reselect.inverse_temperature:
        logits = reselect.inverse_temperature * worth
        chosen = jax.vmap(jax.random.categorical)(keys, logits)
    else:
        chosen = jnp.argmax(worth, axis=1)
    return x[jnp.arange(batch), chosen]


class Policy:
    """A policy with a jitted sampler.

    Args:
        algorithm: whose `act` draws trajectories.
        params: its weights.
        limits: the normaliser it was trained with.
        task: what it acts in.
        seed: of the noise of `__call__`.
        reselect: how to choose among several samples; None takes the one that is drawn.
        history: observations of an episode that an action depends on, the present one among them.
            The policy keeps those before it; where an episode begins they are its first one.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        limits: windows.Normalizer,
        task: tasks.TaskSpec,
        seed: int = 0,
        reselect: Reselect | None = None,
        history: int = 1,
    ):
        self.task, self.seed, self.step, self.history = task, seed, 0, history
        # What was seen last of each episode: by its seed in `act`, by its row in `__call__`.
        self._episodes: dict[int, np.ndarray] = {}
        self._called: dict[int, np.ndarray] = {}
        self._limits = jax.device_put(limits)
        params = jax.jit(matmul.turn)(params)
        self._params = jax.device_put((params, reselect.params if reselect else None))
        low, high = task.action_limits()

        def draw(params, cond, keys):
            with matmul.turned():
                return algorithm.act(params, cond, keys)

        def sample(params, cond, keys):
            params, judges = params
            if reselect is None:
                return draw(params, cond, keys)
            count = reselect.candidates
            many = candidate_keys(keys, count + 1)  # the last one chooses
            x = draw(params, jnp.repeat(cond, count, axis=0), many[:, :-1].reshape(-1))
            x = x.reshape(len(cond), count, *x.shape[1:])
            present = cond[:, -task.obs_dim :]  # all that judges have learnt from
            return choose_candidate(reselect, judges, x, present, many[:, -1])

        def act(params, limits, seen, seeds, step):
            keys = row_keys(seeds, step)
            cond = normalization.normalize(seen, limits.observations).reshape(len(seen), -1)
            plan = sample(params, cond, keys)
            return normalization.unnormalize(plan[:, 0], limits.actions).clip(low[None], high[None])

        self._act = jax.jit(act)

    def act(
        self, obs: Float[np.ndarray, "batch obs"], seeds: Int[np.ndarray, " batch"], step: int
    ) -> Float[np.ndarray, "batch act"]:
        """Return an action for each row; its noise depends on (seed of the row, step) alone.

        With a history a seed stands for an episode, which begins at step 0 or where it is first
        seen.
        """
        obs, seeds = np.asarray(obs, np.float32), np.asarray(seeds, np.int32)
        seen = self._recall(self._episodes, obs, seeds.tolist(), begins=step == 0)
        return self._decide(seen, seeds, step)

    def _decide(self, seen, seeds, step) -> Float[np.ndarray, "batch act"]:
        return np.asarray(self._act(self._params, self._limits, seen, seeds, np.int32(step)))

    def _recall(
        self,
        memory: dict[int, np.ndarray],
        obs: Float[np.ndarray, "batch obs"],
        episodes: Sequence[int],
        *,
        begins: bool = False,
    ) -> Float[np.ndarray, "batch history obs"]:
        """Return what each row's episode showed last, oldest first, and keep it in `memory`."""
        seen = np.repeat(obs[:, None], self.history, axis=1)
        if self.history == 1:
            return seen
        for row, episode in enumerate(episodes):
            if episode in memory and not begins:
                seen[row, :-1] = memory[episode][1:]
        memory.update(zip(episodes, seen, strict=True))  # after all: a batch may repeat an episode
        return seen

    def reset(self) -> None:
        """Forget what `__call__` has seen: the next observations are the first of new episodes.

        Only a policy of a history remembers any; the noise goes on as before.
        """
        self._called.clear()

    def __call__(self, obs: Float[np.ndarray, "*batch obs"]) -> Float[np.ndarray, "*batch act"]:
        """Return the next action for one observation (obs,) or for several (batch, obs).

        A policy of a history takes each row for the next observation of the same episode as in the
        call before; `reset` says that other episodes begin.

        Raises:
            UserError: the observation has another size, or is not finite, or there are not as many
                as there are episodes.
        """
        obs = np.asarray(obs, np.float32)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.task.obs_dim:
            raise UserError(
                f"observation of shape {obs.shape}: {self.task.name} has {self.task.obs_dim} "
                f"numbers, so give ({self.task.obs_dim},) or (batch, {self.task.obs_dim})"
            )
        if not np.isfinite(obs).all():
            raise UserError("the observation holds NaN or infinity")
        if not obs.size:
            raise UserError("an empty batch: there is nothing to act on")
        rows = np.atleast_2d(obs)
        if self._called and len(self._called) != len(rows):
            raise UserError(
                f"observations of {len(rows)} episodes after those of {len(self._called)}: this "
                f"policy acts on the last {self.history} of each; call reset() before new episodes"
            )
        seeds = np.asarray(self.seed + np.arange(len(rows)), np.int32)
        seen = self._recall(self._called, rows, range(len(rows)))
        action = self._decide(seen, seeds, self.step).reshape(*obs.shape[:-1], -1)
        self.step += 1
        return action


def template(algorithm: Algorithm, task: tasks.TaskSpec, frozen: Params = None):
    """Return shapes and types of (acting weights, normaliser), without allocating them."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = (key,) if frozen is None else (key, frozen)
    state = jax.eval_shape(algorithm.init, *arguments)
    params, limits = (
        state.params,
        jax.eval_shape(lambda: windows.identity(task.obs_dim, task.act_dim)),
    )
    if algorithm.inference_params:
        params = jax.eval_shape(algorithm.inference_params, params, state.frozen, limits)
    return {"params": params, "normalizer": limits}


def abstract_frozen(config: dict, task: tasks.TaskSpec, stage: str) -> Params:
    """Return shapes and types of the weights a stage needs of earlier stages, None if none."""
    needs = stages.needs(config, stage)

    def params(need):
        deeper = abstract_frozen(config, task, need)
        return template(stages.make(config, task, need), task, deeper)["params"]

    return {role: params(need) for role, need in needs.items()} or None


def load_policy(
    run: str | pathlib.Path,
    seed: int = 0,
    precision: str = "",
    *,
    candidates: int = 0,
    judge: str | pathlib.Path | None = None,
    inverse_temperature: float | None = None,
    update: int | None = None,
    **sampling,
) -> Policy:
    """Load a trained policy.

    Args:
        run: directory of a training run, e.g. `runs/hopper-medium-replay-v2/<...>/student`.
        seed: of the policy's noise.
        precision: "float32" or "bfloat16", in which its network computes; "" for the one it was
            trained in.
        candidates: trajectories that are drawn for each decision, of which a judge chooses one; 0
            for as many as its method is meant to act with (1, for most).
        judge: directory of the run that judges them: a return model, or a critic; None for the
            one that its configuration names, in the folder beside.
        inverse_temperature: see `Reselect`; None for the configuration's.
        update: after which it was saved, of those that are kept (`training.keep`); None: the last.
        **sampling: fields of its method that only acting heeds (`stages.SAMPLING`), where they are
            not to be those it was trained with: nfe=2 for a student.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, the model
            does not act, or the judge does not judge, is of another task or sees observations in
            another frame.
    """
    run = pathlib.Path(run)
    algorithm, saved, task = load(run, precision, update=update, **sampling)
    if task.kind == "planner":
        raise UserError(f"{run} plans states: ractd_jax.load_planner loads it")
    config, stage = run_dir.read(run)
    with run_dir.of_this_version(run):
        words, history = stages.reselection(config, stage), stages.history(config, stage)
    count = candidates or words["candidates"]
    reselect = None
    if count > 1:
        judge = pathlib.Path(judge or run.parent / words["judge"])
        if inverse_temperature is None:
            inverse_temperature = words["inverse_temperature"]
        # A policy that is its own judge is one checkpoint.
        itself = judge.absolute() == run.absolute()
        critic, judges, its_task, sees = _load_judge(judge, update if itself else None)
        if its_task.name != task.name:
            raise UserError(f"{run} acts in {task.name}, {judge} judges {its_task.name}")
        if sees != stages.frame(config, stage):
            raise UserError(
                f"{run} and {judge} see observations in different frames; train them with the "
                "same data.frame"
            )
        ours, its = (jax.tree.map(np.asarray, s["normalizer"][:2]) for s in (saved, judges))
        if max(map(normalization.gap, ours, its)) > 1e-4:  # of other data, not of other rounding
            critic = critic._replace(value=_in_units_of(critic.value, ours, its))
        reselect = Reselect(critic, judges["params"], count, inverse_temperature)
    return Policy(algorithm, saved["params"], saved["normalizer"], task, seed, reselect, history)


def _in_units_of(judge, ours: Sequence[normalization.Limits], its: Sequence[normalization.Limits]):
    """Return a judge of what a policy sees and does, given the maps of both."""
    seen, done = zip(ours, its, strict=True)

    def judged(params, x, cond):
        x, cond = (
            normalization.normalize(normalization.unnormalize(values, a), b)
            for values, (a, b) in ((x, done), (cond, seen))
        )
        return judge(params, x, cond)

    return judged


def _load_judge(
    run: pathlib.Path, update: int | None = None
) -> tuple[Algorithm, Params, tasks.TaskSpec, str]:
    """Return a judge, its weights, its task and the frame in which it sees its data."""
    if not (run / checkpoints.CONFIG).exists():
        raise UserError(
            f"several candidates need a judge, and there is no trained one in {run}: train the "
            f"stage {run.name}, or ask for candidates=1"
        )
    algorithm, saved, task = load(run, acting=False, update=update)
    if algorithm.value is None:
        raise UserError(f"{run} acts and judges nothing: name a return model or a critic")
    return algorithm, saved, task, stages.frame(*run_dir.read(run))


def judging(run: str | pathlib.Path):
    """Return `(obs (batch, obs), actions (batch, act)) -> (batch,)`, what a judge says of actions.

    Raises:
        UserError: `run` holds no trained judge, or one that judges more than single actions.
    """
    run = pathlib.Path(run)
    algorithm, saved, *_ = _load_judge(run)
    limits = saved["normalizer"]

    @jax.jit
    def worth(params, obs, actions):
        x = normalization.normalize(actions, limits.actions)[:, None]
        return algorithm.value(params, x, normalization.normalize(obs, limits.observations))

    def call(obs: Float[np.ndarray, "batch obs"], actions: Float[np.ndarray, "batch act"]):
        return np.asarray(worth(saved["params"], obs, actions))

    return call


def load(
    run: str | pathlib.Path,
    precision: str = "",
    *,
    acting: bool = True,
    update: int | None = None,
    **sampling,
) -> tuple[Algorithm, Params, tasks.TaskSpec]:
    """Return a trained model: its algorithm, {"params", "normalizer"}, and what it was made for.

    Raises:
        UserError: as `load_policy`; for a model that does not act, unless it is not to (`acting`).
    """
    run = pathlib.Path(run)
    config, stage = run_dir.read(run)
    with run_dir.of_this_version(run):  # as it was saved: below come the caller's words
        compilation_cache.keep(
            config["training"].get("compilation_cache", compilation_cache.FOLDER)
        )
        task = tasks.from_config(config)
        frozen = abstract_frozen(config, task, stage)
        like = template(stages.make(config, task, stage), task, frozen)
    for name, value in sampling.items():
        config[stage]["method"][choose("field", name, stages.SAMPLING.get(stage, ()))] = value
    if precision:
        config["training"]["precision"] = precision
    algorithm = stages.make(config, task, stage)
    if acting and algorithm.act is None:
        raise UserError(f"{run} holds a return model, which judges actions and does not act")
    saved = restore(run, like, update)
    params = saved["params"]
    if stage != "diffuser" and "kind" in config[stage].get("network", {}):
        # Once, here: the network would do the same to the same weights at every call.
        params = networks.rounded(params, stages.precision(config))
    return algorithm, saved | {"params": params}, task


def restore(run: pathlib.Path, like: Params, update: int | None = None) -> Params:
    """Return the `policy` item of a run's newest checkpoint, or of that of some update.

    Raises:
        UserError: there is none, or it does not fit.
    """
    store = checkpoints.Checkpoints(run)
    steps = store.steps()
    if not steps:
        raise UserError(f"{run} holds no whole checkpoint; train it again with --resume")
    step = steps[-1] if update is None else update
    if step not in steps:
        raise UserError(
            f"{run} holds no checkpoint of update {step:,}, only of "
            f"{', '.join(f'{s:,}' for s in steps)}; training.save_every and training.keep say which"
        )
    saved = store.restore(step, "policy", like)
    store.close()
    return saved
