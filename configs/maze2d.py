"""Maze2d: what its three mazes share.

A model plans the states between two given ones, as many as `data.horizon`. The return model values
every planned state; with `data.discount` 0 it says 1 at the goal and 0 elsewhere, as the paper, and
otherwise the discounted return-to-go of an episode that ends at the goal, as the published code.
Sources: RACTD section 4.2 and appendix A.1 for `paper`, the published YAML files and code for
`released`.
"""

from typing import Any

from ml_collections import ConfigDict

from ractd_jax import tasks

from . import base


def make(name: str, arg: str | None, *, horizon: int, **numbers: Any) -> ConfigDict:
    """Return the configuration of a maze.

    Args:
        name: D4RL's dataset id.
        arg: what follows the colon on the command line.
        horizon: states of a plan.
        **numbers: of the maze:
            down_dims: channels of the U-Net at paper size.
            batch_size: of the student at paper size, as released.
            reward_weight: sigma of Eq. 9 by preset; the paper gives none for the mazes.
            diffuser_steps: of Diffuser's schedule, as published.
            demo_steps: updates at demo size, of teacher (also DDPM and Diffuser) and students.
    """
    given = base.given(tasks.get(name), arg, horizon=horizon, **numbers)
    data = {"horizon": horizon, "discount": 0.0, "termination_penalty": 0.0}
    noise: dict[str, Any] = {}
    evaluation = {
        "replan_every": 10,
        "replan": ("ctd", "student"),  # the teacher's plans take too long
        "follow": "inverse",
    }
    training = {}
    if given.preset == "released":
        data |= {"discount": 0.99, "drop_last_window": True}
        noise |= {"initial_std": 1.0, "clamp": False}
        evaluation["follow"] = "waypoints"
    if given.preset == "default":
        data |= {"discount": 0.99, "goal_relabel": 0.5}
    if given.size != "paper":
        training = {"updates_per_dispatch": 100, "save_every": 2000}
    return base.make(given, data=data, noise=noise, eval=evaluation, training=training)
