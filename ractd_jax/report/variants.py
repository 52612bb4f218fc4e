"""Runs that differ in one thing from the others: Tables 4, 5 and 10, Figures 3 and 4, Table 12.

`page --add summary.json --variant table4/both` keeps them in `results/variants`: the name's first
word is the suite (`configs/suite.py`), its second what was varied. What `ractd_jax.diversity` found
is in `results/diversity`. Neither is mixed with the study's own runs (`study`).
"""

import json
import pathlib
import re

import numpy as np
from matplotlib.figure import Figure

from ractd_jax import checkpoints, errors, tasks
from ractd_jax.report import plots, study, style


def load(results: pathlib.Path, kind: str) -> list[study.Entry]:
    """Return the entries of `results/variants` or `results/diversity`, none if there are none."""
    paths = sorted((pathlib.Path(results) / kind).glob("*.json"))
    return [entry for path in paths for entry in json.loads(path.read_text())]


def add(summary: pathlib.Path, results: pathlib.Path, variant: str) -> pathlib.Path:
    """Copy a run's summary.json into `results/variants`; return the copy.

    Args:
        summary: of the run.
        results: the folder of results.
        variant: "table4/both": the suite and what was varied.

    Raises:
        UserError: the file holds no evaluation, or the name is no two words.
    """
    if not re.fullmatch(r"\w+/[\w.-]+", variant):
        raise errors.UserError(f"--variant is {variant!r}: a suite and a name, as in table4/both")
    entries = study.read(summary)
    entries = [e | {"variant": variant} for e in entries if e["stage"] != "dataset"]
    if not entries:
        raise errors.UserError(f"{summary} holds nothing but the data")
    path = results / "variants" / f"{variant.replace('/', '-')}-{study.name(entries[0])}.json"
    checkpoints.write_json(path, entries)
    return path


def add_diversity(found: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Copy a pipeline's diversity.json into `results/diversity`; return the copy.

    Raises:
        UserError: the file is missing or is none.
    """
    entries = checkpoints.read_json(found)
    if not isinstance(entries, list) or not entries or not all("spread" in e for e in entries):
        raise errors.UserError(f"{found} is no diversity.json")
    name = f"{entries[0]['task']}-seed{entries[0]['training_seed']}.json"
    checkpoints.write_json(results / "diversity" / name, entries)
    return results / "diversity" / name


def suites(entries: list[study.Entry]) -> dict[str, list[study.Entry]]:
    """Return the entries of each suite."""
    found: dict[str, list[study.Entry]] = {}
    for entry in entries:
        found.setdefault(entry["variant"].partition("/")[0], []).append(entry)
    return found


def table(entries: list[study.Entry]) -> str:
    """Return one suite's scores as a Markdown table: variants and methods down, tasks across.

    With one task there is room for the time of a decision too.
    """
    names = [name for name in tasks.TASKS if any(e["task"] == name for e in entries)]
    rows: dict[tuple[str, str, int], dict[str, dict[int, study.Entry]]] = {}
    for e in entries:
        key = (e["variant"].partition("/")[2], e["stage"], e["nfe"])
        rows.setdefault(key, {}).setdefault(e["task"], {})[e["training_seed"]] = e
    head = ["variant", "method", "NFE", *names, *["ms a decision"] * (len(names) == 1)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (variant, stage, calls), found in rows.items():
        cells = [study.cell(found.get(name, {})) for name in names]
        if len(names) == 1:
            times = [e["action_ms"] for e in found[names[0]].values() if e["action_ms"]]
            cells.append(f"{np.median(times):.2g}" if times else "")
        lines.append("| " + " | ".join([variant, style.label(stage), str(calls), *cells]) + " |")
    return "\n".join(lines) + "\n"


def diversity(entries: list[study.Entry]) -> str:
    """Return spread, coverage and return of policies as a Markdown table, means over seeds."""
    lines = ["| task | policy | training seeds | spread | coverage | return |"]
    lines.append("|---|---|---|---|---|---|")
    rows: dict[tuple[str, str], list[study.Entry]] = {}
    for e in entries:
        rows.setdefault((e["task"], e["stage"]), []).append(e)
    for (task, stage), found in sorted(
        rows.items(), key=lambda row: list(tasks.TASKS).index(row[0][0])
    ):
        spread, coverage, worth = (
            float(np.mean([e[field] for e in found])) for field in ("spread", "coverage", "return")
        )
        numbers = (str(len(found)), f"{spread:.3f}", f"{100 * coverage:.0f} %", f"{worth:+.2f}")
        lines.append("| " + " | ".join((task, style.label(stage), *numbers)) + " |")
    return "\n".join(lines) + "\n"


# ---- figures -------------------------------------------------------------------------------------


def over_training(entries: list[study.Entry]) -> Figure | None:
    """Draw the score of every checkpoint over the updates, a line a variant (Figure 4).

    None where no entry has the scores of its checkpoints (`eval.online`).
    """
    curves = [e for e in entries if "updates" in e]
    names = list(dict.fromkeys(e["variant"].partition("/")[2] for e in curves))
    if not names:
        return None
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(names):
        runs = [e for e in curves if e["variant"].endswith(f"/{name}")]
        color = plots.TERMS[i % len(plots.TERMS)]
        for run in runs:
            axes.plot(run["updates"], run["scores"], color=color, lw=0.8, alpha=0.4)
        if len({tuple(run["updates"]) for run in runs}) == 1:
            middle = np.mean([run["scores"] for run in runs], axis=0)
            axes.plot(runs[0]["updates"], middle, "o-", color=color, lw=2, ms=4, label=name)
    shown = sorted({e["task"].removesuffix("-v2") for e in curves})
    plots.dress(axes, f"score over training, {', '.join(shown)}", "updates", grid="both")
    axes.set_ylabel("normalised score", fontsize=9.5, color=style.MUTED)
    axes.legend(fontsize=8.5, frameon=False)
    return figure


def modes(entries: list[study.Entry], task: str) -> Figure:
    """Draw how the returns of data, teacher and students are distributed (Figure 3).

    Args:
        entries: of the study, one candidate.
        task: one of theirs; episodes of all training seeds are put together.
    """
    spec, scores = tasks.get(task), {}
    for stage in ("dataset", "teacher", "ctd", "student"):
        runs = [e["returns"] for e in entries if (e["task"], e["stage"]) == (task, stage)]
        if stage == "dataset":
            runs = runs[:1]  # the same data for all seeds
        if runs:
            scores[stage] = spec.score(np.concatenate(runs))
    return plots.distributions(scores, f"{task}, simulated data")
