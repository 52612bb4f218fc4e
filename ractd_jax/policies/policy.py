"""A policy: normalise, sample, choose, un-normalise, take the first action.

policy = ractd_jax.load_policy("runs/.../student")
action = policy(observation)
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from ractd_jax import tasks
from ractd_jax.data import normalization
from ractd_jax.data.normalization import Normalizer
from ractd_jax.errors import UserError
from ractd_jax.nn.cpu import matmul
from ractd_jax.policies import keys as row_noise
from ractd_jax.policies import selection
from ractd_jax.policies.selection import BestOfN
from ractd_jax.types import Algorithm, Params


class Policy:
    """A policy with a jitted sampler.

    Args:
        algorithm: whose `act` draws trajectories.
        params: its weights.
        normalizer: that it was trained with.
        task: what it acts in.
        seed: of the noise of `__call__`.
        best_of_n: how to choose among several samples; None takes the one that is drawn.
        history: observations of an episode that an action depends on, the present one among them.
            The policy keeps those before it; where an episode begins they are its first one.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        normalizer: Normalizer,
        task: tasks.TaskSpec,
        seed: int = 0,
        best_of_n: BestOfN | None = None,
        history: int = 1,
    ):
        self.task, self.seed, self.step, self.history = task, seed, 0, history
        # What was seen last of each episode: by its seed in `act`, by its row in `__call__`.
        self._episodes: dict[int, np.ndarray] = {}
        self._called: dict[int, np.ndarray] = {}
        # Observations are counted from their origin here, in float64, and the rest is compiled.
        self._origin, centered = normalization.split_origin(normalizer)
        self._normalizer = jax.device_put(centered)
        params = jax.jit(matmul.transpose_kernels)(params)
        self._params = jax.device_put((params, best_of_n.params if best_of_n else None))
        low, high = task.action_limits()
        draw_from = algorithm.act
        assert draw_from is not None

        def draw(params, cond, keys):
            with matmul.transposed_kernels():
                return draw_from(params, cond, keys)

        def sample(params, cond, keys):
            params, critic_params = params
            if best_of_n is None:
                return draw(params, cond, keys)
            count = best_of_n.candidates
            many = row_noise.candidate_keys(keys, count + 1)  # the last one chooses
            x = draw(params, jnp.repeat(cond, count, axis=0), many[:, :-1].reshape(-1))
            x = x.reshape(len(cond), count, *x.shape[1:])
            present = cond[:, -task.obs_dim :]  # all that critics have learnt from
            return selection.choose(best_of_n, critic_params, x, present, many[:, -1])

        def act(params, normalizer, seen, seeds, step):
            keys = row_noise.row_keys(seeds, step)
            cond = normalization.normalize(seen, normalizer.observations).reshape(len(seen), -1)
            plan = sample(params, cond, keys)
            action = normalization.unnormalize(plan[:, 0], normalizer.actions)
            return action.clip(low[None], high[None])

        self._act = jax.jit(act)

    def act(
        self, obs: Float[np.ndarray, "batch obs"], seeds: Int[np.ndarray, " batch"], step: int
    ) -> Float[np.ndarray, "batch act"]:
        """Return an action for each row; its noise depends on (seed of the row, step) alone.

        With a history a seed stands for an episode, which begins at step 0 or where it is first
        seen.
        """
        obs, seeds = np.asarray(obs), np.asarray(seeds, np.int32)
        obs = normalization.center(obs, self._origin)
        seen = self._recall(self._episodes, obs, seeds.tolist(), begins=step == 0)
        return self._decide(seen, seeds, step)

    def _decide(
        self,
        seen: Float[np.ndarray, "batch history obs"],
        seeds: Int[np.ndarray, " batch"],
        step: int,
    ) -> Float[np.ndarray, "batch act"]:
        return np.asarray(self._act(self._params, self._normalizer, seen, seeds, np.int32(step)))

    def _recall(
        self,
        memory: dict[int, np.ndarray],
        obs: Float[np.ndarray, "batch obs"],
        episodes: Sequence[int] | Iterable[int],
        *,
        begins: bool = False,
    ) -> Float[np.ndarray, "batch history obs"]:
        """Return what each row's episode showed last, oldest first, and keep it in `memory`."""
        seen = np.repeat(obs[:, None], self.history, axis=1)
        if self.history == 1:
            return seen
        episodes = list(episodes)
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

    def __call__(self, obs: npt.ArrayLike) -> Float[np.ndarray, "*batch act"]:
        """Return the next action for one observation (obs,) or for several (batch, obs).

        A policy of a history takes each row for the next observation of the same episode as in the
        call before; `reset` says that other episodes begin.

        Raises:
            UserError: the observation has another size, or is not finite, or there are not as many
                as there are episodes.
        """
        obs = np.asarray(obs)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.task.obs_dim:
            raise UserError(
                f"observation of shape {obs.shape}: {self.task.name} has {self.task.obs_dim} "
                f"numbers, so give ({self.task.obs_dim},) or (batch, {self.task.obs_dim})"
            )
        if obs.dtype.kind not in "biuf":
            raise UserError(f"an observation of {obs.dtype}: give numbers")
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused
            centered = normalization.center(obs, self._origin)
        if not np.isfinite(centered).all():
            raise UserError("the observation holds NaN or infinity")
        if not obs.size:
            raise UserError("an empty batch: there is nothing to act on")
        rows = np.atleast_2d(centered)
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
