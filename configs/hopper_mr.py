"""hopper-medium-replay-v2: hop forward; the data is the replay buffer of a half-trained SAC.

    python main.py --config=configs/hopper_mr.py:student                         paper size
    python main.py --config=configs/hopper_mr.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 104.9 +- 2.1 (1 network call), its EDM teacher 114.2 (80 bins);
Diffusion-QL 102.0 (5), Consistency-AC 100.4 (2), Diffuser 93.6 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "hopper-medium-replay-v2",
        arg,
        epochs=400,
        reward_weight={"paper": 1.0, "released": 1.0},
    )
