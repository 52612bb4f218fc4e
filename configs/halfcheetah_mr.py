"""halfcheetah-medium-replay-v2: run forward; the data is the replay buffer of a half-trained SAC.

    python main.py --config=configs/halfcheetah_mr.py:student                         paper size
    python main.py --config=configs/halfcheetah_mr.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 57.9 +- 1.0 (1 network call); Diffusion-QL 48.3 (5),
Consistency-AC 62.7 (2), Diffuser 37.7 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "halfcheetah-medium-replay-v2",
        arg,
        epochs=400,
        reward_weight={"paper": 1.0, "released": 1.0},
        return_model={"batch_size": 32},
    )
