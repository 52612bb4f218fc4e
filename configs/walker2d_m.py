"""walker2d-medium-v2: walk forward; the data is a half-trained SAC, rolled out.

    python main.py --config=configs/walker2d_m.py:student                         paper size
    python main.py --config=configs/walker2d_m.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 98.9 +- 1.6 (1 network call); Diffusion-QL 87.3 (5),
Consistency-AC 84.1 (2), Diffuser 79.6 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "walker2d-medium-v2",
        arg,
        epochs=700,
        reward_weight={"paper": 0.4, "released": 0.4},
    )
