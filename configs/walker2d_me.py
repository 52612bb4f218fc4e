"""walker2d-medium-expert-v2: walk forward; the data is medium's and as much by an expert.

    python main.py --config=configs/walker2d_me.py:student                         paper size
    python main.py --config=configs/walker2d_me.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 119.6 +- 1.9 (1 network call); Diffusion-QL 111.2 (5),
Consistency-AC 111.6 (2), Diffuser 106.9 (20).
119.6 is a return of 5,492; the best episode of D4RL's data earns 5,012.
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "walker2d-medium-expert-v2",
        arg,
        epochs=700,
        reward_weight={"paper": 0.2, "released": 0.2},
    )
