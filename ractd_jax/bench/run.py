"""The command `bench`: measure, print two tables, write bench.json."""

import importlib.metadata
import os
import resource
import sys
from typing import Any

import jax
from rich import box
from rich.table import Table

from ractd_jax.bench import act, floor, train, versus
from ractd_jax.config import PRECISIONS
from ractd_jax.nn.cpu import cpuinfo
from ractd_jax.training import checkpoints
from ractd_jax.training.pipeline import Pipeline

NOTE = "speed only: random weights, made-up rows; nothing here was trained"
PUBLISHED = 142  # teacher : student of the paper, hopper-medium-replay, one V100
BAR = 20  # characters


def show(pipeline: Pipeline) -> dict[str, Any]:
    """Measure, print and write; return the contents of bench.json."""
    config, task, settings = pipeline.config, pipeline.task, pipeline.config.bench
    pipeline.say(f"bench: {task.name}, size {config.size}; {NOTE}")
    precision = config.training.precision
    rates = {p: floor.product_rate(settings.seconds, dtype=p) for p in PRECISIONS}
    fast = ", ".join(f"{rate / 1e9:,.1f} in {name}" for name, rate in rates.items())
    pipeline.say(f"this machine: {describe(machine())}; G operations/s of products: {fast}")
    limits = {"seconds": settings.seconds, "max_seconds": settings.max_seconds}
    entries, rows = [], []
    path = pipeline.workdir / "bench.json"
    result = {
        "note": NOTE,
        "task": task.name,
        "size": config.size,
        "preset": config.preset,
        "machine": machine(),
        "precision": precision,
        "product_rates": rates,
        "act": entries,
        "train": rows,
        "torch_train": None,
    }

    def write():  # after every part, so that one that is stopped leaves what it has measured
        result["teacher_over_student"] = ratios(entries)
        result["bfloat16_over_float32"] = ratios(entries, act.LOW)
        result["memory_peak_bytes"] = memory_peak()
        checkpoints.write_json(path, result)

    total = len(act.CONTENDERS) * len(settings.batches)
    with pipeline.progress.task("bench act", total) as bar:
        for entry in act.measure(config, rates, **limits):
            entries.append(entry)
            write()
            bar.update(len(entries))
    pipeline.progress.console.print(act_table(entries, ascii_only=_ascii(pipeline)))
    for batch, ratio in ratios(entries).items():
        published = f" (published: {PUBLISHED})" if batch == 1 else ""
        pipeline.say(f"teacher : student at batch {batch}: {ratio:.0f}{published}")
    for batch, ratio in ratios(entries, act.LOW).items():
        pipeline.say(f"bfloat16 : float32 at batch {batch}: {ratio:.2f}")
    with pipeline.progress.task("bench train", 3) as bar:
        for entry in train.measure(config, rates, settings.max_seconds):
            rows.append(entry)
            write()
            bar.update(len(rows))
    pipeline.progress.console.print(train_table(rows))
    if versus.reference():
        result["torch_train"] = versus.updates(config, **limits)
        pipeline.say(compared(result["torch_train"]))
    write()
    pipeline.say(f"memory at most {result['memory_peak_bytes'] / 2**30:.2f} GiB; wrote {path}")
    return result


def ratios(entries: list[dict[str, Any]], slow: str = act.TEACHER) -> dict[int, float]:
    """Return how many times longer than the one-step student `slow` takes, by batch."""
    median = {(entry["policy"], entry["batch"]): entry["median_ms"] for entry in entries}
    return {
        batch: ms / median[act.STUDENT, batch]
        for (policy, batch), ms in median.items()
        if policy == slow and ms and median[act.STUDENT, batch]
    }


# ---- the machine ---------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return processor, threads this process may use, load, device and versions."""
    device = jax.devices()[0]
    return {
        "processor": cpuinfo.name(),
        "threads": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load": os.getloadavg()[0],  # how many other programs wanted to run
        "device": f"{device.platform}: {device.device_kind}",
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
    }


def describe(machine: dict[str, Any]) -> str:
    """Return what a reader wants to know of a machine in one line."""
    return (
        f"{machine['processor']}, threads: {machine['threads']}, load {machine['load']:.1f}, "
        f"JAX {machine['versions']['jax']} on {machine['device']}"
    )


def memory_peak() -> int:
    """Return the most bytes held so far: on the accelerator, or of this process on a CPU."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---- tables --------------------------------------------------------------------------------------


def act_table(entries: list[dict[str, Any]], *, ascii_only: bool = False) -> Table:
    """Return time per decision, longest bar for the slowest of its batch, on a linear scale."""
    table = Table(
        title="time per decision (milliseconds)",
        caption="floor: weights read once a call, or products, at this machine's measured rates\n"
        "bars: linear, full for the slowest of each batch",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("policy", no_wrap=True)
    compare = any(entry.get("torch_ms") for entry in entries)
    full = BAR - 8 * compare  # two more columns must fit
    columns = (
        ("median_ms", "median", ".3g"),
        ("p95_ms", "p95", ".3g"),
        ("p99_ms", "p99", ".3g"),
        ("floor_ratio", "/ floor", ".2f"),
        ("compile_s", "compile s", ".1f"),
        *((("torch_ms", "torch", ".3g"), ("torch_over_jax", "/ jax", ".2f")) * compare),
    )
    for header in ("batch", "NFE", *(header for _, header, _ in columns)):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("median", no_wrap=True)
    for batch in dict.fromkeys(entry["batch"] for entry in entries):
        same = [entry for entry in entries if entry["batch"] == batch]
        slowest = max((entry["median_ms"] or 0 for entry in same), default=0)
        for entry in same:
            cells = (_figure(entry.get(name), form) for name, _, form in columns)
            share = (entry["median_ms"] or 0) / slowest if slowest else 0
            mark = "#" if ascii_only else "█"
            bar = mark * max(round(full * share), 1) if entry["median_ms"] else "skipped: too long"
            table.add_row(entry["policy"], str(batch), str(entry["nfe"]), *cells, bar)
        table.add_section()
    return table


def train_table(entries: list[dict[str, Any]]) -> Table:
    """Return updates per second, fused and one a dispatch."""
    table = Table(
        title="updates per second",
        caption="fused: many updates a dispatch; stepwise: one. Share: of the measured products",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("model", no_wrap=True)
    for header in ("batch", "fused", "stepwise", "ratio", "share", "compile s"):
        table.add_column(header, justify="right", no_wrap=True)
    for entry in entries:
        cells = (
            ("fused_per_s", ".4g"),
            ("stepwise_per_s", ".4g"),
            ("fused_over_stepwise", ".2f"),
            ("share_of_product_rate", ".0%"),
            ("compile_s", ".1f"),
        )
        figures = (_figure(entry[name], form) for name, form in cells)
        table.add_row(entry["stage"], str(entry["batch"]), *figures)
    return table


def compared(entry: dict[str, Any]) -> str:
    """Return what `versus.updates` found, in one line."""
    what = f"student's update (CTM + DSM, batch {entry['batch']}), over the time in JAX"
    if entry["torch_over_jax"] is None:
        return f"{what}: skipped, it takes too long"
    fair, published = entry["torch_over_jax"], entry["published_over_jax"]
    more = f", the published loop (float32) {published:.2f}" if published else ""
    return f"{what}: PyTorch {fair:.2f}{more}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ascii(pipeline: Pipeline) -> bool:
    return pipeline.progress.console.options.ascii_only
