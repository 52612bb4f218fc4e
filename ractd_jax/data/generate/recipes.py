"""Which snapshots make each simulated dataset, and how it differs from D4RL's own.

A snapshot is an actor of one SAC run per robot, saved every 10,000 environment steps while it
learned: first in Gymnasium's v4 (batch 256, one update a step), then on from there in D4RL's
physics (`tools/train_experts.py`). "medium" earns what D4RL's medium policy does, medium-replay is
all snapshots until then, each for its share of the steps. "expert" is the best one there is;
`Recipe.note` says what it earns beside D4RL's.
`tools/compare_simulated.py` prints the numbers of both.
"""

import types
from collections.abc import Mapping
from typing import NamedTuple


class Recipe(NamedTuple):
    """How much of which snapshot makes a dataset.

    Attributes:
        transitions: steps in D4RL's own dataset.
        shares: weight of each snapshot, by the training step it was saved at; 0 = random actions.
        note: what a reader of a score must know about the data, for labels; "" for nothing.
        noise: of its own deviation, how much a snapshot acts with; 1 where none is named.
    """

    transitions: int
    shares: dict[int, int]
    note: str = ""
    noise: Mapping[int, float] = types.MappingProxyType({})

    def noise_of(self, saved_at: int) -> float:
        """Return how much of its own deviation a snapshot acts with."""
        return self.noise.get(saved_at, 1.0)


# The shares of medium-replay (thousands of steps) were fitted to D4RL's number of episodes and the
# mean and spread of their returns, staying near equal shares.
# Their returns: python -m tools.compare_simulated --snapshots --transitions 100000

# Medium is three actors, together 1,408 +- 364 where D4RL's earns 1,422 +- 379. The expert acts
# with a quarter of its noise and earns 3,293 +- 183, D4RL's 3,511 +- 329.
_HOPPER_REPLAY = {
    0: 3, 10_000: 9, 20_000: 22, 30_000: 30, 40_000: 77, 50_000: 6, 70_000: 5, 90_000: 13,
    110_000: 12, 120_000: 12, 140_000: 26, 170_000: 13, 190_000: 13, 240_000: 11, 250_000: 42,
    300_000: 9, 320_000: 35,
}  # fmt: skip
# Medium is an actor that walks slowly and one that walks well and falls, together 2,834 +- 1,060
# where D4RL's earns 2,852 +- 1,095. The expert earns 4,691 +- 555, D4RL's 4,921 +- 136.
_WALKER2D_REPLAY = {
    0: 6, 10_000: 21, 20_000: 11, 30_000: 14, 40_000: 14, 50_000: 15, 60_000: 15, 80_000: 10,
    100_000: 14, 140_000: 10, 190_000: 18, 250_000: 10, 300_000: 14, 350_000: 16, 420_000: 32,
    470_000: 38, 560_000: 44,
}  # fmt: skip
# Medium earns 4,750 +- 892 where D4RL's earns 4,770 +- 356. The expert acts with half its noise and
# earns 9,467 +- 43, D4RL's 10,656 +- 442: its training was stopped, not finished.
_HALFCHEETAH_REPLAY = {
    0: 10, 10_000: 10, 20_000: 13, 30_000: 19, 40_000: 31, 50_000: 30, 60_000: 29, 70_000: 26,
    80_000: 23, 90_000: 21, 100_000: 18, 110_000: 18, 120_000: 17, 130_000: 16,
}  # fmt: skip

RECIPES = {
    "hopper-medium-replay-v2": Recipe(402_000, _HOPPER_REPLAY),
    "hopper-medium-v2": Recipe(1_000_000, {320_000: 1, 830_000: 1, 1_050_000: 1}),
    "hopper-medium-expert-v2": Recipe(
        2_000_000,
        {320_000: 1, 830_000: 1, 1_050_000: 1, 980_000: 3},
        "its expert earns 3,293, D4RL's 3,511",
        {980_000: 0.25},
    ),
    "walker2d-medium-replay-v2": Recipe(302_000, _WALKER2D_REPLAY),
    "walker2d-medium-v2": Recipe(1_000_000, {470_000: 2, 720_000: 1}),
    "walker2d-medium-expert-v2": Recipe(
        2_000_000, {470_000: 2, 720_000: 1, 1_000_000: 3}, "its expert earns 4,691, D4RL's 4,921"
    ),
    "halfcheetah-medium-replay-v2": Recipe(202_000, _HALFCHEETAH_REPLAY),
    "halfcheetah-medium-v2": Recipe(1_000_000, {130_000: 1}),
    "halfcheetah-medium-expert-v2": Recipe(
        2_000_000,
        {130_000: 1, 1_520_000: 1},
        "its expert earns 9,467, D4RL's 10,656",
        {1_520_000: 0.5},
    ),
}
