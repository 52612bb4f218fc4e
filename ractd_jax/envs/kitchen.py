"""D4RL's Kitchen: an arm with nine joints and four subtasks, on Farama's FrankaKitchen.

gymnasium-robotics has D4RL's kitchen and its robot on today's MuJoCo, but with another observation
and less noise. Here robot and scene are from gymnasium-robotics; observation, noise and reward are
D4RL's (Fu et al. 2020; Farama-Foundation/D4RL, `kitchen`). Ids:
`ractd_jax/Kitchen-{complete,partial,mixed}-v0`, known to Gymnasium once this module is imported.

    observation  0:9    joints of the robot (rad, m for the two fingers)
                 9:30   joints of the objects, the kettle's pose last
                 30:60  the goal: zero but for the joints of the four subtasks
    action       nine joint velocities in [-1, 1], times 2 rad/s; one lasts 0.08 s
    reward       subtasks that this step was the first to finish
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo is a compiled module without type stubs)

import contextlib
import functools
import io
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Float, UInt8

from ractd_jax import errors, tasks

INSTALL = "pip install gymnasium-robotics (the extra kitchen)"
MODEL = "../assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"  # in gymnasium-robotics
_SLIDER = ("microwave", "kettle", "light switch", "slide cabinet")
SUBTASKS = {
    "complete": _SLIDER,
    "partial": _SLIDER,
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
# subtask: its first joint, and where its joints are when it is done
GOALS = {
    "bottom burner": (11, (-0.88, -0.01)),
    "light switch": (17, (-0.69, -0.05)),
    "slide cabinet": (19, (0.37,)),
    "microwave": (22, (-0.75,)),
    "kettle": (23, (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
NEAR = 0.3  # a subtask is done within this distance of its goal
JOINTS, ROBOT = 30, 9
# D4RL's start of every episode
START = np.array([
    0.148388023, -1.76848573, 1.84390296, -2.4768576, 0.260252026, 0.712533105, 1.59515394,
    0.0479267505, 0.0371350919, -2.6627985e-4, -5.18043486e-5, 3.1287722e-5,
    -4.51199853e-5, -3.90842156e-6, -4.22629655e-5, 6.28065475e-5, 4.04984708e-5, 4.62730939e-4,
    -2.26906415e-4, -4.65501369e-4, -6.44129196e-3, -1.77048263e-3, 1.08009684e-3, -0.26939744,
    0.350383255, 1.61944683, 1.00618764, 4.0639512e-3, -6.62095997e-3, -2.68278933e-4,
])  # fmt: skip
START[26:] /= np.linalg.norm(START[26:])  # the kettle's attitude, as D4RL's MuJoCo made it
# Half width of the uniform noise that is added to every observed joint: 10 % of D4RL's figures.
NOISE = 0.1 * np.repeat((0.1, 0.005, 5e-4, 0.005, 0.1, 0.005, 0.1, 0.005), (9, 2, 6, 3, 3, 3, 3, 1))


def subtasks(task: tasks.TaskSpec) -> tuple[str, ...]:
    """Return the subtasks of a Kitchen task.

    Raises:
        UserError: it is no Kitchen task.

    Example:
        >>> subtasks(tasks.get("kitchen-mixed-v0"))
        ('microwave', 'kettle', 'bottom burner', 'light switch')
    """
    if task.domain != "kitchen":
        raise errors.UserError(f"{task.name} is no Kitchen task: use kitchen-mixed-v0, for example")
    return SUBTASKS[task.name.removeprefix("kitchen-").removesuffix("-v0")]


def goal(names: tuple[str, ...]) -> Float[np.ndarray, "30"]:
    """Return the goal of all joints as D4RL observes it: zero for those of no subtask."""
    joints = np.zeros(JOINTS)
    for name in names:
        first, values = GOALS[name]
        joints[first : first + len(values)] = values
    return joints


def done(joints: Float[np.ndarray, "30"], name: str) -> bool:
    """Return whether a subtask is done in the observed joints."""
    first, values = GOALS[name]
    return bool(np.linalg.norm(joints[first : first + len(values)] - values) < NEAR)


def from_minari(
    observation: np.ndarray, desired: Mapping[str, Any], task: tasks.TaskSpec, where: str
) -> Float[np.ndarray, "n 60"]:
    """Return D4RL's observations (n, 60) for FrankaKitchen's (n, 59), as Minari keeps them.

    FrankaKitchen observes the robot's positions and velocities, then those of the objects. D4RL
    observes no velocity, but the goal.

    Args:
        observation: `observation` of an episode.
        desired: `desired_goal`, with a key for each subtask.
        task: a Kitchen task.
        where: the dataset, for the message.

    Raises:
        UserError: other numbers than FrankaKitchen's, or other subtasks than the task's.
    """
    names = subtasks(task)
    if observation.ndim != 2 or observation.shape[1] != 59:
        raise errors.UserError(f"{where} observes {observation.shape[1:]}, FrankaKitchen (59,)")
    if set(desired) != set(names):
        raise errors.UserError(
            f"{where} is not {task.name} data: its subtasks are {', '.join(sorted(desired))}, "
            f"the task's {', '.join(sorted(names))}"
        )
    joints = observation[:, :ROBOT], observation[:, 2 * ROBOT : ROBOT + JOINTS]
    goals = np.broadcast_to(goal(names), (len(observation), JOINTS))
    return np.concatenate([*joints, goals], axis=1)


class Kitchen(gymnasium.Env):
    """The kitchen with the four subtasks of one dataset; the episode ends when all are done.

    Args:
        kind: `complete`, `partial` or `mixed`.
        render_mode: None or `rgb_array`, which needs OpenGL.

    Raises:
        UserError: gymnasium-robotics is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, kind: str = "partial", render_mode: str | None = None):
        self.subtasks = SUBTASKS[errors.choose("kitchen", kind, SUBTASKS)]
        self.robot, self.render_mode = _robot_class()(MODEL, render_mode=render_mode), render_mode
        self.robot.robot_noise_ratio = 0.1  # D4RL's; the controller follows the noisy joints
        self.robot.init_qpos, self.robot.init_qvel = START, np.zeros(self.robot.model.nv)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2 * JOINTS,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ROBOT,), np.float32)
        self._left = set(self.subtasks)

    @property
    def model(self) -> Any:
        """MuJoCo's model, shared by all kitchens of this process."""
        return self.robot.model

    @property
    def data(self) -> Any:
        """MuJoCo's state."""
        return self.robot.data

    @property
    def dt(self) -> float:
        """Seconds an action lasts."""
        return self.robot.dt

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, "60"], dict[str, Any]]:
        """Put everything where D4RL does; the seed is that of the noise."""
        super().reset(seed=seed)
        joints, _ = self.robot.reset(seed=seed)
        self._left = set(self.subtasks)
        return self._observe(joints), {"left": sorted(self._left)}

    def step(
        self, action: Any
    ) -> tuple[Float[np.ndarray, "60"], float, bool, bool, dict[str, Any]]:
        """Move for 0.08 s; the reward is computed from the noisy joints, as D4RL's is.

        Raises:
            UserError: the action has another shape.
        """
        if np.shape(action) != (ROBOT,):
            raise errors.UserError(f"a Kitchen action has shape (9,), not {np.shape(action)}")
        obs = self._observe(self.robot.step(np.asarray(action, np.float64))[0])
        finished = {name for name in self._left if done(obs[:JOINTS], name)}
        self._left -= finished
        return obs, float(len(finished)), not self._left, False, {"left": sorted(self._left)}

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the kitchen."""
        return self.robot.render()

    def close(self) -> None:
        """Free the simulator."""
        self.robot.close()

    def _observe(self, robot: Float[np.ndarray, "18"]) -> Float[np.ndarray, "60"]:
        """Return D4RL's observation; `robot` holds the noisy joints, and velocities."""
        noise = self.robot.np_random.uniform(-1.0, 1.0, JOINTS - ROBOT)
        objects = self.data.qpos[ROBOT:] + NOISE[ROBOT:] * noise
        return np.concatenate([robot[:ROBOT], objects, goal(self.subtasks)])


@functools.cache
def _compiled(path: str) -> Any:
    """Return the MuJoCo model, which takes seconds to compile and never changes."""
    return mujoco.MjModel.from_xml_path(path)


@functools.cache
def _robot_class() -> type:
    """Return gymnasium-robotics' robot, whose instances share one compiled model."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # a notice about other robots
            from gymnasium_robotics.envs.franka_kitchen import franka_env
    except ImportError as error:
        raise errors.UserError(
            f"the Kitchen environment needs the package gymnasium-robotics: {INSTALL}"
        ) from error

    class Robot(franka_env.FrankaRobot):
        def _initialize_simulation(self) -> tuple[Any, Any]:
            model = _compiled(self.fullpath)
            return model, mujoco.MjData(model)

    return Robot


for _kind in SUBTASKS:
    gymnasium.register(
        f"ractd_jax/Kitchen-{_kind}-v0",
        "ractd_jax.envs.kitchen:Kitchen",
        max_episode_steps=tasks.get(f"kitchen-{_kind}-v0").max_episode_steps,
        kwargs={"kind": _kind},
    )
