"""kitchen-complete-v0: four things to do in a kitchen; every demonstration does all of them.

    python main.py --config=configs/kitchen_complete.py:student        paper size
    python main.py --config=configs/kitchen_complete.py:all,size=demo  on a CPU

source=minari:D4RL/kitchen/complete-v2 is another recording of it.

Evaluation needs gymnasium-robotics: pip install ".[kitchen]".
Published, on D4RL's data: Diffusion-QL 84.0 (5 network calls); RACTD gives no score.
Ours: none yet, see docs/results.md.
"""

from ml_collections import ConfigDict

from . import kitchen


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the configuration for what follows the colon on the command line."""
    return kitchen.make("kitchen-complete-v0", arg)
