"""What several test modules share: places, shapes, configurations and made-up data.

Test modules import from here and never from each other. Fixtures are in `conftest.py`.
"""

import json
import pathlib

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from ractd_jax.cli import configs
from ractd_jax.data import episodes, hdf5

ROOT = pathlib.Path(__file__).parents[1]  # of the repository
DATA = ROOT / "tests" / "data"  # small files that tests compare with
SHAPE, COND = (4, 2), 3  # of the toy's trajectories and conditions
# (length, ends in a terminal) of each episode, and the length of an unfinished tail
STRUCTURES = st.tuples(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6), st.integers(0, 4)
)
TASKS = ["hopper-medium-replay-v2", "walker2d-medium-v2"]


# ---- configurations and data ---------------------------------------------------------------------


def load(name, arg=None):
    """Return a file's configuration, and the same in plain dicts.

    The dicts can be changed; `methods.registry.configure` makes them what a run sees.

    Args:
        name: of the file in `configs/`, as "hopper_mr".
        arg: what follows the colon on the command line.
    """
    config = configs.load(str(ROOT / "configs" / f"{name}.py"), arg)
    return config, json.loads(json.dumps(config.to_dict()))


def write_episodes(task, path):
    """Write 20 made-up episodes of 40 steps, half of which end in a terminal."""
    rng, n = np.random.default_rng(0), 800
    ends = np.arange(n) % 40 == 39
    rewarded = np.arange(n) % 20 < 18  # a maze's episodes end where rewards do
    failed = ends & (np.arange(n) % 80 == 39)
    columns = {
        "observations": rng.normal(size=(n, task.obs_dim)),
        "actions": rng.uniform(-1, 1, (n, task.act_dim)),
        "rewards": rng.uniform(0, 1, n) * rewarded,
        "terminals": failed,
        "timeouts": ends & ~failed,
    }
    hdf5.write(path, columns, {})


def transitions_of(structure, rewards=None):
    """Return made-up transitions.

    Args:
        structure: of the episodes, as `STRUCTURES` draws it.
        rewards: `(rows) -> rewards`; None for random ones.
    """
    finished, tail = structure
    n = sum(length for length, _ in finished) + tail
    rng = np.random.default_rng(n)
    ends = np.zeros((2, n), bool)
    row = -1
    for length, terminal in finished:
        row += length
        ends[0 if terminal else 1, row] = True
    return episodes.Transitions(
        rng.normal(size=(n, 3)).astype(np.float32),
        rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        rng.normal(size=n).astype(np.float32) if rewards is None else rewards(n),
        *ends,
    )


# ---- reports -------------------------------------------------------------------------------------


def entry(score, *, task=TASKS[0], stage="student", seed=0, **fields):
    """Return a row of results, as `evaluation` writes it, with any field replaced."""
    fixed = {
        "task": task,
        "source": "simulated",
        "physics": "D4RL v2 (of a test)",
        "stage": stage,
        "size": "demo",
        "preset": "default",
        "training_seed": seed,
        "returns": [100.0, 200.123456],
        "score_mean": score,
        "score_se": 0.5,
        "nfe": 1,
        "candidates": 1,
        "selection": "last",
        "seeds": [0, 1],
        "action_ms": 0.1,
    }
    return fixed | fields


def shows_something(path):
    """Tell if an image has more than 50 colours, and is large enough to be looked at."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 200
    return len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
