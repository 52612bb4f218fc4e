"""Your own data: robot logs in an HDF5 file or a Minari folder, with no environment.

    python main.py --config=configs/custom.py:data,source=/path/robot.hdf5                look at it
    python main.py --config=configs/custom.py:student,size=demo,source=/path/robot.hdf5   train

Sizes, and the limits that a policy's actions are clipped to, are the data's own unless named:

    --config.custom.action_low="(-2.0, -1.0)" --config.custom.action_high="(2.0, 1.0)"

docs/data.md says what the file must hold.
"""

from configs import base, gym_mujoco
from ractd_jax import tasks


def get_config(arg=None):
    """Return the configuration for what follows the colon on the command line."""
    fields = {
        "obs_dim": 0,  # numbers in an observation; 0: as many as the data has
        "act_dim": 0,
        "max_episode_steps": 0,  # ends episodes in a file without `timeouts`; 0: no limit
        "action_low": (),  # a number for each action dimension, or one for all; (): the data's
        "action_high": (),
    }
    values = base.parse(arg)
    task = tasks.from_config({"task": tasks.CUSTOM, "custom": fields})
    config = base.base(task, values)
    config.custom = fields
    config.data.termination_penalty = 0.0  # -100 is on the scale of Gym's rewards
    weights = {"default": 0.5, "paper": 1.0, "released": 1.0}
    gym_mujoco.PRESETS[values["preset"]](config, weights)
    gym_mujoco.SIZES[values["size"]](config)
    return config
