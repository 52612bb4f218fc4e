"""Cut the originals' compiled models down to the numbers that today's MuJoCo works out differently.

    python -m tools.thin_models --source physics_models.npz

The source was read out of gym 0.23's Hopper-v2, Walker2d-v2 and HalfCheetah-v2 and D4RL's mazes,
compiled by MuJoCo 2.1.0: arrays `<environment>/<field of mjModel>`. The result is
`ractd_jax/envs/models.npz`, those that `physics.restore` writes; of the mazes one, for the ball is
the same in all three. A difference in any other array is an error: then today's models differ in
more than these, and `restore` would not be enough.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ractd_jax.envs import physics
from ractd_jax.envs.make import make_env

NAMES = {"Hopper-v2": "hopper", "Walker2d-v2": "walker2d", "HalfCheetah-v2": "halfcheetah"}
MAZE = "maze2d-umaze-v1"
SAME = 1e-9  # of two numbers that were worked out alike


def thin(source: Path) -> Path:
    """Write the fields of all four models, and return the file.

    Raises:
        SystemExit: today's models differ from the originals in another field too.
    """
    kept = {}
    with np.load(source) as archive:
        for name, prefix in NAMES.items():
            env = make_env(name.replace("-v2", "-v4"))
            kept |= _fields(archive, name, prefix, getattr(env.unwrapped, "model"))  # noqa: B009
            env.close()
        kept |= _fields(archive, MAZE, "maze2d", None)
    np.savez_compressed(physics.MODELS, **kept)
    return physics.MODELS


def _fields(archive, name: str, prefix: str, today: Any) -> dict[str, np.ndarray]:
    """Return the arrays of one original, after comparing the rest of them with today's.

    Args:
        archive: all arrays.
        name: of the original.
        prefix: its name in the result.
        today: Gymnasium's model, None where there is none.

    Raises:
        SystemExit: another array differs.
    """
    kept = {}
    for key in archive:
        model, _, field = key.partition("/")
        if model != name:
            continue
        if field in (*physics.INERTIA, *physics.WEIGHTS):
            kept[f"{prefix}/{field}"] = archive[key]
        # A maze is not Gymnasium's; `maze2d.mjcf` says how it compares.
        elif today is not None and not np.allclose(getattr(today, field), archive[key], 0, SAME):
            raise SystemExit(f"{name} differs in {field} too")
    return kept


def main() -> None:
    """Read the command line, thin, and say how large the result is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="the originals' models")
    path = thin(parser.parse_args().source)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
