"""One-step diffusion policies for offline reinforcement learning, in JAX."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    import pathlib

    from ractd_jax.policies.planning import Planner
    from ractd_jax.policies.policy import Policy

__version__ = "0.1.0"


def load_policy(
    run: str | pathlib.Path,
    seed: int = 0,
    precision: str = "",
    *,
    candidates: int = 0,
    critic: str | pathlib.Path | None = None,
    inverse_temperature: float | None = None,
    update: int | None = None,
    **sampling: typing.Any,
) -> Policy:
    """Load a trained policy from its run directory.

    Args:
        run: directory of a training run, e.g. `runs/hopper-medium-replay-v2/<...>/student`.
        seed: of the policy's noise.
        precision: "float32" or "bfloat16", in which its network computes; "" for the one it was
            trained in.
        candidates: trajectories that are drawn for each decision, of which a critic chooses one; 0
            for as many as its method is meant to act with (1, for most).
        critic: directory of the run that values them: a return model, or a critic; None for the
            one that its configuration names, in the folder beside.
        inverse_temperature: the candidate is drawn with probabilities softmax(inverse_temperature x
            value); 0 takes the best; None for the configuration's.
        update: after which it was saved, of those that are kept (`training.keep`); None: the last.
        **sampling: fields of its method that only acting heeds, where they are not to be those it
            was trained with: nfe=2 for a student. `--help=fields student` names them.

    Returns:
        A policy: `policy(obs)` takes (obs,) or (batch, obs) in the data's units and returns (act,)
        or (batch, act), within the limits of the actions.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, the model
            does not act, or the critic values nothing, is of another task or normalises
            observations otherwise.

    Example:
        policy = ractd_jax.load_policy("runs/demo/student")
        action = policy(observation)                                       # (11,) -> (3,)
        best_of_16 = ractd_jax.load_policy("runs/demo/student", candidates=16)
    """
    from ractd_jax.policies import load  # the package itself imports nothing heavy

    return load.load_policy(
        run,
        seed,
        precision,
        candidates=candidates,
        critic=critic,
        inverse_temperature=inverse_temperature,
        update=update,
        **sampling,
    )


def load_planner(
    run: str | pathlib.Path, seed: int = 0, *, update: int | None = None, **sampling: typing.Any
) -> Planner:
    """Load a trained planner of states from its run directory.

    Args:
        run: directory of a training run, e.g. `runs/maze2d-umaze-v1/<...>/student`.
        seed: of the planner's noise.
        update: after which it was saved, of those that are kept (`training.keep`); None: the last.
        **sampling: see `load_policy`.

    Returns:
        A planner: `planner(obs, goal)` returns states (horizon, obs), from the one to the other.

    Raises:
        UserError: there is no finished checkpoint, it does not fit its configuration, or the model
            plans no states.

    Example:
        planner = ractd_jax.load_planner("runs/demo-maze/student")
        states = planner(observation, goal)                                # (128, 4)
    """
    from ractd_jax.policies import load

    return load.load_planner(run, seed, update=update, **sampling)
