"""Cut a SAC run's saved actors down to the ones that the recipes use, and ship those.

    python -m tools.thin_snapshots --source DIR [--env hopper]

`DIR/sac_actors_<env>.npz` holds `steps` (n,) and, for each layer `hidden0`, `hidden1`, `mean` and
`log_std`, `/kernel` (n, in, out) and `/bias` (n, out). The result is
`ractd_jax/data/snapshots/<env>.npz`, the same arrays with fewer rows, in float16.
"""

import argparse
from pathlib import Path

import numpy as np

from ractd_jax.data.generate import simulated


def thin(source: Path, env: str) -> Path:
    """Write the snapshots named by the recipes of `env`, and return the file."""
    wanted = {
        saved_at
        for task, recipe in simulated.RECIPES.items()
        if task.startswith(f"{env}-")
        for saved_at in recipe.shares
        if saved_at > 0
    }
    with np.load(source / f"sac_actors_{env}.npz") as archive:
        keep = np.flatnonzero(np.isin(archive["steps"], list(wanted)))
        if len(keep) != len(wanted):
            raise SystemExit(f"{env}: wanted {sorted(wanted)}, found only {archive['steps'][keep]}")
        layers = {name: archive[name][keep].astype(np.float16) for name in archive if "/" in name}
        steps = archive["steps"][keep]
    path = simulated.SNAPSHOTS / f"{env}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, steps=steps, **layers)
    return path


def main() -> None:
    """Read the command line, thin, and say how large the result is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of sac_actors_<env>.npz")
    parser.add_argument("--env", default="hopper", help="hopper, walker2d or halfcheetah")
    args = parser.parse_args()
    path = thin(args.source, args.env)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
