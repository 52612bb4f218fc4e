"""Results that are kept apart from the study's own: what was varied, and how diverse policies are.

`results/variants` has runs that differ in one thing, by suite (`configs/suite.py`) and what was
varied: `page --add summary.json --variant table4/both`; of the suite `online` nothing is varied, it
has runs whose checkpoints were kept. `results/diversity` has what
`python -m ractd_jax.evaluation.diversity` found: `page --add diversity.json`.
"""

import pathlib
import re

from ractd_jax import errors
from ractd_jax.report import study
from ractd_jax.training import checkpoints

FIELDS = {  # folder: what its entries have besides those of every result
    "variants": ("variant", *study.FIELDS),
    "diversity": ("stage", "spread", "coverage", "return", *study.OF_A_RUN),
}
OTHERS = ("gym", "maze2d", "ranking", "rivals", "idql", "diversity")  # blocks that are no suite


def load(results: pathlib.Path, kind: str) -> list[study.Entry]:
    """Return the entries of `results/variants` or `results/diversity`, none if there are none.

    Raises:
        UserError: a file holds something else, or two hold the same.
    """
    paths = sorted((pathlib.Path(results) / kind).glob("*.json"))
    return study.distinct(e for path in paths for e in study.read(path, FIELDS[kind]))


def add(summary: pathlib.Path, results: pathlib.Path, variant: str) -> pathlib.Path:
    """Copy a run's summary.json into `results/variants`; return the copy.

    Args:
        summary: of the run.
        results: the folder of results.
        variant: "table4/both": the suite and what was varied.

    Raises:
        UserError: the file holds no evaluation, or the name is no two words.
    """
    if not re.fullmatch(r"\w+/[\w.-]+", variant) or variant.partition("/")[0] in OTHERS:
        raise errors.UserError(f"--variant is {variant!r}: a suite and a name, as in table4/both")
    entries = study.rounded(study.read(summary))
    entries = [e | {"variant": variant} for e in entries if e["stage"] != "dataset"]
    if not entries:
        raise errors.UserError(f"{summary} holds nothing but the data")
    path = results / "variants" / f"{variant.replace('/', '-')}-{study.name(entries[0])}.json"
    checkpoints.write_json(path, entries)
    return path


def add_diversity(measured: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Copy a pipeline's diversity.json into `results/diversity`; return the copy.

    Raises:
        UserError: the file is missing or is none.
    """
    entries = study.read(measured, FIELDS["diversity"])
    path = results / "diversity" / f"{study.name(entries[0])}.json"
    checkpoints.write_json(path, entries)
    return path


def suites(entries: list[study.Entry]) -> dict[str, list[study.Entry]]:
    """Return the entries of each suite."""
    by_suite: dict[str, list[study.Entry]] = {}
    for entry in entries:
        by_suite.setdefault(entry["variant"].partition("/")[0], []).append(entry)
    return by_suite
