"""The generated blocks of docs/results.md: the study's numbers as Markdown tables.

Text between two lines `<!-- study: <name> -->` and `<!-- end -->` is written here, everything else
by hand. `page` shows the same tables in docs/report.html.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.report import study, style, variants

BLOCK = re.compile(r"(<!-- study: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
KEPT = "online/kept"  # runs that are the study's but for their checkpoints, all kept
FAMILIES = {
    "gym": [name for name in tasks.TASKS if tasks.get(name).max_episode_steps == 1000],
    "maze2d": [name for name in tasks.TASKS if name.startswith("maze2d")],
}
OWN = ("dataset", "teacher", "ctd", "student")  # RACTD's pipeline
ORDER = ("dataset", "edm_bc", "teacher", "ddpm", "ddim", "cd", "ct", "ctd", "student")


class Block(NamedTuple):
    """A generated part of a document: what its numbers have in common, and a Markdown table."""

    protocol: str
    table: str


def rank(method: study.Method) -> tuple:
    """Sort methods as papers do: the data, imitation, the student, then the rivals."""
    stage = method.stage.partition(",")[0]
    place = ORDER.index(stage) if stage in ORDER else len(ORDER)
    return place, method.stage, method.candidates or 0, method.nfe or 0


def table(entries: list[study.Entry], family: str) -> str:
    """Return the scores of a family of tasks as a Markdown table, the longer list downwards."""
    names = [t for t in FAMILIES[family] if any(e["task"] == t for e in entries)]
    by_method = study.scores(e for e in entries if e["task"] in names)
    methods = sorted(by_method, key=rank)
    columns = [["task", *names]]
    for method in methods:
        cells = [study.cell(by_method[method].get(task, {})) for task in names]
        columns.append([_heading(method), *cells])
    if len(names) > 1:
        columns[0].append(f"mean of {len(names)}")
        for column, method in zip(columns[1:], methods, strict=True):
            runs = study.matrix(by_method[method], names)
            column.append(f"{study.mean(runs):.1f}" if all(map(len, runs)) else "")
    return _rows(columns if len(methods) > len(names) else [*zip(*columns, strict=True)])


def _heading(method: study.Method) -> str:
    """Return a method's name with its network calls and candidates, unless it says them itself."""
    parts = [method.label]
    if method.nfe is not None and "NFE" not in method.label:
        parts.append(f"NFE {method.nfe}")
    if (method.candidates or 1) > 1 and "1 of" not in method.label:
        parts.append(f"1 of {method.candidates}")
    return ", ".join(parts)


def physics(entries: list[study.Entry]) -> str:
    """Return one line that says in which physics some entries were measured, "" if in none."""
    names = dict.fromkeys(str(e["physics"]) for e in entries if e.get("physics"))
    return f"physics: {', '.join(names)}" if names else ""


def protocol(entries: list[study.Entry]) -> str:
    """Return one paragraph that says what all the numbers have in common."""

    def all_of(field: str) -> str:
        return ", ".join(dict.fromkeys(str(e[field]) for e in entries if e[field] is not None))

    seeds = ", ".join(map(str, sorted({e["training_seed"] for e in entries})))
    episodes = {len(e["seeds"]) for e in entries if e["seeds"]}
    return (
        f"Data: {all_of('source')}. Physics: {all_of('physics')}. Size {all_of('size')}, preset "
        f"{all_of('preset')}, training seeds {seeds}, {' or '.join(map(str, sorted(episodes)))} "
        f"evaluation seeds, {all_of('selection')}. Mean +- standard error over training seeds; "
        "with one seed only, the standard error over its episodes in brackets.\n"
    )


def _rows(cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of a heading and rows."""
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|---" * len(cells[0]) + "|")
    return "\n".join(lines) + "\n"


def pipeline(entries: list[study.Entry]) -> list[study.Entry]:
    """Return the entries of the data, the teacher and its students, with one candidate."""
    return [e for e in entries if e["stage"] in OWN and (e["candidates"] or 1) == 1]


def own(entry: study.Entry) -> bool:
    """Tell if an entry is of the data, the teacher or its students, however they act."""
    return entry["stage"].partition(",")[0] in OWN


def ranking(entries: list[study.Entry]) -> str:
    """Return the mean over all tasks of every method that did every task, the best first."""
    names = [t for t in FAMILIES["gym"] if any(e["task"] == t for e in entries)]
    by_method = study.scores(entries)
    runs = {method: study.matrix(by_method[method], names) for method in by_method}
    runs = {method: scores for method, scores in runs.items() if all(map(len, scores))}
    head = ["method", "NFE", "candidates", f"mean of {len(names)}", "95 %", "IQM", "training seeds"]
    rows = [head]
    for method in sorted(runs, key=lambda method: -study.mean(runs[method])):
        scores, counts = runs[method], sorted({len(seeds) for seeds in runs[method]})
        low, high = study.interval(study.mean, scores)
        numbers = [f"{study.mean(scores):.1f}", f"{low:.1f} to {high:.1f}"]
        many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        if method.stage == "dataset":
            numbers[1], many = "", ""
        cells = [method.label, str(method.nfe or ""), str(method.candidates or "")]
        rows.append([*cells, *numbers, f"{study.iqm(scores):.1f}", many])
    return _rows(rows)


def rivals(entries: list[study.Entry]) -> str:
    """Return all methods on the tasks where others than RACTD's have run, a method a row."""
    head = ["task", "method", "NFE", "candidates", "score", "ms an action", "minutes of training"]
    rows = [head]
    for task in FAMILIES["gym"]:
        of_task = [e for e in entries if e["task"] == task]
        if all(map(own, of_task)):
            continue
        by_method = study.scores(of_task)
        for method in sorted(by_method, key=rank):
            seeds = by_method[method][task]
            numbers = (method.nfe or "", method.candidates or "", study.cell(seeds))
            took = (_median(seeds, "action_ms"), _median(seeds, "training_seconds", 60.0))
            rows.append([*map(str, (task, method.label, *numbers, *took))])
    return _rows(rows)


def _median(seeds: dict[int, study.Entry], field: str, unit: float = 1.0) -> str:
    """Return the median over training seeds of a field that not every entry has."""
    values = [e[field] / unit for e in seeds.values() if e.get(field)]
    return f"{np.median(values):.2g}" if values else ""


def idql(entries: list[study.Entry]) -> str:
    """Return Consistency-IDQL's table: a sampler a row, its network calls the columns."""
    calls = sorted({e["nfe"] for e in entries})
    rows = [["task", "sampler", "candidates", *(f"NFE {n}" for n in calls), "published, 1 of 256"]]
    by_sampler: dict[tuple, dict[int, dict[int, study.Entry]]] = {}
    for e in entries:
        row = by_sampler.setdefault((e["task"], e["model"], e["candidates"]), {})
        row.setdefault(e["nfe"], {})[e["training_seed"]] = e
    for (task, stage, candidates), row in by_sampler.items():
        cells = [study.cell(row.get(n, {})) for n in calls]
        known = [next(iter(seeds.values()))["published"] for seeds in row.values()]
        shown = " / ".join(f"{figure:.1f}" for figure in known if figure)
        rows.append([task, style.label(stage), str(candidates), *cells, shown])
    return _rows(rows)


def kept(entries: list[study.Entry], folder: pathlib.Path | None) -> list[study.Entry]:
    """Return the runs whose checkpoints were all evaluated, those trained for it alone too.

    Args:
        entries: of the study.
        folder: of results, with `KEPT` among its variants.
    """
    again = variants.load(folder, "variants") if folder else []
    runs = [e | {"variant": KEPT} for e in entries if "published" not in e]
    runs += [e for e in again if e["variant"] == KEPT]
    return runs if any("updates" in e for e in runs) else []


def online(entries: list[study.Entry]) -> str:
    """Return the scores of the last and of the best checkpoint of every run that has both."""
    rows = [["task", "method", "last checkpoint (offline)", "best checkpoint (online)", "of"]]
    for task in (*FAMILIES["gym"], *FAMILIES["maze2d"]):
        of_task = [e for e in entries if e["task"] == task]

        def run(e: study.Entry, row: str) -> tuple:
            return row, e["nfe"], e["candidates"], e["training_seed"], e["variant"]

        last = {run(e, e["stage"]): e for e in of_task}
        by_stage: dict[str, dict[int, tuple[study.Entry, study.Entry]]] = {}
        for best in (e for e in of_task if "updates" in e):
            row = best["stage"].removesuffix(study.ONLINE)
            if same := last.get(run(best, row)):
                by_stage.setdefault(row, {})[best["training_seed"]] = same, best
        for stage, pairs in sorted(by_stage.items()):
            cells = [study.cell({seed: pair[i] for seed, pair in pairs.items()}) for i in (0, 1)]
            counts = sorted({str(len(best["updates"])) for _, best in pairs.values()})
            of = f"{' or '.join(counts)} checkpoints, training seeds: {len(pairs)}"
            rows.append([task, style.label(stage), *cells, of])
    return _rows(rows)


def variants_table(entries: list[study.Entry]) -> str:
    """Return one suite's scores: variants and methods down, tasks across.

    With one task there is room for the time of a decision too.
    """
    names = [name for name in tasks.TASKS if any(e["task"] == name for e in entries)]
    head = ["variant", "method", "NFE", *names, *["ms a decision"] * (len(names) == 1)]
    rows, by_variant = [head], {}
    for e in entries:
        key = (e["variant"].partition("/")[2], e["stage"], e["nfe"])
        by_variant.setdefault(key, {}).setdefault(e["task"], {})[e["training_seed"]] = e
    for (variant, stage, calls), by_task in by_variant.items():
        cells = [study.cell(by_task.get(name, {})) for name in names]
        if len(names) == 1:
            cells.append(_median(by_task[names[0]], "action_ms"))
        rows.append([variant, style.label(stage), str(calls), *cells])
    return _rows(rows)


def diversity(entries: list[study.Entry]) -> str:
    """Return spread, coverage and return of policies, means over training seeds."""
    rows = [["task", "policy", "training seeds", "spread", "coverage", "return"]]
    by_policy: dict[tuple[str, str], list[study.Entry]] = {}
    for e in entries:
        by_policy.setdefault((e["task"], e["stage"]), []).append(e)
    places = [*tasks.TASKS]
    for (task, stage), runs in sorted(
        by_policy.items(),
        key=lambda row: places.index(row[0][0]) if row[0][0] in places else len(places),
    ):
        spread, coverage, value = (
            float(np.mean([e[field] for e in runs])) for field in ("spread", "coverage", "return")
        )
        numbers = [f"{spread:.3f}", f"{100 * coverage:.0f} %", f"{value:+.2f}"]
        rows.append([task, style.label(stage), str(len(runs)), *numbers])
    return _rows(rows)


# ---- the document --------------------------------------------------------------------------------


def make(entries: list[study.Entry], folder: pathlib.Path | None = None) -> dict[str, Block]:
    """Return every generated block of docs/results.md, by its name.

    Args:
        entries: of the study.
        folder: of results, for the variants and the diversity kept there.
    """
    made = {}
    if folder is not None:
        for suite, selected in variants.suites(variants.load(folder, "variants")).items():
            made[suite] = Block(protocol(selected), variants_table(selected))
        if measured := variants.load(folder, "diversity"):
            made["diversity"] = Block("", diversity(measured))
    if tutorial := [e for e in entries if "published" in e]:
        made["idql"] = Block(protocol(tutorial), idql(tutorial))
    entries = [e for e in entries if "published" not in e]
    if selected := kept(entries, folder):
        made["online"] = Block("", online(selected))
    entries = [e for e in entries if "updates" not in e]
    for family, names in FAMILIES.items():
        of_family = [e for e in entries if e["task"] in names]
        of_family = pipeline(of_family) if family == "gym" else of_family
        if of_family:
            made[family] = Block(protocol(of_family), table(of_family, family))
    gym = [e for e in entries if e["task"] in FAMILIES["gym"]]
    if not all(map(own, gym)):
        made["ranking"] = Block("", ranking(gym))
        made["rivals"] = Block("", rivals(gym))
    return made


def rewrite(text: str, made: dict[str, Block]) -> str:
    """Return a document with its generated blocks replaced.

    Raises:
        UserError: it has a block that nothing is known about.
    """

    def block(match: re.Match) -> str:
        if match[2] not in made:
            raise errors.UserError(f"there are no results for the block {match[2]}")
        said, rows = made[match[2]]
        return f"{match[1]}\n{said}{chr(10) * bool(said)}{rows}\n{match[3]}"

    return BLOCK.sub(block, text)
