"""Which snapshots make each simulated dataset, and how it differs from D4RL's own.

A snapshot is an actor of one SAC run per robot, saved every 10,000 environment steps while it
learned (batch 256, one update a step). "medium" is one that earns about what D4RL's medium policy
does, medium-replay all snapshots until then, each for its share of the steps. "expert" is the best
one there is: the runs were shorter than D4RL's, so it earns less, and `Recipe.note` says how much.
`tools/compare_simulated.py` prints the numbers of both.
"""

from typing import NamedTuple


class Recipe(NamedTuple):
    """How much of which snapshot makes a dataset.

    Attributes:
        transitions: steps in D4RL's own dataset.
        shares: weight of each snapshot, by the training step it was saved at; 0 = random actions.
        note: what a reader of a score must know about the data, for labels; "" for nothing.
    """

    transitions: int
    shares: dict[int, int]
    note: str = ""


# The shares of medium-replay (thousands of steps) were fitted to D4RL's number of episodes and the
# mean and spread of their returns, staying near equal shares. The last one's actor is "medium".
# Their returns: python -m tools.compare_simulated --snapshots --transitions 100000

# Medium earns 1,406 +- 394 where D4RL's earns 1,422 +- 379. The "expert" earns 3,174 +- 196, less
# than D4RL's 3,511 +- 329.
_HOPPER_REPLAY = {
    0: 6, 10_000: 14, 20_000: 36, 30_000: 44, 40_000: 48, 50_000: 10, 70_000: 8, 90_000: 20,
    110_000: 18, 120_000: 18, 140_000: 31, 170_000: 19, 190_000: 20, 240_000: 17, 250_000: 26,
    300_000: 12, 320_000: 37, 350_000: 18,
}  # fmt: skip
# Medium earns 2,771 +- 890 where D4RL's earns 2,852 +- 1,095. The "expert" is the last actor and
# far from finished: 3,329 +- 807, D4RL's 4,921 +- 136.
_WALKER2D_REPLAY = {
    0: 6, 10_000: 21, 20_000: 11, 30_000: 14, 40_000: 14, 50_000: 15, 60_000: 15, 80_000: 10,
    100_000: 14, 140_000: 10, 190_000: 18, 250_000: 10, 300_000: 14, 350_000: 16, 420_000: 32,
    470_000: 38, 560_000: 44,
}  # fmt: skip
# Medium earns 4,770 +- 809 where D4RL's earns 4,770 +- 356. There is no expert: the run ends at
# 300,000 steps, and its best actor earns 6,782 +- 424, D4RL's expert 10,656 +- 442.
_HALFCHEETAH_REPLAY = {
    0: 7, 10_000: 7, 20_000: 9, 30_000: 13, 40_000: 20, 50_000: 20, 60_000: 20, 70_000: 19,
    80_000: 17, 90_000: 16, 100_000: 14, 110_000: 14, 120_000: 13, 130_000: 13,
}  # fmt: skip

RECIPES = {
    "hopper-medium-replay-v2": Recipe(402_000, _HOPPER_REPLAY),
    "hopper-medium-v2": Recipe(1_000_000, {350_000: 1}),
    "hopper-medium-expert-v2": Recipe(
        2_000_000, {350_000: 1, 630_000: 1}, "its expert earns 3,170, D4RL's 3,511"
    ),
    "walker2d-medium-replay-v2": Recipe(302_000, _WALKER2D_REPLAY),
    "walker2d-medium-v2": Recipe(1_000_000, {560_000: 1}),
    "walker2d-medium-expert-v2": Recipe(
        2_000_000, {560_000: 1, 600_000: 1}, "its expert earns 3,330, D4RL's 4,921"
    ),
    "halfcheetah-medium-replay-v2": Recipe(202_000, _HALFCHEETAH_REPLAY),
    "halfcheetah-medium-v2": Recipe(1_000_000, {130_000: 1}),
    "halfcheetah-medium-expert-v2": Recipe(
        2_000_000, {130_000: 1, 270_000: 1}, "no expert: its best policy earns 6,780, D4RL's 10,656"
    ),
}
