"""The configuration of a run, typed: what the words and fields of the command line become.

`configs/` holds the numbers, as nested dictionaries that `--config.<section>.<field>=<value>`
changes. `build` turns such a dictionary into frozen dataclasses; nothing below the command line
sees the dictionary. A field has one default, here or in the dataclass of its method.
"""

from ractd_jax.config.build import build, defaults, documented, fields_of, plain, replace
from ractd_jax.config.schema import (
    CONTROLLERS,
    NORMALIZATIONS,
    PRECISIONS,
    REWARD_SCALES,
    WEIGHTS,
    Bench,
    Collect,
    Config,
    Data,
    Eval,
    IdqlEval,
    Section,
    Selection,
    Steps,
    Training,
)

__all__ = [
    "CONTROLLERS",
    "NORMALIZATIONS",
    "PRECISIONS",
    "REWARD_SCALES",
    "WEIGHTS",
    "Bench",
    "Collect",
    "Config",
    "Data",
    "Eval",
    "IdqlEval",
    "Section",
    "Selection",
    "Steps",
    "Training",
    "build",
    "defaults",
    "documented",
    "fields_of",
    "plain",
    "replace",
]
