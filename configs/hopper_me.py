"""hopper-medium-expert-v2: hop forward; the data is medium's and as much by an expert.

    python main.py --config=configs/hopper_me.py:student                         paper size
    python main.py --config=configs/hopper_me.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 129.0 +- 1.3 (1 network call); Diffusion-QL 112.3 (5),
Consistency-AC 106.0 (2), Diffuser 103.3 (20).
129.0 is a return of 4,178; the best episode of D4RL's data earns 3,759.
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "hopper-medium-expert-v2",
        arg,
        epochs=400,
        reward_weight={"paper": 0.0, "released": 0.5},
    )
