"""Environments by Gymnasium id, without the notice that a `-v4` is out of date."""

import warnings

import gymnasium

from ractd_jax.envs import maze2d

gymnasium.register_envs(maze2d)  # whose import has made its ids known


def make_env(env_id: str) -> gymnasium.Env:
    """Make an environment; v5 changed observations and rewards, v4 has those of D4RL's v2."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*out of date", DeprecationWarning)
        return gymnasium.make(env_id, disable_env_checker=True)
