"""maze2d-large-v1: plan 384 states to a goal and follow them; the data is 4 million steps.

    python main.py --config=configs/maze2d_large.py:student,source=simulated            paper size
    python main.py --config=configs/maze2d_large.py:all,size=demo,source=simulated      on a CPU

Published, on D4RL's data, open loop: RACTD 143.8 +- 0.0 (1 network call), CTD 127.1 (1), its EDM
teacher 149.0 (80 bins), Diffuser 123.0 (256).
Ours, on simulated data, size demo, three training seeds, 100 episodes each: RACTD 184.7 +- 5.6
(1 call a plan), in closed loop 215.5; CTD 189.2 (1), EDM teacher 135.6 (158).
docs/results.md, docs/maze2d.md.
"""

from ml_collections import ConfigDict

from . import maze2d


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return maze2d.make(
        "maze2d-large-v1",
        arg,
        horizon=384,
        down_dims=(256, 512, 1024, 2048),
        batch_size=320,
        reward_weight={"default": 0.005, "paper": 1e-5, "released": 1e-5},
        diffuser_steps=256,
        demo_steps=(20_000, 9000),
    )
