"""maze2d-umaze-v1: plan 128 states to a goal and follow them; the data is a million steps.

    python main.py --config=configs/maze2d_umaze.py:student,source=simulated            paper size
    python main.py --config=configs/maze2d_umaze.py:all,size=demo,source=simulated      on a CPU

Published, on D4RL's data, open loop: RACTD 125.7 +- 0.6 (1 network call), CTD 123.4 (1), its EDM
teacher 125.4 (80 bins), Diffuser 113.9 (64).
Ours, on simulated data, size demo, three training seeds, 100 episodes: RACTD 137.1 +- 3.9 (1 call a
plan), in closed loop 158.0; CTD 128.4 (1), EDM teacher 136.5 (158).
docs/results.md, docs/maze2d.md.
"""

from ml_collections import ConfigDict

from . import maze2d


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return maze2d.make(
        "maze2d-umaze-v1",
        arg,
        horizon=128,
        down_dims=(256, 512, 1024),
        batch_size=1400,
        reward_weight={"default": 0.025, "paper": 1e-4, "released": 1e-4},
        diffuser_steps=64,
        demo_steps=(12_000, 4000),
    )
