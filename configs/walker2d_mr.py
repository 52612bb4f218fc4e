"""walker2d-medium-replay-v2: walk forward; the data is the replay buffer of a half-trained SAC.

    python main.py --config=configs/walker2d_mr.py:student                         paper size
    python main.py --config=configs/walker2d_mr.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 91.5 +- 2.6 (1 network call); Diffusion-QL 98.0 (5),
Consistency-AC 83.0 (2), Diffuser 70.6 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "walker2d-medium-replay-v2",
        arg,
        epochs=700,
        reward_weight={"paper": 1.0, "released": 0.5},
    )
