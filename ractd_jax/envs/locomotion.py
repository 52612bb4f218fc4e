"""Hopper, Walker2d and HalfCheetah as D4RL recorded them, on today's MuJoCo.

The originals are gym 0.23's `Hopper-v2`, `Walker2d-v2` and `HalfCheetah-v2` on MuJoCo 2.1.
Gymnasium's `-v4` keeps their observations, rewards, ends and starts (the same seed begins the same
episode), but not their masses and contacts; `physics` says why, and puts the originals' in. Ids:
`ractd_jax/{Hopper,Walker2d,HalfCheetah}-v2`, known to Gymnasium once this module is imported.

An action in [-1, 1] is a torque in units of a joint's gear; what lies outside is clipped by MuJoCo,
and costs what it is.
"""
# pyright: reportAttributeAccessIssue=false

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import half_cheetah_v4, hopper_v4, walker2d_v4

from ractd_jax.envs import physics

TIME_LIMIT = 1000  # steps of an episode


class _Original:
    """What the three have in common; goes before Gymnasium's class."""

    robot: str  # its name in `physics`
    _ctrl_cost_weight: float

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Compile the model, as Gymnasium does, and give it back its original numbers."""
        model, _ = super()._initialize_simulation()
        physics.restore(model, self.robot)
        return model, mujoco.MjData(model)

    def _step_mujoco_simulation(self, ctrl: Any, n_frames: int) -> None:
        """Step without the contact forces that Gymnasium adds, which nothing here observes."""
        self.data.ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data, nstep=n_frames)

    def control_cost(self, action: Any) -> float:
        """Return the weighted square of an action; as a Python number, the weight is not rounded.

        NumPy 1 multiplied a float32 sum in float64, NumPy 2 does not: 4e-8 of the reward.
        """
        return self._ctrl_cost_weight * float(np.sum(np.square(action)))


class Hopper(_Original, hopper_v4.HopperEnv):
    """One leg that hops; falling ends the episode. Observation (11,), action (3,)."""

    robot = "hopper"


class Walker2d(_Original, walker2d_v4.Walker2dEnv):
    """Two legs that walk; falling ends the episode. Observation (17,), action (6,)."""

    robot = "walker2d"


class HalfCheetah(_Original, half_cheetah_v4.HalfCheetahEnv):
    """A runner that cannot fall; nothing ends the episode. Observation (17,), action (6,)."""

    robot = "halfcheetah"


for _class in (Hopper, Walker2d, HalfCheetah):
    gymnasium.register(
        f"ractd_jax/{_class.__name__}-v2",
        f"ractd_jax.envs.locomotion:{_class.__name__}",
        max_episode_steps=TIME_LIMIT,
    )
