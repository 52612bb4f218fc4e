"""hopper-medium-v2: hop forward; the data is a half-trained SAC, rolled out.

    python main.py --config=configs/hopper_m.py:student                         paper size
    python main.py --config=configs/hopper_m.py:all,size=demo,source=simulated  on a CPU

Published, on D4RL's data: RACTD 121.0 +- 0.5 (1 network call); Diffusion-QL 96.6 (5),
Consistency-AC 99.7 (2), Diffuser 74.3 (20).
121.0 is a return of 3,918; the best episode of D4RL's data earns 3,222.
Measured here, on simulated data: docs/results.md.
"""

from ml_collections import ConfigDict

from . import locomotion


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return locomotion.make(
        "hopper-medium-v2",
        arg,
        epochs=700,
        reward_weight={"paper": 3.0, "released": 1.0},
    )
