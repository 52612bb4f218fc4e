"""Your own data: robot logs in an HDF5 file or a Minari folder, with no environment.

    ractd custom:data,source=/path/robot.hdf5                look at it
    ractd custom:student,size=demo,source=/path/robot.hdf5   train

Sizes, and the limits that a policy's actions are clipped to, are the data's own unless named:

    --config.task.action_low="(-2.0, -1.0)" --config.task.action_high="(2.0, 1.0)"

docs/data.md says what the file must hold.
"""

from ml_collections import ConfigDict

from ractd_jax.tasks import TaskSpec

from . import base, locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    given = base.given(TaskSpec("custom"), arg)
    data = {"termination_penalty": 0.0}  # -100 is on the scale of Gym's rewards
    return base.make(given, **locomotion.sections(given, data))
