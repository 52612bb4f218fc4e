"""An installed `gym` + `d4rl` (old API, mujoco-py) behind Gymnasium's interface.

    gym before 0.26:  env.seed(seed); obs = env.reset()
                      obs, reward, done, info = env.step(action)
    Gymnasium:        obs, info = env.reset(seed=seed)
                      obs, reward, terminated, truncated, info = env.step(action)

`source=gym-d4rl` uses it: data from `get_dataset`, evaluation in the environments that D4RL
recorded. d4rl needs mujoco-py and gym before 0.26, whose NumPy does not go with JAX's: then they
live in an interpreter of their own, which `RACTD_D4RL_PYTHON` names (`gym_process`).
"""

from typing import Any

import gymnasium
import numpy as np

from ractd_jax import errors
from ractd_jax.envs import gym_process, gym_worker


class GymAdapter(gymnasium.Env):
    """An old `gym` environment with the part of Gymnasium's interface that is used here.

    Args:
        env: has `reset() -> obs`, `step(a) -> (obs, reward, done, info)` and `seed(k)`.
    """

    def __init__(self, env: Any):
        self.env = env
        self.action_space, self.observation_space = env.action_space, env.observation_space

    @property
    def unwrapped(self) -> "GymAdapter":
        """The adapter itself, which knows the simulator's state."""
        return self

    @property
    def data(self) -> Any:
        """MuJoCo's state, with `qpos` and `qvel` as those of Gymnasium have it."""
        return self.env.unwrapped.sim.data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; the same seed begins the same one. There are no options."""
        if seed is not None:
            self.env.seed(seed)
        return np.asarray(self.env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act; an episode that its time limit ended (`TimeLimit.truncated`) is truncated.

        Raises:
            UserError: this gym has the new API.
        """
        answer = self.env.step(action)
        if len(answer) != 4:
            raise errors.UserError(
                f"this gym's step gives {len(answer)} values, the adapter is for the 4 of "
                "gym < 0.26, which d4rl needs"
            )
        obs, reward, done, info = answer
        truncated = bool(info.get("TimeLimit.truncated", False))
        return np.asarray(obs), float(reward), bool(done) and not truncated, truncated, info

    def close(self) -> None:
        """Free the simulator."""
        self.env.close()

    def get_dataset(self) -> dict[str, np.ndarray]:
        """Return D4RL's columns, which `d4rl` downloads where they are missing.

        Raises:
            UserError: it cannot.
        """
        try:
            return self.env.get_dataset()
        except Exception as error:  # d4rl lets through what h5py, urllib and os raise
            raise errors.UserError(
                f"d4rl cannot get its dataset: {_line(error)}; try source=d4rl"
            ) from error


def make(name: str) -> GymAdapter:
    """Make the `gym` environment that `d4rl` registers under a dataset's id.

    Args:
        name: D4RL's dataset id, as `hopper-medium-replay-v2`.

    Raises:
        UserError: the packages are missing, do not load, or do not know the id.
    """
    if gym_process.python():
        try:
            return GymAdapter(gym_process.OldEnv(name))
        except errors.UserError as error:
            raise errors.UserError(f"gym cannot make {name}: {error}") from error
    try:
        import gym  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:
        raise _missing(error) from error
    try:
        return GymAdapter(gym_worker.make(name))
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # gym's errors share no other base, and mujoco-py raises this one
        raise errors.UserError(f"gym cannot make {name}: {_line(error)}") from error


def _missing(error: BaseException) -> errors.UserError:
    return errors.UserError(
        "source=gym-d4rl needs the packages gym and d4rl, which do not load here "
        f"({_line(error)}): {gym_process.VARIABLE}=<a Python that has them> takes them from there "
        "(docs/data.md), and source=d4rl reads the same data without them"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
