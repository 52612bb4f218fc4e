"""Environments by Gymnasium id, without the notice that a `-v4` is out of date."""

import warnings

import gymnasium

from ractd_jax.envs import choice, gym_adapter, kitchen, locomotion, maze2d

for _module in (kitchen, locomotion, maze2d):  # whose import has made their ids known
    gymnasium.register_envs(_module)


def make_env(env_id: str) -> gymnasium.Env:
    """Make an environment.

    D4RL's locomotion was recorded in `ractd_jax/Hopper-v2` and its like. Gymnasium's v4 has their
    observations and rewards but other masses, v5 not even those.

    Args:
        env_id: Gymnasium's; one that starts with `gym-d4rl:` is of an installed `gym` + `d4rl`.
    """
    if env_id.startswith(choice.PREFIX):
        return gym_adapter.make(env_id.removeprefix(choice.PREFIX))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date", DeprecationWarning)
        return gymnasium.make(env_id, disable_env_checker=True)
