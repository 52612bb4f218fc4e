"""The study as a person reads it: tables in docs/results.md, and one page with all figures.

python -m ractd_jax.report.page --add runs/<...>/summary.json    copy a run's results into results/
python -m ractd_jax.report.page --add runs/table4/both/<...>/summary.json --variant table4/both
python -m ractd_jax.report.page --add runs/<...>/diversity.json
python -m ractd_jax.report.page                                  write tables and page anew

Text between two lines `<!-- study: <name> -->` and `<!-- end -->` of docs/results.md is written
here, everything else by hand. docs/report.html holds its pictures inside: one file to send.
"""

import argparse
import base64
import html
import io
import pathlib
import re
import shutil
import sys

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ractd_jax import checkpoints, errors, tasks
from ractd_jax.report import study, study_plots, style, variants

BLOCK = re.compile(r"(<!-- study: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAMILIES = {
    "gym": [name for name in tasks.TASKS if tasks.get(name).max_episode_steps == 1000],
    "maze2d": [name for name in tasks.TASKS if name.startswith("maze2d")],
}
OWN = ("dataset", "teacher", "ctd", "student")  # RACTD's pipeline
ORDER = ("dataset", "edm_bc", "teacher", "ddpm", "ddim", "cd", "ct", "ctd", "student")


def _rank(method: study.Method) -> tuple:
    """Sort methods as papers do: the data, imitation, the student, then the rivals."""
    stage = method.stage.partition(",")[0]
    place = ORDER.index(stage) if stage in ORDER else len(ORDER)
    return place, method.stage, method.candidates or 0, method.nfe or 0


def table(entries: list[study.Entry], family: str) -> str:
    """Return the scores of a family of tasks as a Markdown table, the longer list downwards."""
    names = [t for t in FAMILIES[family] if any(e["task"] == t for e in entries)]
    found = study.scores(e for e in entries if e["task"] in names)
    methods = sorted(found, key=_rank)
    columns = [["task", *names]]
    for method in methods:
        cells = [study.cell(found[method].get(task, {})) for task in names]
        columns.append([_heading(method), *cells])
    if len(names) > 1:
        columns[0].append(f"mean of {len(names)}")
        for column, method in zip(columns[1:], methods, strict=True):
            runs = study.matrix(found[method], names)
            column.append(f"{study.mean(runs):.1f}" if all(map(len, runs)) else "")
    rows = columns if len(methods) > len(names) else [*zip(*columns, strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines) + "\n"


def _heading(method: study.Method) -> str:
    """Return a method's name with its network calls and candidates, unless it says them itself."""
    words = [method.label]
    if method.nfe is not None and "NFE" not in method.label:
        words.append(f"NFE {method.nfe}")
    if (method.candidates or 1) > 1 and "1 of" not in method.label:
        words.append(f"1 of {method.candidates}")
    return ", ".join(words)


def protocol(entries: list[study.Entry]) -> str:
    """Return one paragraph that says what all the numbers have in common."""

    def all_of(field: str) -> str:
        return ", ".join(dict.fromkeys(str(e[field]) for e in entries if e[field] is not None))

    episodes = {len(e["seeds"]) for e in entries if e["seeds"]}
    return (
        f"Data: {all_of('source')}. Size {all_of('size')}, preset {all_of('preset')}, training "
        f"seeds {all_of('training_seed')}, {' or '.join(map(str, sorted(episodes)))} evaluation "
        f"seeds, {all_of('selection')}. Mean +- standard error over training seeds; with one seed "
        "only, the standard error over its episodes in brackets.\n"
    )


def pipeline(entries: list[study.Entry]) -> list[study.Entry]:
    """Return the entries of the data, the teacher and its students, with one candidate."""
    return [e for e in entries if e["stage"] in OWN and (e["candidates"] or 1) == 1]


def rivals(entries: list[study.Entry]) -> str:
    """Return all methods on the tasks where others than RACTD's have run, a method a row."""
    lines = [
        "| task | method | NFE | candidates | score | ms an action | minutes of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in FAMILIES["gym"]:
        found = study.scores(e for e in entries if e["task"] == task)
        if len(found) <= len(OWN):
            continue
        for method in sorted(found, key=_rank):
            seeds = found[method][task]
            numbers = (method.nfe or "", method.candidates or "", study.cell(seeds))
            took = (_median(seeds, "action_ms"), _median(seeds, "training_seconds", 60.0))
            lines.append("| " + " | ".join(map(str, (task, method.label, *numbers, *took))) + " |")
    return "\n".join(lines) + "\n"


def _median(seeds: dict[int, study.Entry], field: str, unit: float = 1.0) -> str:
    """Return the median over training seeds of a field that not every entry has."""
    values = [e[field] / unit for e in seeds.values() if e.get(field)]
    return f"{np.median(values):.2g}" if values else ""


def idql(entries: list[study.Entry]) -> str:
    """Return Consistency-IDQL's table: a sampler a row, its network calls the columns."""
    lines = ["| task | sampler | candidates | NFE 1 | NFE 2 | NFE 4 | published, 1 of 256 |"]
    lines.append("|---|---|---|---|---|---|---|")
    rows: dict[tuple, dict[int, study.Entry]] = {}
    for e in entries:
        rows.setdefault((e["task"], e["model"], e["candidates"]), {})[e["nfe"]] = e
    for (task, stage, candidates), found in rows.items():
        scores = [f"{e['score_mean']:.1f} ({e['score_se']:.1f})" for e in found.values()]
        known = [f"{e['published']:.1f}" for e in found.values() if e["published"]]
        cells = [task, style.label(stage), str(candidates), *scores, " / ".join(known)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def online(entries: list[study.Entry]) -> str:
    """Return the scores of the last and of the best checkpoint of every run that has both."""
    lines = ["| task | method | last checkpoint (offline) | best checkpoint (online) | of |"]
    lines.append("|---|---|---|---|---|")
    found = study.scores(e for e in entries if "updates" in e or (e["candidates"] or 1) == 1)
    for best in sorted((m for m in found if ", best of " in m.stage), key=_rank):
        last = best._replace(stage=best.stage.partition(",")[0])
        for task, seeds in sorted(found[best].items(), key=lambda item: _place(item[0])):
            same = {k: e for k, e in found[last][task].items() if k in seeds}
            updates = (
                f"{len(next(iter(seeds.values()))['updates'])} checkpoints, {len(seeds)} seeds"
            )
            cells = (task, last.label, study.cell(same), study.cell(seeds), updates)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _place(task: str) -> int:
    return list(tasks.TASKS).index(task)


def blocks(entries: list[study.Entry], folder: pathlib.Path | None = None) -> dict[str, str]:
    """Return the text of every generated block of docs/results.md, by its name.

    Args:
        entries: of the study.
        folder: of results, for the variants and the diversity kept there.
    """
    made = {}
    if folder is not None:
        for suite, found in variants.suites(variants.load(folder, "variants")).items():
            made[suite] = protocol(found) + "\n" + variants.table(found)
        if measured := variants.load(folder, "diversity"):
            made["diversity"] = variants.diversity(measured)
    tutorial = [e for e in entries if "published" in e]
    if tutorial:
        made["idql"] = protocol(tutorial) + "\n" + idql(tutorial)
    entries = [e for e in entries if "published" not in e]
    for family, names in FAMILIES.items():
        here = [e for e in entries if e["task"] in names]
        if here:
            own = pipeline(here) if family == "gym" else here
            made[family] = protocol(own) + "\n" + table(own, family)
    gym = [e for e in entries if e["task"] in FAMILIES["gym"]]
    if any("updates" in e for e in gym):
        made["online"] = online(gym)
        gym = [e for e in gym if "updates" not in e]
    if len(pipeline(gym)) < len(gym):
        made["rivals"] = rivals(gym)
    return made


def rewrite(text: str, made: dict[str, str]) -> str:
    """Return a document with its generated blocks replaced.

    Raises:
        UserError: it has a block that nothing is known about.
    """

    def block(match: re.Match) -> str:
        if match[2] not in made:
            raise errors.UserError(f"there are no results for the block {match[2]}")
        return f"{match[1]}\n{made[match[2]]}\n{match[3]}"

    return BLOCK.sub(block, text)


# ---- the page ----------------------------------------------------------------------------------

STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#20262e;max-width:72rem;margin:2rem auto}
body{padding:0 1rem}h1,h2{line-height:1.2}
table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}
td,th{padding:.3rem .6rem;border-bottom:1px solid #dfe3e8;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}img{max-width:100%}p{max-width:50rem}
"""


def _image(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    # No version or date inside, so that the same results give the same page.
    figure.savefig(buffer, dpi=110, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(_flat(buffer)).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _flat(png: io.BytesIO | pathlib.Path) -> bytes:
    """Return a PNG in 64 colours, which do for a figure and take a third of the bytes."""
    small = io.BytesIO()
    Image.open(png).convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return small.getvalue()


def _picture(path: pathlib.Path) -> str:
    content = _flat(path) if path.suffix == ".png" else path.read_bytes()
    data = base64.b64encode(content).decode()
    name = html.escape(path.stem)
    image = f'<img alt="{name}" src="data:image/{path.suffix[1:]};base64,{data}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"


def _html_table(markdown: str) -> str:
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if "|---" not in line]
    cells = ["".join(f"<td>{html.escape(c)}</td>" for c in row) for row in rows]
    head = cells[0].replace("td>", "th>")
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{c}</tr>" for c in cells[1:]) + "</table>"


def page(
    entries: list[study.Entry], pictures: list[pathlib.Path], folder: pathlib.Path | None = None
) -> str:
    """Return the page: for each family of tasks its table and figures, variants, then rollouts."""
    parts = ["<!doctype html><meta charset=utf-8><title>ractd_jax: results</title>"]
    parts += [f"<style>{STYLE}</style><h1>ractd_jax: results</h1>"]
    tutorial = [e for e in entries if "published" in e]
    texts = blocks(entries, folder)
    entries = [e for e in entries if "published" not in e and "updates" not in e]
    for family, names in FAMILIES.items():
        here = [e for e in entries if e["task"] in names]
        if not here:
            continue
        own = pipeline(here) if family == "gym" else here
        parts += [f"<h2>{family}</h2><p>{html.escape(protocol(own))}</p>"]
        parts += [_html_table(table(own, family)), *_figures(family, names, own)]
        for task in names:
            there = [e for e in here if e["task"] == task]
            if len(there) > len(pipeline(there)) and family == "gym":
                parts += [f"<h2>{task}: all methods</h2>", _html_table(rivals(there))]
                parts += _figures(task, [task], there)
    if tutorial:
        parts += [f"<h2>Consistency-IDQL</h2><p>{html.escape(protocol(tutorial))}</p>"]
        parts += [_html_table(idql(tutorial))]
    mixed = [t for t in FAMILIES["gym"] if "expert" in t and any(e["task"] == t for e in entries)]
    if mixed:
        parts += ["<h2>Which of two modes (Figure 3): medium-expert</h2>"]
        for task in mixed:
            figure = variants.modes(pipeline(entries), task)
            parts += [_image(figure, f"{task}: distribution of returns")]
    if "online" in texts:
        parts += ["<h2>Offline and online selection</h2>", _html_table(texts["online"])]
    if folder is not None:
        parts += _variants(folder, texts)
    parts += ["<h2>Plans and rollouts</h2>"] * bool(pictures)
    return "\n".join(parts + [_picture(path) for path in pictures]) + "\n"


def _variants(folder: pathlib.Path, texts: dict[str, str]) -> list[str]:
    """Return the sections of tables and figures in which one thing is varied."""
    parts = []
    for suite, found in variants.suites(variants.load(folder, "variants")).items():
        said, _, table_ = texts[suite].partition("\n\n")
        parts += [f"<h2>{suite}</h2><p>{html.escape(said)}</p>", _html_table(table_)]
        if figure := variants.over_training(found):
            parts += [_image(figure, f"{suite}: score over training")]
    if "diversity" in texts:
        parts += ["<h2>Diversity (Table 12)</h2>", _html_table(texts["diversity"])]
    return parts


def _figures(name: str, tasks_: list[str], entries: list[study.Entry]) -> list[str]:
    """Return pictures of some results: every run, and aggregates of methods that did every task."""
    present = [task for task in tasks_ if any(e["task"] == task for e in entries)]
    found = study.scores(entries)
    runs = {m: study.matrix(found[m], present) for m in sorted(found, key=_rank)}
    images = [_image(study_plots.by_task(runs, present), f"{name}: score of every run")]
    whole = {m: r for m, r in runs.items() if all(map(len, r)) and m.stage != "dataset"}
    if whole:
        images += [
            _image(study_plots.aggregates(whole), f"{name}: mean and interquartile mean"),
            _image(study_plots.profiles(whole), f"{name}: performance profiles"),
            _image(study_plots.trade_off(entries, whole), f"{name}: score against time"),
        ]
    return images


def keep_pictures(summary: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """Copy the pictures of a maze's pipeline to those of the docs; return the copies."""
    task, kept = checkpoints.read_json(summary)[0]["task"], []
    for name in ("plans.png", "student.gif"):
        path = summary.parent / "figures" / name
        if task in FAMILIES["maze2d"] and path.exists():
            kept.append(folder / f"{task.rpartition('-')[0].replace('-', '_')}_{name}")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept[-1])
    return kept


def _add(found: pathlib.Path, args: argparse.Namespace) -> list[pathlib.Path]:
    if found.name == "diversity.json":
        return [variants.add_diversity(found, args.results)]
    if args.variant:
        return [variants.add(found, args.results, args.variant)]
    return [study.add(found, args.results), *keep_pictures(found, args.docs / "figures")]


def main(argv: list[str] | None = None) -> int:
    """Add results, or write tables and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--add", nargs="+", metavar="JSON", help="summary.json, diversity.json")
    parser.add_argument("--variant", help="keep them apart as SUITE/NAME, as in table4/both")
    parser.add_argument("--results", default="results", type=pathlib.Path, help="[results]")
    parser.add_argument("--docs", default="docs", type=pathlib.Path, help="[docs]")
    args = parser.parse_args(argv)
    try:
        if args.add:
            for summary in args.add:
                for path in _add(pathlib.Path(summary), args):
                    print(f"wrote {path}")
            return 0
        entries = study.load(args.results)
        text, path = args.docs / "results.md", args.docs / "report.html"
        checkpoints.write_text(text, rewrite(text.read_text(), blocks(entries, args.results)))
        figures = args.docs / "figures"
        pictures = [*sorted(figures.glob("maze2d_*_plans.png")), *sorted(figures.glob("*.gif"))]
        checkpoints.write_text(path, page(entries, pictures, args.results))
        print(f"wrote {text} and {path}")
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
