"""kitchen-partial-v0: four things to do in a kitchen; some demonstrations do all of them.

    python main.py --config=configs/kitchen_partial.py:student        paper size
    python main.py --config=configs/kitchen_partial.py:all,size=demo  on a CPU

source=minari:D4RL/kitchen/partial-v2 is another recording of it.

Evaluation needs gymnasium-robotics: pip install ".[kitchen]".
Published, on D4RL's data: RACTD's second version 59.0 (1 network call), Diffusion-QL 60.5 (5).
Ours: none yet, see docs/results.md.
"""

from ml_collections import ConfigDict

from . import kitchen


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return kitchen.make("kitchen-partial-v0", arg)
