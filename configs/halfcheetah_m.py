"""halfcheetah-medium-v2: run forward; the data is a half-trained SAC, rolled out.

    python main.py --config=configs/halfcheetah_m.py:student                         paper size
    python main.py --config=configs/halfcheetah_m.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 59.3 +- 0.2 (1 network call); Diffusion-QL 51.5 (5),
Consistency-AC 71.9 (2), Diffuser 42.8 (20).
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "halfcheetah-medium-v2",
        arg,
        epochs=400,
        reward_weight={"paper": 0.5, "released": 0.5},
        return_model={"batch_size": 32, "learning_rate": 1e-4, "epochs": 100},
    )
