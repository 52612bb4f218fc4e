"""A planar MuJoCo robot as an animated GIF, drawn from its capsules without OpenGL.

Forward kinematics gives the ends of every capsule; seen from the side (x to the right, z up) a
capsule is a thick line with round ends, which Pillow draws at three times the size and shrinks.
That works on any headless machine, in about a second for a thousand steps of Hopper.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from ractd_jax import errors
from ractd_jax.data import cache
from ractd_jax.envs.make import make_env
from ractd_jax.report import style
from ractd_jax.tasks import TaskSpec

SIZE = (480, 320)  # pixels
_SCALE = 118.0  # pixels a metre: four metres fit across
_GROUND = 268  # the row of the ground's surface, from the top
_FINE = 3  # supersampling
_SKY, _EARTH, _SHADOW = "#f7f9fb", "#e4e8ed", "#cfd5dc"
# part: (fill, outline), in the order of drawing
_PARTS = {
    "far": ("#eba6b1", "#c98792"),
    "torso": ("#3b4a5c", "#232d39"),
    "near": ("#c8384f", "#8f2438"),
}


class Pose(NamedTuple):
    """Where the robot's capsules are, in metres, side view: (x, z).

    Attributes:
        start: one end of each capsule's axis.
        end: the other.
        radius: of each capsule.
        part: "torso", "near" or "far", the latter two being legs as seen by the viewer.
    """

    start: Float[np.ndarray, "geom 2"]
    end: Float[np.ndarray, "geom 2"]
    radius: Float[np.ndarray, " geom"]
    part: list[str]


def save_gif(
    path: str | Path,
    task: TaskSpec,
    qpos: Float[np.ndarray, "steps nq"],
    *,
    rewards: Float[np.ndarray, " steps"] | None = None,
    title: str = "",
    fps: int = 25,
    max_frames: int = 200,
) -> None:
    """Animate an episode in real time, from its start; Kitchen's arm is not planar: no file.

    Args:
        path: of the GIF file.
        task: names the environment.
        qpos: positions after each step, as `rollouts.record` gives them.
        rewards: of each step; if given, the caption carries the return so far.
        title: left of the caption, e.g. the policy's name.
        fps: frames a second, as near as whole steps allow.
        max_frames: bound on their number; what comes later in the episode is left out.

    Raises:
        UserError: there is no step, the positions are not those of the task's robot, or the file
            cannot be written.
    """
    env = make_env(task.env_id)
    unwrapped: Any = env.unwrapped  # MuJoCo's have more than Gymnasium's interface
    model, seconds = unwrapped.model, unwrapped.dt
    env.close()
    if not len(qpos) or qpos.shape[1] != model.nq:
        raise errors.UserError(
            f"positions of shape {qpos.shape} are no episode of {task.env_id} (steps, {model.nq})"
        )
    if "torso" not in (model.body(i).name for i in range(model.nbody)):
        return
    # Counted back from the last step, so that the end of a whole episode is seen.
    stride = max(1, round(1 / (fps * seconds)))
    steps = range(len(qpos) - 1, -1, -stride)[::-1][:max_frames]
    poses = [pose(model, qpos[step]) for step in steps]
    trail = np.array([_middle(robot) for robot in poses])
    returns = None if rewards is None else np.cumsum(rewards)
    frames = []
    for index, step in enumerate(steps):
        texts = [title, f"step {step + 1}"]
        texts += [] if returns is None else [f"return {returns[step]:,.0f}"]
        recent = trail[max(0, index - 60) : index + 1]
        frames.append(draw_frame(poses[index], trail=recent, caption=texts))
    # One palette for all frames: no flicker, and the unchanged part of a frame costs nothing.
    palette = frames[len(frames) // 2].quantize(48, kmeans=1)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pause = round(1000 * stride * seconds)  # in milliseconds: real time
    times = [pause] * (len(frames) - 1) + [1500]  # rest on the end before it repeats
    with cache.atomic(path) as temporary:
        frames[0].save(
            temporary, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0
        )


def pose(model: Any, qpos: Float[np.ndarray, " nq"]) -> Pose:
    """Return the capsules of a MuJoCo model at the positions `qpos`."""
    library: Any = mujoco  # an extension, whose types are not known
    data = library.MjData(model)
    data.qpos[:] = qpos
    library.mj_kinematics(model, data)
    geoms = np.flatnonzero(model.geom_type == library.mjtGeom.mjGEOM_CAPSULE)
    axis = data.geom_xmat[geoms].reshape(-1, 3, 3)[:, :, 2] * model.geom_size[geoms, 1:2]
    middle, side = data.geom_xpos[geoms], [0, 2]
    names = [model.body(model.geom_bodyid[geom]).name for geom in geoms]
    return Pose(
        start=(middle - axis)[:, side],
        end=(middle + axis)[:, side],
        radius=model.geom_size[geoms, 0],
        part=[_part(name) for name in names],
    )


def draw_frame(
    robot: Pose,
    *,
    trail: Float[np.ndarray, "points 2"] | None = None,
    caption: list[str] | None = None,
) -> Image.Image:
    """Draw one moment: the robot in the middle, the ground with a tick every metre.

    Args:
        robot: where its capsules are.
        trail: earlier places (x, z) of the torso, drawn as a dotted line.
        caption: up to three pieces of text for the top line, from left to right.
    """
    width, height = (side * _FINE for side in SIZE)
    image = Image.new("RGB", (width, height), _SKY)
    draw = ImageDraw.Draw(image)
    centre = _middle(robot)[0]

    def pixels(points: np.ndarray) -> np.ndarray:
        x = (points[..., 0] - centre) * _SCALE + SIZE[0] / 2
        return np.stack([x, _GROUND - points[..., 1] * _SCALE], -1) * _FINE

    _draw_ground(draw, robot, pixels)
    if trail is not None:
        for x, y in pixels(trail):
            draw.circle((x, y), 1.6 * _FINE, fill=_SHADOW)
    places = np.stack([robot.start, robot.end], 1)
    layers = list(_PARTS)
    for geom in sorted(range(len(robot.part)), key=lambda i: layers.index(robot.part[i])):
        fill, outline = _PARTS[robot.part[geom]]
        radius = robot.radius[geom] * _SCALE * _FINE
        for color, r in ((outline, radius), (fill, radius - 1.3 * _FINE)):
            a, b = (tuple(point) for point in pixels(places[geom]))
            draw.line((a, b), fill=color, width=round(2 * r))
            draw.circle(a, r, fill=color)
            draw.circle(b, r, fill=color)
    for place, phrase in zip((14, 250, 350), caption or [], strict=False):
        draw.text((place * _FINE, 12 * _FINE), phrase, style.INK, _font(14))
    return image.reduce(_FINE)


def _draw_ground(draw: ImageDraw.ImageDraw, robot: Pose, pixels) -> None:
    width, height = (side * _FINE for side in SIZE)
    top = _GROUND * _FINE
    draw.rectangle((0, top, width, height), fill=_EARTH)
    x = np.concatenate([robot.start[:, 0], robot.end[:, 0]])
    (left, _), (right, _) = pixels(np.array([[x.min(), 0.0], [x.max(), 0.0]]))
    draw.ellipse((left, top - 4, right, top + 14), fill=_SHADOW)
    draw.line((0, top, width, top), fill=style.MUTED, width=2 * _FINE)
    centre, reach = int(_middle(robot)[0]), int(SIZE[0] / _SCALE) + 1
    for metre in range(centre - reach, centre + reach + 1):
        x = pixels(np.array([float(metre), 0.0]))[0]
        draw.line((x, top, x, top + 8 * _FINE), fill=style.MUTED, width=2 * _FINE)
        place = (x, top + 13 * _FINE)
        draw.text(place, f"{metre} m", style.MUTED, _font(11), anchor="ma")


def _middle(robot: Pose) -> np.ndarray:
    """Return the middle of the torso, which is a model's first capsule."""
    return (robot.start[0] + robot.end[0]) / 2


def _part(body: str) -> str:
    if body == "torso":
        return body
    return "far" if body.endswith("_left") else "near"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _FINE)
