"""Acting with a model that plans states: ask for the way to the goal, and follow it.

    planner = ractd_jax.load_planner("runs/.../student")
    states = planner(observation, goal)          # (horizon, obs)

    open loop      one plan an episode, from its first state; the rest is control, as published
                   (RACTD section 4.2; Diffuser, Janner et al. 2022)
    closed loop    another plan every few steps, from where the ball really is, taken if it arrives
                   sooner than the one in hand; affordable where a plan is one network call

Both follow a plan by the controller `envs.waypoint_controller.push`, which the released code uses
where the paper has a "reverse dynamics model", or by a learned one, `load_control`. The score is
D4RL's, of the plain sum of rewards.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from ractd_jax import tasks
from ractd_jax.data import normalization
from ractd_jax.data.normalization import Normalizer
from ractd_jax.envs import maze2d, waypoint_controller
from ractd_jax.errors import UserError
from ractd_jax.policies import keys as row_noise
from ractd_jax.types import Algorithm, Params

STRAYED = 0.3  # cells from where the plan in hand says to be: it does not hold any more
NEAR = 0.1  # cells by which a plan's states may be further from the ball than the nearest of them


class Planner:
    """A jitted sampler of plans: sequences of states from one to another.

    Args:
        algorithm: whose `act` draws trajectories of states.
        params: its weights.
        normalizer: that it was trained with.
        task: what it plans for.
        seed: of the noise of `__call__`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        params: Params,
        normalizer: Normalizer,
        task: tasks.TaskSpec,
        seed: int = 0,
    ):
        self.task, self.seed, self.calls = task, seed, 0
        # States are counted from their origin outside, in float64, and the rest is compiled.
        self._origin, centered = normalization.split_origin(normalizer)
        self._params, self._normalizer = jax.device_put((params, centered))
        draw = algorithm.act
        assert draw is not None

        def plan(params, normalizer, obs, goals, seeds, step):
            keys = row_noise.row_keys(seeds, step)
            ends = (normalization.normalize(end, normalizer.observations) for end in (obs, goals))
            states = draw(params, jnp.concatenate([*ends], axis=-1), keys)
            return normalization.unnormalize(states, normalizer.observations)

        self._plan = jax.jit(plan)

    def plan(
        self,
        obs: Float[np.ndarray, "batch obs"],
        goals: Float[np.ndarray, "batch obs"],
        seeds: Int[np.ndarray, " batch"],
        step: int,
    ) -> Float[np.ndarray, "batch horizon obs"]:
        """Return planned states; the noise of a row depends on (its seed, step) alone.

        Args:
            obs: where the plans begin.
            goals: where they end.
            seeds: of the noise.
            step: of the episode, so that every plan of it has other noise.
        """
        rows = (normalization.center(np.asarray(end), self._origin) for end in (obs, goals))
        seeds = np.asarray(seeds, np.int32)
        plans = self._plan(self._params, self._normalizer, *rows, seeds, np.int32(step))
        return np.asarray(plans) + self._origin if self._origin.any() else np.asarray(plans)

    def __call__(
        self, obs: npt.ArrayLike, goal: npt.ArrayLike
    ) -> Float[np.ndarray, "*batch horizon obs"]:
        """Return the states from one observation (obs,), or several (batch, obs), to the goal.

        Args:
            obs: where to begin, (obs,) or (batch, obs).
            goal: where to be at the end: an observation, for each of `obs` or for all of them.

        Raises:
            UserError: one of them has another size, or is not finite.
        """
        size = self.task.obs_dim
        obs, goal = np.asarray(obs, np.float64), np.asarray(goal, np.float64)
        for name, end in (("observation", obs), ("goal", goal)):
            if end.ndim not in (1, 2) or end.shape[-1] != size:
                raise UserError(
                    f"{name} of shape {end.shape}: {self.task.name} has {size} numbers, so give "
                    f"({size},) or (batch, {size})"
                )
            if not np.isfinite(end).all():
                raise UserError(f"the {name} holds NaN or infinity")
        if goal.ndim > obs.ndim or (goal.ndim == 2 and goal.shape != obs.shape):
            raise UserError(f"{goal.shape} goals do not fit {obs.shape} observations")
        rows = np.atleast_2d(obs)
        seeds = self.seed + np.arange(len(rows))
        states = self.plan(rows, np.broadcast_to(goal, rows.shape), seeds, self.calls)
        self.calls += 1
        return states.reshape(*obs.shape[:-1], *states.shape[1:])


Control = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (obs, wanted (batch, obs)) -> actions


class Follower:
    """Turns plans into actions: a policy for `evaluation.rollouts`.

    Args:
        planner: makes the plans.
        every: steps between proposed plans; 0 plans once an episode (open loop).
        goal: the state to plan to; by default the task's, at rest.
        control: how to get from where the ball is to the next state of the plan.

    Attributes:
        plans: seed of an episode -> the plan in hand.
    """

    def __init__(
        self,
        planner: Planner,
        every: int = 0,
        goal: np.ndarray | None = None,
        control: Control = waypoint_controller.push,
    ):
        if every < 0:
            raise UserError(f"eval.replan_every is {every}: steps between plans are 1 or more")
        self.planner, self.every, self.control = planner, every, control
        self.goal = task_goal(planner.task) if goal is None else np.asarray(goal, np.float32)
        self.plans: dict[int, np.ndarray] = {}
        self._begun: dict[int, int] = {}  # seed -> the step at which that begins

    def act(
        self, obs: Float[np.ndarray, "batch obs"], seeds: Int[np.ndarray, " batch"], step: int
    ) -> Float[np.ndarray, "batch act"]:
        """Return the action of each episode at a step, after planning where that is due.

        A model's plans are all of one length, however short the way. So in closed loop a new plan
        has to arrive sooner than the one in hand, or arrival would always be a plan's length ahead;
        it is joined where it leaves the place where the ball is, without its detours before; and
        where the goal is reached the plan is to rest there.
        """
        if step == 0 or (self.every and step % self.every == 0):
            goals = np.broadcast_to(self.goal, obs.shape)
            plans = self.planner.plan(obs, goals, seeds, step)
            if self.every:
                rests = maze2d.at_goal(obs[:, :2], self.goal[:2]) > 0
                plans = np.where(rests[:, None, None], goals[:, None], plans)
            for i, seed in enumerate(seeds.tolist()):
                plan = plans[i][_join(plans[i], obs[i]) if self.every else 0 :]
                if step == 0 or rests[i] or self._better(plan, obs[i], seed, step):
                    self.plans[seed], self._begun[seed] = plan, step
        wanted = [
            waypoint_controller.wanted(self.plans[s], step - self._begun[s]) for s in seeds.tolist()
        ]
        return self.control(obs, np.array(wanted))

    def _better(
        self,
        plan: Float[np.ndarray, "steps 4"],
        obs: Float[np.ndarray, "4"],
        seed: int,
        step: int,
    ) -> bool:
        """Tell if a plan arrives sooner than the one in hand, or that one no longer holds."""
        age = step - self._begun[seed]
        planned = waypoint_controller.wanted(self.plans[seed], age - 1)
        strayed = np.hypot(*(obs - planned)[:2]) > STRAYED
        left = self._arrival(self.plans[seed]) - age
        over = left <= 0 or age >= len(self.plans[seed])
        return bool(strayed) or over or self._arrival(plan) < left

    def _arrival(self, plan: Float[np.ndarray, "steps 4"]) -> float:
        """Return the first step of a plan that is at the goal; infinity if there is none."""
        there = maze2d.at_goal(plan[:, :2], self.goal[:2]) > 0
        return float(np.argmax(there)) if there.any() else math.inf


def _join(plan: Float[np.ndarray, "horizon 4"], obs: Float[np.ndarray, "4"]) -> int:
    """Return the last of a plan's steps that are about as near to where the ball is as any."""
    away = np.hypot(*(plan - obs[None])[:, :2].T)
    return int(np.flatnonzero(away <= away.min() + NEAR)[-1])


def task_goal(task: tasks.TaskSpec) -> Float[np.ndarray, "4"]:
    """Return the state that earns a Maze2d task's reward: its goal, at rest."""
    return np.array([*maze2d.of_task(task).goal, 0.0, 0.0], np.float32)
