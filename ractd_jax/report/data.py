"""The numbers of a dataset beside the published ones.

A task family that has something else to look at, as Maze2d has its map, has a drawing in `MAPS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from ractd_jax.data import episodes
from ractd_jax.data.d4rl import Published
from ractd_jax.report import maze
from ractd_jax.tasks import TaskSpec

# family (the task's name up to its first hyphen) -> `(path of a PNG, transitions, task, label of
# the source)` draws it
MAPS: dict[str, Callable[[Path, episodes.Transitions, TaskSpec, str], None]] = {
    "maze2d": maze.save_density
}

ROWS = {
    "trajectories": ",d",
    "steps": ",d",
    "return_mean": ",.1f",
    "return_std": ",.1f",
    "return_max": ",.1f",
    "return_min": ",.1f",
}


def facts_table(facts: dict[str, Any], published: Published | None) -> Table:
    """Return the table of a dataset's numbers, beside D4RL's where they are published.

    Args:
        facts: from `data.statistics.inspect`.
        published: of D4RL's own set of this name.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("complete episodes", no_wrap=True)
    table.add_column("here", justify="right")
    if published:
        table.add_column("D4RL's", justify="right")
        table.add_column("difference", justify="right")
    for name, form in ROWS.items():
        row = [name.replace("_", " "), format(facts[name], form)]
        if published:
            known = getattr(published, name)
            apart = format((facts[name] - known) / abs(known), "+.1%")
            # The smallest return lies about 0, where a ratio says nothing.
            row += [format(known, form), "" if name == "return_min" else apart]
        table.add_row(*row)
    return table
