"""kitchen-mixed-v0: four things to do in a kitchen; no demonstration does all of them in a row.

    python main.py --config=configs/kitchen_mixed.py:student        paper size
    python main.py --config=configs/kitchen_mixed.py:all,size=demo  on a CPU

source=minari:D4RL/kitchen/mixed-v2 is another recording of it.

Evaluation needs gymnasium-robotics: pip install ".[kitchen]".
Published, on D4RL's data: RACTD's second version 60.9 (1 network call), Diffusion-QL 62.6 (5).
Ours: none yet, see docs/results.md.
"""

from ml_collections import ConfigDict

from . import kitchen


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return kitchen.make("kitchen-mixed-v0", arg)
