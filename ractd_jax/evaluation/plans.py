"""Evaluate and draw models that plan states: in open loop as published, and in closed loop.

One plan an episode, or another proposed every `eval.replan_every` steps for the stages in
`eval.replan`; see `planning`. The protocol is that of `evaluation`.
"""

import pathlib
from typing import Any

import numpy as np

from ractd_jax.data import sources
from ractd_jax.envs import waypoint_controller
from ractd_jax.evaluation import measure, rollouts
from ractd_jax.evaluation.rows import EvalRow
from ractd_jax.policies import planning
from ractd_jax.report import maze, style
from ractd_jax.training import checkpoints, config_checks
from ractd_jax.training.pipeline import Experiment

CLOSED = "closed loop"
CONTROL, _ = config_checks.FOLLOW  # the published one
STARTS = 4  # in the picture of a stage


def evaluate(experiment: Experiment, sampler: EvalRow) -> list[dict[str, Any]]:
    """Roll a planner out; write its eval.json, and eval_closed_loop.json; return their contents.

    `action_ms` is the time of one plan.
    """
    settings, run = experiment.config["eval"], experiment.workdir / sampler.stage
    planner = planning.load_planner(run, update=sampler.update, **sampler.fields)
    goal = planning.task_goal(experiment.task)[None]
    start = np.zeros(1, np.int32)
    took = {
        "decides": "plan",
        "action_ms": measure.median_ms(lambda step: planner.plan(goal, goal, start, step)),
    }
    control, follow = control_of(experiment), settings["follow"]
    ways = {(): 0}
    if settings["replan_every"] and sampler.stage in settings["replan"]:
        ways[(CLOSED,)] = settings["replan_every"]
    entries = []
    for manner, every in ways.items():
        act = planning.Follower(planner, every, control=control).act
        how = {"replan_every": every, "follow": follow}
        entry = measure.play(experiment, sampler, act, *manner) | took | how
        named = (*manner, follow) if follow != CONTROL else manner
        checkpoints.write_json(run / sampler.file(*named), entry)
        entries.append(entry)
    return entries


def control_of(experiment: Experiment) -> planning.Control:
    """Return what `eval.follow` names: the published controller, or learned inverse dynamics.

    Inverse dynamics are trained now if they are not there yet.
    """
    if experiment.config["eval"]["follow"] == CONTROL:
        return waypoint_controller.push
    experiment.ensure("inverse", wanted=False)
    return planning.load_control(experiment.workdir / "inverse")


def draw(experiment: Experiment, rows: list[EvalRow]) -> list[pathlib.Path]:
    """Draw where the data has been, plans and paths of each row, and an episode; return the paths.

    Args:
        experiment: the pipeline.
        rows: of the table.
    """
    folder, task, settings = experiment.workdir / "figures", experiment.task, experiment.config
    settings = settings["eval"]
    paths = [folder / "map.png"]
    source = sources.label(experiment.config["source"], task)
    maze.save_density(paths[0], experiment.transitions, task, source)
    if not rows:
        return paths
    control = control_of(experiment)
    seeds = [settings["first_seed"] + i for i in range(STARTS)]
    ways = {}
    for row in rows:
        planner = planning.load_planner(
            experiment.workdir / row.stage, update=row.update, **row.fields
        )
        follower = planning.Follower(planner, control=control)
        gone = [rollouts.record(follower.act, task, seed)["qpos"] for seed in seeds]
        ways[style.label(row.name)] = [follower.plans[seed][:, :2] for seed in seeds], gone
    paths.append(folder / "plans.png")
    maze.save_each(paths[-1], task, ways, title=f"{task.name}: plans (dashed) and paths, open loop")
    best = next((row for row in rows if row.stage == "student"), rows[-1])
    paths.append(folder / f"{best.stage}.gif")
    _animate(experiment, best, control, paths[-1])
    return paths


def _animate(
    experiment: Experiment, row: EvalRow, control: planning.Control, path: pathlib.Path
) -> None:
    """Draw the first episode of a row, in closed loop where that is evaluated."""
    settings, task = experiment.config["eval"], experiment.task
    every = settings["replan_every"] if row.stage in settings["replan"] else 0
    planner = planning.load_planner(experiment.workdir / row.stage, update=row.update, **row.fields)
    follower = planning.Follower(planner, every, control=control)
    followed = []

    def act(obs, seeds, step):
        actions = follower.act(obs, seeds, step)
        followed.append(follower.plans[int(seeds[0])][:, :2])
        return actions

    episode = rollouts.record(act, task, settings["first_seed"])
    words = f", plans anew every {every} steps" if every else ""
    maze.save_gif(
        path,
        task,
        episode["qpos"],
        plans=followed,
        rewards=episode["rewards"],
        title=style.label(row.name) + words,
    )
