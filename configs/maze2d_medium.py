"""maze2d-medium-v1: plan 256 states to a goal and follow them; the data is 2 million steps.

    python main.py --config=configs/maze2d_medium.py:student,source=simulated            paper size
    python main.py --config=configs/maze2d_medium.py:all,size=demo,source=simulated      on a CPU

Published, on D4RL's data, open loop: RACTD 130.8 +- 1.8 (1 network call), CTD 119.8 (1), its EDM
teacher 120.1 (80 bins), Diffuser 121.5 (256).
Ours, on simulated data, size demo, three training seeds, 100 episodes: RACTD 144.8 +- 8.0 (1 call a
plan), in closed loop 173.9; CTD 147.7 (1), EDM teacher 148.1 (158).
docs/results.md, docs/maze2d.md.
"""

from ml_collections import ConfigDict

from . import maze2d


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return maze2d.make(
        "maze2d-medium-v1",
        arg,
        horizon=256,
        down_dims=(512, 1024, 2048),
        batch_size=320,
        reward_weight={"default": 0.025, "paper": 1e-4, "released": 1e-4},
        diffuser_steps=256,
        demo_steps=(12_000, 4000),
    )
