"""One-step diffusion policies for offline reinforcement learning, in JAX."""

__version__ = "0.1.0"


def load_policy(run, seed: int = 0, **sampling):
    """Load a trained policy from its run directory, see `ractd_jax.policies.policy.load_policy`."""
    from ractd_jax.policies import policy  # the package itself imports nothing heavy

    return policy.load_policy(run, seed, **sampling)


def load_planner(run, seed: int = 0, **sampling):
    """Load a trained planner of states, see `ractd_jax.policies.planning.load_planner`."""
    from ractd_jax.policies import planning

    return planning.load_planner(run, seed, **sampling)
