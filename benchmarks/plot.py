"""Draw what the stage bench measured.

    python -m benchmarks.plot runs/<...>/bench.json --out docs/figures/bench_demo.png

Left, the time of a decision by how many are asked for at once, with the floor of the machine and
PyTorch where it was there; right, updates a second, many a dispatch and one.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ractd_jax.report import plots, style

# policy of bench.json: the system whose colour it has, and its marker
POLICIES = {
    "student, NFE 1": ("student", "o"),
    "DDIM 15": ("ddim", "s"),
    "DDPM 100": ("ddpm", "v"),
    "EDM, Heun, 80 bins": ("teacher", "o"),
}


def draw(result: dict[str, Any]) -> Figure:
    """Return the figure of one bench.json.

    Args:
        result: its contents.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    acting, training = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_acting(acting, result["act"])
    _draw_training(training, result["train"])
    machine = result["machine"]
    figure.suptitle(
        f"{result['task']}, size {result['size']}: {machine['processor']}, "
        f"{machine['threads']} threads, {machine['device']}",
        color=style.INK,
        fontsize=10,
    )
    return figure


def _draw_acting(axes, entries: list[dict[str, Any]]) -> None:
    drawn, known = {}, set()
    for policy, (stage, marker) in POLICIES.items():
        measured = [e for e in entries if e["policy"] == policy and e["median_ms"]]
        if not measured:
            continue
        batches, color = [e["batch"] for e in measured], style.color(stage)
        times = [e["median_ms"] for e in measured]
        known.update(batches)
        style_of = {"color": color, "ms": 4, "lw": 1.8, "label": policy}
        (drawn[policy],) = axes.plot(batches, times, f"{marker}-", **style_of)
        floors = [e["floor_ms"] for e in measured]
        axes.plot(batches, floors, f"{marker}:", color=color, ms=2, lw=1.2)
        torch = [(e["batch"], e["torch_ms"]) for e in measured if e.get("torch_ms")]
        if torch:
            axes.plot(*zip(*torch, strict=True), "x--", color=color, ms=5, lw=0.8)
            drawn["in PyTorch"] = Line2D([], [], color=style.INK, ls="--", marker="x", ms=5, lw=0.8)
    plots.dress(axes, "time of a decision", "decisions asked for at once", grid="y")
    axes.set(xscale="log", yscale="log", ylabel="milliseconds")
    axes.set_xticks(sorted(known), [f"{n:,}" for n in sorted(known)], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    drawn["floor of the machine"] = Line2D([], [], color=style.INK, ls=":", lw=1.2)
    places = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}
    axes.legend(drawn.values(), drawn.keys(), fontsize=8, frameon=False, **places)


def _draw_training(axes, rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["fused_per_s"]]
    for i, row in enumerate(rows):
        color = style.color(row["stage"])
        axes.barh(i - 0.18, row["fused_per_s"], 0.34, color=color)
        axes.barh(i + 0.18, row["stepwise_per_s"], 0.34, color=color, alpha=0.45)
        axes.text(row["fused_per_s"], i - 0.18, " fused", va="center", fontsize=7)
        axes.text(row["stepwise_per_s"], i + 0.18, " one a dispatch", va="center", fontsize=7)
    names = [f"{style.label(row['stage'])}, batch {row['batch']}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    plots.dress(axes, "training", "updates a second", grid="x")


def main() -> None:
    """Parse the command line, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", type=pathlib.Path, help="a bench.json")
    parser.add_argument("--out", type=pathlib.Path, help="the picture; beside it by default")
    args = parser.parse_args()
    try:
        result = json.loads(args.bench.read_text())
        figure = draw(result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {args.bench} is no bench.json ({error}): the stage bench writes one")
    out = args.out or args.bench.with_suffix(".png")
    figure.savefig(out, dpi=110)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
