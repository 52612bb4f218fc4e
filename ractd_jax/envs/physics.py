"""MuJoCo 2.1's numbers in a model that today's MuJoCo compiled: the physics D4RL was recorded in.

What has changed since is undone here:

    capsules   until 2.1.2 their mass and inertia were those of a cylinder, and what follows from
               these (a body's middle, its inverse weights) differs too
    weights    of a body that cannot move every way, the ball of the mazes, are another mean
    contacts   begin at a distance, their margin: then the larger of two geoms', now the sum

The numbers, `models.npz`, were read out of the original environments; `tools/thin_models.py` made
the file. Nothing works them out again afterwards: `mj_step` and `mj_resetData` leave a model alone,
and `mj_setConst`, which does not, is called here before they are complete. What MuJoCo solves by
iteration it stops at another place than then; a small tolerance lets both come to one answer.

Two states stay apart: two capsules of the Hopper whose axes cross (the rounding decides which way
they are pushed), and a ball whose middle is inside a wall. No episode comes to either.
"""
# pyright: reportAttributeAccessIssue=false

import functools
from pathlib import Path

import mujoco
import numpy as np

MODELS = Path(__file__).with_name("models.npz")
INERTIA = ("body_mass", "body_inertia", "body_ipos", "body_iquat")
WEIGHTS = ("body_invweight0", "dof_invweight0")  # inverse; how stiff contacts and limits are
TOLERANCE = 1e-12  # of the constraint solver; by default 1e-8, and no slower


def restore(model: mujoco.MjModel, name: str) -> None:
    """Put the original numbers into a freshly compiled model, in place.

    Contact margins are halved, which is exact where all geoms have the same or none: the sum of two
    halves is the larger of two wholes. Those of a maze are left to its `mjcf`.

    Args:
        model: `hopper.xml`, `walker2d.xml` or `half_cheetah.xml` of Gymnasium, or a maze.
        name: `hopper`, `walker2d`, `halfcheetah` or `maze2d`.
    """
    numbers = _numbers()
    for field in INERTIA:
        getattr(model, field)[:] = numbers.get(f"{name}/{field}", getattr(model, field))
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what else follows from the masses
    for field in WEIGHTS:
        getattr(model, field)[:] = numbers[f"{name}/{field}"]
    if name != "maze2d":
        model.geom_margin[:] /= 2
    model.opt.tolerance = TOLERANCE


@functools.cache
def _numbers() -> dict[str, np.ndarray]:
    with np.load(MODELS) as archive:
        return dict(archive)
