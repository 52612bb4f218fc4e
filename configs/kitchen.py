"""Kitchen: what its three tasks share.

RACTD's second version adds Kitchen, but neither it nor the published code gives its settings (there
are no Kitchen configurations): these are the locomotion tasks' at paper size, with the discount of
the published code and the history of 4 observations that the second version reports elsewhere. The
demonstrations are people's, whose next action depends on more than the present observation. No
number here is fitted to anything.
"""

from ml_collections import ConfigDict

from ractd_jax import tasks

from . import base, locomotion


def make(name: str, arg: str | None) -> ConfigDict:
    """Return the configuration of a Kitchen task.

    Args:
        name: D4RL's dataset id.
        arg: what follows the colon on the command line.
    """
    given = base.given(tasks.get(name), arg)
    # An episode ends when everything is done: no failure.
    data = {"history": 4, "termination_penalty": 0.0}
    return base.make(given, **locomotion.sections(given, data))
