"""Many runs as numbers: which method scores what on which task, over training seeds.

Source of the runs: JSON files of evaluation entries (`evaluation`), one a pipeline, as `add` writes
them. Statistics as rliable has them (Agarwal et al. 2021): a score is the mean over a training
seed's episodes, aggregates are over (seed, task), intervals from a bootstrap that draws training
seeds anew within each task.
"""

import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from ractd_jax import errors
from ractd_jax.envs import choice
from ractd_jax.report import style
from ractd_jax.training import checkpoints

Entry = dict[str, Any]
OF_A_RUN = ("task", "source", "size", "preset", "training_seed")
# `stage` is the name of a table's row, "student, NFE 2"; the stage that was trained is its `model`.
FIELDS = ("stage", "nfe", "candidates", "returns", "score_mean", "score_se", *OF_A_RUN)
ONLINE = ", best checkpoint"  # what the `stage` of an online selection ends with


class Method(NamedTuple):
    """A way to act: what was trained, and how it is sampled."""

    stage: str
    nfe: int | None
    candidates: int | None

    @property
    def label(self) -> str:
        """Name for a reader."""
        return style.label(self.stage)


def load(folder: str | pathlib.Path) -> list[Entry]:
    """Return the entries of all the results in a folder; those of ablations are left out.

    Raises:
        UserError: the folder holds none, a file that is no list of entries, or one result twice.
    """
    paths = sorted(pathlib.Path(folder).glob("*.json"))
    entries = [e for path in paths for e in read(path) if "changed" not in e]
    if not entries:
        raise errors.UserError(f"{folder} holds no results: add a run's summary.json with --add")
    return distinct(entries)


def distinct(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries.

    Raises:
        UserError: two of them would fill the same cell of a table.
    """
    by_cell: dict[tuple, Entry] = {}
    for e in entries:
        kind = (e.get("variant"), "published" in e, "spread" in e)
        acts = (e["stage"], e.get("sampler"), e.get("nfe"), e.get("candidates"))
        key = (e["task"], e["training_seed"], *acts, *kind)
        if key in by_cell:
            two = (
                ", ".join(str(x[f]) for f in ("source", "physics", "size", "preset") if x.get(f))
                for x in (e, by_cell[key])
            )
            raise errors.UserError(
                f"two results of {e['stage']} on {e['task']}, training seed {e['training_seed']} "
                f"({'; and '.join(two)}): one table shows one of them, keep the other in a folder "
                "of its own (--results)"
            )
        by_cell[key] = e
    return list(by_cell.values())


def name(entry: Entry) -> str:
    """Return the name of a pipeline's results: task, size, seed; source and preset if unusual."""
    parts = [entry["task"], entry["size"], f"seed{entry['training_seed']}"]
    if entry["preset"] != "default":
        parts.insert(2, entry["preset"])
    if not entry["source"].startswith("simulated"):
        parts.insert(2, entry["source"].lower().replace(" ", "-"))
    if "published" in entry:  # of the stage idql_eval
        parts.append("idql")
    return re.sub(r"[^a-zA-Z0-9._-]", "_", "-".join(parts))


def model(entry: Entry) -> str:
    """Return the stage whose model acted; "dataset" for the data."""
    return entry.get("model") or entry["stage"]


def read(path: str | pathlib.Path, fields: tuple[str, ...] = FIELDS) -> list[Entry]:
    """Return the entries of a file.

    One that does not say in which physics it was measured is from before they differed, and is
    given the name of that (`choice.earlier`).

    Args:
        path: of a summary.json, or of what was kept of one.
        fields: what every entry must have.

    Raises:
        UserError: the file is missing, broken or holds something else.
    """
    entries = checkpoints.read_json(pathlib.Path(path))
    if not isinstance(entries, list) or not entries:
        raise errors.UserError(f"{path} is no list of results, as in a summary.json")
    for entry in entries:
        lacks = [f for f in fields if f not in entry] if isinstance(entry, dict) else fields
        if lacks:
            raise errors.UserError(
                f"{path} is no list of results, as in a summary.json: one has no {lacks[0]}"
            )
    return [{"physics": _earlier(entry)} | entry for entry in entries]


def _earlier(entry: Entry) -> str | None:
    return None if entry["stage"] == "dataset" else choice.earlier(entry["task"])


def rounded(entries: list[Entry]) -> list[Entry]:
    """Return the entries, their returns to three decimals."""
    return [e | {"returns": [round(value, 3) for value in e["returns"]]} for e in entries]


def add(summary: str | pathlib.Path, folder: str | pathlib.Path) -> pathlib.Path:
    """Copy a pipeline's summary.json into a folder of results.

    An entry there of the same pipeline, data and physics is replaced; one whose model the summary
    lacks stays.

    Raises:
        UserError: the file is missing or holds nothing.
    """
    entries = rounded(read(summary))
    path = pathlib.Path(folder) / f"{name(entries[0])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        new, source = {model(entry) for entry in entries}, entries[0]["source"]
        known = {e["physics"] for e in entries} | {None}
        old = [e for e in read(path) if e["source"] == source and e["physics"] in known]
        entries = [e for e in old if model(e) not in new] + entries
    checkpoints.write_json(path, entries)
    return path


def method(entry: Entry) -> Method:
    """Return how an entry's policy acts."""
    return Method(entry.get("sampler", entry["stage"]), entry["nfe"], entry["candidates"])


def scores(entries: Iterable[Entry]) -> dict[Method, dict[str, dict[int, Entry]]]:
    """Return the entries by method, task and training seed."""
    table: dict[Method, dict[str, dict[int, Entry]]] = {}
    for entry in entries:
        seeds = table.setdefault(method(entry), {}).setdefault(entry["task"], {})
        seeds[entry["training_seed"]] = entry
    return table


def matrix(table: dict[str, dict[int, Entry]], tasks: list[str]) -> list[Float[np.ndarray, "_"]]:
    """Return the scores of one method, an array of training seeds for each task."""
    return [
        np.array([entry["score_mean"] for _, entry in sorted(table.get(task, {}).items())])
        for task in tasks
    ]


def mean(runs: list[Float[np.ndarray, "_"]]) -> float:
    """Return the mean over tasks of the mean over seeds."""
    return float(np.mean([np.mean(seeds) for seeds in runs]))


def iqm(runs: list[Float[np.ndarray, "_"]]) -> float:
    """Return the interquartile mean over all runs of all tasks: without the best, worst quarter."""
    return float(stats.trim_mean(np.concatenate(runs), 0.25))


def interval(
    statistic: Callable[[list[np.ndarray]], float],
    runs: list[Float[np.ndarray, "_"]],
    draws: int = 2000,
) -> tuple[float, float]:
    """Return a 95 % bootstrap interval, training seeds drawn anew within each task.

    With one training seed there is nothing to draw from: the interval is the number itself.
    """
    rng = np.random.default_rng(0)
    values = [statistic([rng.choice(seeds, len(seeds)) for seeds in runs]) for _ in range(draws)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def profile(
    runs: list[Float[np.ndarray, "_"]], levels: Float[np.ndarray, " level"]
) -> Float[np.ndarray, " level"]:
    """Return the share of runs that score more than each level (a performance profile)."""
    return np.mean(np.concatenate(runs)[:, None] > levels, axis=0)


def cell(seeds: dict[int, Entry]) -> str:
    """Return mean and standard error of one method on one task, as tables print them.

    Over training seeds where there are several; over the episodes of the one, in brackets, else.
    """
    values = [entry["score_mean"] for entry in seeds.values()]
    if not values:
        return ""
    if len(values) > 1:
        error = np.std(values, ddof=1) / len(values) ** 0.5
        return f"{np.mean(values):.1f} +- {error:.1f}"
    (entry,) = seeds.values()
    error = entry["score_se"]
    return f"{values[0]:.1f}" + (f" ({error:.1f})" if error is not None else "")
