"""Stops a stage that follows its reward out of the data.

A return model is fitted to the data and knows nothing beyond them; what maximises it finds where it
is wrong. The loss stays finite there, so nothing else would stop it.
"""

from collections.abc import Mapping

import numpy as np

from ractd_jax.config import Config
from ractd_jax.methods import registry

RETURN_MODEL = "reward"  # the stage
BEST = 1.0  # the largest return of the data, as training sees returns
LIMIT = 2.0  # half the range of the data's returns beyond the best of them


def left_the_data(config: Config, stage: str, metrics: Mapping[str, float | np.ndarray]) -> str:
    """Return what to say of a predicted return that no data hold, "" where all is well.

    Only the return model of actions predicts returns as the data have them, from -1 to 1; other
    critics have units of their own.

    Args:
        config: the configuration.
        stage: that is trained.
        metrics: of an update, "return" among them where a critic takes part.

    Example:
        >>> from ractd_jax import tasks
        >>> config = Config(tasks.get("hopper-medium-v2"))
        >>> left_the_data(config, "student", {"loss": 0.3})
        ''
    """
    predicted = float(np.max(metrics.get("return", 0.0)))
    needs = registry.needs(config, stage) if "return" in metrics else {}
    if not predicted > LIMIT or needs.get("reward") != RETURN_MODEL:
        return ""
    if config.task.kind == "planner":  # a sum over the states of a plan
        return ""
    return (
        f"{stage}: the predicted return is {predicted:.3g} where the data's lie between -1 and "
        f"{BEST:.0f}: the reward leads it out of the data. Lower {stage}.method.reward_weight, "
        f"or hold it: {stage}.method.reward_clip=True, reward.network.layer_norm=True, or "
        "preset=default"
    )
