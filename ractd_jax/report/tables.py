"""The table at the end of an evaluation: one row a policy, what they share said once."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box, markup
from rich.console import Console
from rich.table import Table

from ractd_jax.console import make_console
from ractd_jax.report import published, style


def results_table(entries: Sequence[dict[str, Any]], *, ascii_only: bool = False) -> Table:
    """Return the table of some evaluations, the best mean score set off.

    Args:
        entries: contents of eval.json files: `task`, `source`, `physics`, `stage`, `size`,
            `preset`, `nfe`, `candidates`, `selection`, `seeds`, `score_mean`, `score_se`,
            `score_median`, `score_ci95` and `action_ms`. None where a figure has no meaning, as the
            time a dataset takes to act. `decides` is what that time is for, "plan" or by default
            "action".
        ascii_only: write +- for the sign that an ASCII output cannot hold.
    """
    sign = "+-" if ascii_only else "±"
    followed = [entry for entry in entries if "follow" in entry]
    beside = [published.score(entry["task"], entry["stage"]) for entry in entries]
    episodes = (
        ", ".join({str(len(entry["seeds"])): 0 for entry in entries if entry["seeds"]}) or "-"
    )
    chosen = any((entry["candidates"] or 1) > 1 for entry in entries)
    known = any(figure is not None for figure in beside)
    table = Table(
        title=f"{_shared(entries, 'task')}   data: {_shared(entries, 'source')}",
        caption=(
            f"size {_shared(entries, 'size')}, preset {_shared(entries, 'preset')}, "
            f"checkpoint: {_shared(entries, 'selection')}, {episodes} episodes"
            f"{'' if chosen else ', one candidate'}\n"
            f"physics: {_shared(entries, 'physics')}\n"
            "normalised scores: 0 random, 100 expert"
            + (f"; plans followed by: {_shared(followed, 'follow')}" if followed else "")
            + (f"\npublished: {published.SOURCE}" if known else "")
        ),
        title_style="bold",
        caption_style="dim",
        box=box.SIMPLE_HEAD,  # narrow enough, with the next three, for 80 columns
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("\npolicy", no_wrap=True)
    decided = next((entry["decides"] for entry in entries if "decides" in entry), "action")
    headers = (
        f"score\nmean {sign} SE",
        "\n95 % CI",
        "\nmedian",
        "\nNFE",
        f"ms/{decided}\n(batch 1)",
    )
    for header in headers:
        table.add_column(header, justify="right")
    if chosen:
        table.add_column("candi-\ndates", justify="right")
    if known:
        table.add_column("pub-\nlished", justify="right")
    best = max((entry["score_mean"] for entry in entries), default=None)
    for entry, figure in zip(entries, beside, strict=True):
        interval, error = entry["score_ci95"], entry["score_se"]
        table.add_row(
            style.label(entry["stage"]),
            f"{entry['score_mean']:.1f}" + ("" if error is None else f" {sign} {error:.1f}"),
            f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else "-",
            _figure(entry["score_median"], ".1f"),
            _figure(entry["nfe"], "d"),
            _figure(entry["action_ms"], ".3g"),
            *([_figure(entry["candidates"], "d")] if chosen else []),
            *([_figure(figure, ".1f")] if known else []),
            style="bold" if entry["score_mean"] == best and len(entries) > 1 else "",
        )
    return table


def print_results(entries: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print `results_table`; by default to the standard output."""
    console = console or make_console()
    console.print(results_table(entries, ascii_only=console.options.ascii_only))


def _figure(value: int | float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _shared(entries: Iterable[dict[str, Any]], field: str) -> str:
    """Return the one value of a field, or all of them where the entries differ."""
    values = dict.fromkeys(entry[field] for entry in entries if entry[field] is not None)
    return markup.escape(", ".join(str(value) for value in values)) or "-"
