"""The study as a person reads it: tables in docs/results.md, and one page with all figures.

python -m ractd_jax.report.page --add runs/<...>/summary.json    copy a run's results into results/
python -m ractd_jax.report.page --add runs/table4/both/<...>/summary.json --variant table4/both
python -m ractd_jax.report.page --add runs/<...>/diversity.json
python -m ractd_jax.report.page                                  write tables and page anew

`blocks` has the tables. docs/report.html holds its pictures inside: one file to send.
"""

import argparse
import base64
import html
import io
import pathlib
import shutil
import sys

from matplotlib.figure import Figure
from PIL import Image

from ractd_jax import errors
from ractd_jax.report import blocks, plots, study, study_plots, variants
from ractd_jax.report.blocks import FAMILIES, Block
from ractd_jax.training import checkpoints

TITLES = {
    "idql": "Consistency-IDQL",
    "online": "Offline and online selection",
    "table3": "Samplers (Table 3)",
    "table4": "Who knows of the reward (Tables 4 and 10)",
    "table5": "Network calls (Table 5)",
    "figure4": "The reward's weight over training (Figure 4)",
    "reward_weight": "The reward's weight by task",
    "ablation": "Each choice alone",
    "diversity": "Diversity (Table 12)",
    "again": "Trained again",
    "eda": "EDA's critic and beta",
    "settings": "Settings of rivals",
    "maze_weight": "A weaker reward in a maze",
    "diffuser": "Diffuser with fewer frequencies",
}
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
    figure.savefig(buffer, dpi=100, facecolor="white", metadata={"Software": None})
    data = base64.b64encode(_flat(buffer)).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _flat(png: io.BytesIO | pathlib.Path) -> bytes:
    """Return a PNG in 64 colours, which do for a figure and take a third of the bytes.

    The usual choice of them is by area, and gives a dot the colour of its neighbour.
    """
    small = io.BytesIO()
    flat = Image.open(png).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE, kmeans=2)
    flat.save(small, format="png", optimize=True)
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
    """Return the page: for each family of tasks its table and figures, variants, then rollouts.

    Args:
        entries: of the study.
        pictures: PNG and GIF files, shown last.
        folder: of results, for the variants and the diversity kept there.
    """
    parts = ["<!doctype html><meta charset=utf-8><title>ractd_jax: results</title>"]
    parts += [f"<style>{STYLE}</style><h1>ractd_jax: results</h1>"]
    made, drawn = blocks.make(entries, folder), figures(entries, folder)
    entries = [e for e in entries if "published" not in e and "updates" not in e]
    for family, names in FAMILIES.items():
        if family not in made:
            continue
        of_family = [e for e in entries if e["task"] in names]
        parts += _section(family, made.pop(family))
        if family != "gym":
            parts += [_by_task(family, names, of_family), *_all_tasks(family, names, of_family)]
            continue
        parts += [_by_task(family, names, blocks.pipeline(of_family))]
        if "ranking" in made:
            parts += _section(f"{family}: methods that did every task", made.pop("ranking"))
        parts += _all_tasks(family, names, of_family)
        for task in names if "rivals" in made else ():
            there = [e for e in of_family if e["task"] == task]
            if any(not blocks.own(e) for e in there):
                parts += _section(f"{task}: all methods", Block("", blocks.rivals(there)))
                parts += [_by_task(task, [task], there)]
    made.pop("rivals", None)
    modes = {name: figure for name, figure in drawn.items() if name.startswith("figure3")}
    parts += ["<h2>Which of two modes (Figure 3): medium-expert</h2>"] * bool(modes)
    parts += [_image(figure, name) for name, figure in modes.items()]
    for name, block in made.items():
        parts += _section(TITLES.get(name, name), block)
        if name in drawn:
            parts.append(_image(drawn[name], f"{name}: score over training"))
    parts += ["<h2>Plans and rollouts</h2>"] * bool(pictures)
    return "\n".join(parts + [_picture(path) for path in pictures]) + "\n"


def figures(entries: list[study.Entry], folder: pathlib.Path | None = None) -> dict[str, Figure]:
    """Return RACTD's Figure 3 for each medium-expert task, and scores over training by suite.

    Args:
        entries: of the study.
        folder: of results, for the variants kept there.
    """
    drawn, own = {}, blocks.pipeline(entries)
    for task in FAMILIES["gym"]:
        if "expert" in task and any(e["task"] == task for e in own):
            figure = drawn[f"figure3_{task.partition('-')[0]}"] = study_plots.modes(own, task)
            plots.note(figure, blocks.physics([e for e in own if e["task"] == task]))
    varied = variants.suites(variants.load(folder, "variants")) if folder else {}
    varied["online"] = blocks.kept(entries, folder)
    for suite, selected in varied.items():
        if figure := study_plots.over_training(selected):
            plots.note(figure, blocks.physics(selected))
            drawn[suite] = figure
    return drawn


def _section(title: str, block: Block) -> list[str]:
    said = f"<p>{html.escape(block.protocol)}</p>" * bool(block.protocol)
    return [f"<h2>{html.escape(title)}</h2>{said}", _html_table(block.table)]


def _by_task(name: str, names: list[str], entries: list[study.Entry]) -> str:
    """Return a picture of every run."""
    present = [task for task in names if any(e["task"] == task for e in entries)]
    runs = _runs(present, entries)
    figure = study_plots.by_task(runs, present)
    plots.note(figure, blocks.physics(entries))
    return _image(figure, f"{name}: score of every run")


def _all_tasks(name: str, names: list[str], entries: list[study.Entry]) -> list[str]:
    """Return aggregates of the methods that did every task."""
    present = [task for task in names if any(e["task"] == task for e in entries)]
    runs = _runs(present, entries)
    whole = {m: r for m, r in runs.items() if all(map(len, r)) and m.stage != "dataset"}
    if not whole:
        return []
    drawn = {
        "mean and interquartile mean": study_plots.aggregates(whole),
        "performance profiles": study_plots.profiles(whole),
        "score against time": study_plots.trade_off(entries, whole),
    }
    for figure in drawn.values():
        plots.note(figure, blocks.physics(entries))
    return [_image(figure, f"{name}: {what}") for what, figure in drawn.items()]


def _runs(present: list[str], entries: list[study.Entry]) -> study_plots.Scores:
    """Return the scores of each method's training seeds, task by task."""
    by_method = study.scores(entries)
    return {m: study.matrix(by_method[m], present) for m in sorted(by_method, key=blocks.rank)}


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


def _add(path: pathlib.Path, args: argparse.Namespace) -> list[pathlib.Path]:
    if path.name == "diversity.json":
        if args.variant:
            raise errors.UserError(f"{path}: diversity is not kept by variant")
        return [variants.add_diversity(path, args.results)]
    if args.variant:
        return [variants.add(path, args.results, args.variant)]
    return [study.add(path, args.results), *keep_pictures(path, args.docs / "figures")]


def main(argv: list[str] | None = None) -> int:
    """Add results, or write tables and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--add", nargs="+", metavar="JSON", help="summary.json, diversity.json")
    parser.add_argument("--variant", help="keep them apart as SUITE/NAME, as in table4/both")
    parser.add_argument("--results", default="results", type=pathlib.Path, help="[results]")
    parser.add_argument("--docs", default="docs", type=pathlib.Path, help="[docs]")
    args = parser.parse_args(argv)
    if args.variant and not args.add:
        parser.error("--variant goes with --add")
    try:
        if args.add:
            for summary in args.add:
                for path in _add(pathlib.Path(summary), args):
                    print(f"wrote {path}")
            return 0
        entries = study.load(args.results)
        text, path = args.docs / "results.md", args.docs / "report.html"
        if not text.exists():
            raise errors.UserError(f"{text} does not exist: --docs names the folder that has it")
        checkpoints.write_text(
            text, blocks.rewrite(text.read_text(), blocks.make(entries, args.results))
        )
        drawn = args.docs / "figures"
        pictures = [*sorted(drawn.glob("maze2d_*_plans.png")), *sorted(drawn.glob("*.gif"))]
        checkpoints.write_text(path, page(entries, pictures, args.results))
        print(f"wrote {text} and {path}")
        for name, figure in figures(entries, args.results).items():
            plots.save(figure, drawn / f"{name}.png")
            print(f"wrote {drawn / name}.png")
    except (errors.UserError, OSError) as error:  # a full disk, a folder that may not be written
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
