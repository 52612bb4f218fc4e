"""halfcheetah-medium-expert-v2: run forward; the data is medium's and as much by an expert.

    python main.py --config=configs/halfcheetah_me.py:student                         paper size
    python main.py --config=configs/halfcheetah_me.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 95.9 +- 1.5 (1 network call); Diffusion-QL 97.2 (5),
Consistency-AC 89.2 (2), Diffuser 88.9 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "halfcheetah-medium-expert-v2",
        arg,
        epochs=400,
        reward_weight={"paper": 0.0, "released": 0.0},
        return_model={"batch_size": 32},
    )
