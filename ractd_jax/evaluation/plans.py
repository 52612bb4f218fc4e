"""Evaluate and draw models that plan states: in open loop as published, and in closed loop.

One plan an episode, or another proposed every `eval.replan_every` steps for the stages in
`eval.replan`; see `policies.planning`. The protocol is that of `evaluate`.
"""

import pathlib
from typing import Any

import numpy as np

from ractd_jax.data import labels
from ractd_jax.envs import choice, waypoint_controller
from ractd_jax.evaluation import finished, measure, rollouts
from ractd_jax.evaluation.rows import EvalRow
from ractd_jax.policies import load, planning
from ractd_jax.report import maze, style
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline

CLOSED = "closed loop"
PUBLISHED_CONTROL = "waypoints"
STARTS = 4  # in the picture of a stage


def evaluate(pipeline: Pipeline, row: EvalRow) -> list[dict[str, Any]]:
    """Roll a planner out; write its eval.json, and eval_closed_loop.json; return their contents.

    `action_ms` is the time of one plan.
    """
    settings, run = pipeline.config.eval, pipeline.run(row.stage)
    planner = load.load_planner(run, update=row.update, **row.fields)
    goal = planning.task_goal(pipeline.task)[None]
    start = np.zeros(1, np.int32)
    took = {
        "decides": "plan",
        "action_ms": measure.median_ms(lambda step: planner.plan(goal, goal, start, step)),
    }
    control, follow = control_of(pipeline), settings.follow
    ways: dict[tuple[str, ...], int] = {(): 0}
    if settings.replan_every and row.stage in settings.replan:
        ways[(CLOSED,)] = settings.replan_every
    entries = []
    for manner, every in ways.items():
        act = planning.Follower(planner, every, control=control).act
        how = {"replan_every": every, "follow": follow}
        entry = measure.play(pipeline, row, act, *manner) | took | how
        named = (*manner, follow) if follow != PUBLISHED_CONTROL else manner
        checkpoints.write_json(run / row.file(*named), entry)
        entries.append(entry)
    return entries


def control_of(pipeline: Pipeline) -> planning.Control:
    """Return what `eval.follow` names: the published controller, or learned inverse dynamics.

    Raises:
        UserError: inverse dynamics are not trained.
    """
    if pipeline.config.eval.follow == PUBLISHED_CONTROL:
        return waypoint_controller.push
    finished.require(pipeline, "inverse", "eval.follow is inverse")
    return load.load_control(pipeline.run("inverse"))


def draw(pipeline: Pipeline, rows: list[EvalRow]) -> list[pathlib.Path]:
    """Draw where the data has been, plans and paths of each row, and an episode; return the paths.

    Args:
        pipeline: the pipeline.
        rows: of the table.
    """
    folder, task = pipeline.workdir / "figures", pipeline.task
    settings = pipeline.config.eval
    paths = [folder / "map.png"]
    source = labels.label(pipeline.config.source, task)
    maze.save_density(paths[0], pipeline.recorded.episodes, task, source)
    if not rows:
        return paths
    control = control_of(pipeline)
    seeds = [settings.first_seed + i for i in range(STARTS)]
    ways = {}
    for row in rows:
        planner = load.load_planner(pipeline.run(row.stage), update=row.update, **row.fields)
        follower = planning.Follower(planner, control=control)
        gone = [rollouts.record(follower.act, task, seed)["qpos"] for seed in seeds]
        ways[style.label(row.name)] = [follower.plans[seed][:, :2] for seed in seeds], gone
    paths.append(folder / "plans.png")
    physics = choice.short(choice.physics(task.env_id))
    title = f"{task.name} ({physics}): plans (dashed) and paths, open loop"
    maze.save_each(paths[-1], task, ways, title=title)
    best = next((row for row in rows if row.stage == "student"), rows[-1])
    paths.append(folder / f"{best.stage}.gif")
    _animate(pipeline, best, control, paths[-1])
    return paths


def _animate(
    pipeline: Pipeline, row: EvalRow, control: planning.Control, path: pathlib.Path
) -> None:
    """Draw the first episode of a row, in closed loop where that is evaluated."""
    settings, task = pipeline.config.eval, pipeline.task
    every = settings.replan_every if row.stage in settings.replan else 0
    planner = load.load_planner(pipeline.run(row.stage), update=row.update, **row.fields)
    follower = planning.Follower(planner, every, control=control)
    followed = []

    def act(obs, seeds, step):
        actions = follower.act(obs, seeds, step)
        followed.append(follower.plans[int(seeds[0])][:, :2])
        return actions

    episode = rollouts.record(act, task, settings.first_seed)
    manner = f", plans anew every {every} steps" if every else ""
    manner += f", {choice.short(choice.physics(task.env_id))}"
    maze.save_gif(
        path,
        task,
        episode["qpos"],
        plans=followed,
        rewards=episode["rewards"],
        title=style.label(row.name) + manner,
    )
