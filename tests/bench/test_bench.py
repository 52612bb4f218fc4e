"""What the benchmark counts is right, and the stage prints and writes what it measured."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load
from rich.console import Console

from benchmarks import plot
from ractd_jax.bench import act, floor, run, train, versus
from ractd_jax.console import Progress
from ractd_jax.methods import registry
from ractd_jax.nn.cpu import conv1d
from ractd_jax.training import opening

RATES = {"float32": 1e9, "bfloat16": 1e9}


def test_operations_of_a_product_are_two_a_multiply_add():
    def f(a, b):
        return jnp.tanh(a @ b).sum()

    assert floor.operations(f, jnp.ones((3, 4)), jnp.ones((4, 5))) == 2 * 3 * 4 * 5


def test_operations_count_every_round_of_a_scan_and_the_longer_branch():
    a = jnp.ones((4, 4))

    def scanned(x):
        return jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, a), None), x, None, 7)[0]

    def branched(x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ a @ a, lambda x: x @ a, x)

    assert floor.operations(scanned, a) == 7 * 2 * 4**3
    assert floor.operations(branched, a) == 2 * 2 * 4**3
    # Of L = sum (x a), the gradient by x is one more product.
    assert floor.operations(jax.grad(lambda x: jnp.sum((x @ a) ** 2)), a) == 2 * 2 * 4**3


def test_operations_leave_out_gradients_that_nobody_asked_for():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(
        lambda x, w: (x @ w, (x, w)), lambda saved, dy: (dy @ saved[1].T, saved[0].T @ dy)
    )
    a = jnp.ones((4, 4))
    one = floor.operations(jax.grad(lambda x: jnp.sum(product(x, a) ** 2)), a)
    both = floor.operations(jax.grad(lambda x, w: jnp.sum(product(x, w) ** 2), (0, 1)), a, a)
    assert (one, both) == (2 * 2 * 4**3, 3 * 2 * 4**3)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_counts_the_same_either_way(stride):
    x, kernel = jnp.ones((2, 16, 3)), jnp.ones((5, 3, 8))
    counts = {
        as_matmul: floor.operations(
            lambda x, k, m=as_matmul: conv1d.conv1d(x, k, stride=stride, as_matmul=m), x, kernel
        )
        for as_matmul in (True, False)
    }
    assert counts[True] == counts[False] == 2 * 2 * (16 // stride) * 8 * 5 * 3


def test_a_transposed_convolution_counts_the_same_either_way():
    x, kernel = jnp.ones((2, 8, 3)), jnp.ones((4, 3, 5))
    counts = {
        as_matmul: floor.operations(
            lambda x, k, m=as_matmul: conv1d.conv1d_transpose(x, k, as_matmul=m), x, kernel
        )
        for as_matmul in (True, False)
    }
    assert counts[True] == counts[False] == 2 * 2 * 16 * 5 * (2 * 3)


def test_network_of_linear_layers_does_two_operations_a_weight_and_call(tiny):
    net, x = tiny("return"), jnp.ones((7, 5))
    params = net.init(jax.random.key(0), x)["params"]
    kernels = [a.size for a in jax.tree.leaves(params) if a.ndim == 2]
    operations = floor.operations(lambda p, x: net.apply({"params": p}, x), params, x)
    assert operations == 2 * 7 * sum(kernels)
    assert floor.size(params) == 4 * sum(a.size for a in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def config():
    _, values = load("hopper_mr", "bench,size=demo,source=simulated")
    for stage in registry.records():
        if values.get(stage, {}).get("network", {}).get("kind") == "mlp":
            values[stage]["network"].update(hidden=8, blocks=1)
            values[stage]["optimiser"]["batch_size"] = 8
    values["reward"]["network"]["dims"] = [8]
    values["training"]["updates_per_dispatch"] = 3
    values["bench"] = {"batches": [1], "seconds": 0.01, "max_seconds": 60.0}
    return registry.configure(values)


@pytest.fixture(scope="module")
def result(config, tmp_path_factory):
    """The whole stage; `(contents of bench.json, what was printed)`."""
    folder = tmp_path_factory.mktemp("bench")
    console = Console(width=120, record=True, file=io.StringIO())
    measured = run.show(opening.open_pipeline(config, folder, Progress(console)))
    assert json.loads((folder / "bench.json").read_text()) == json.loads(json.dumps(measured))
    return measured, console.export_text()


def test_interrupted_bench_keeps_what_it_has_measured(config, tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.act, "CONTENDERS", run.act.CONTENDERS[:1])
    monkeypatch.setattr(run.train, "measure", stopped)
    job = opening.open_pipeline(config, tmp_path, Progress(Console(file=io.StringIO())))
    with pytest.raises(KeyboardInterrupt):
        run.show(job)
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [(e["policy"], e["batch"]) for e in kept["act"]] == [(run.act.CONTENDERS[0].name, 1)]
    assert kept["train"] == []


def test_stage_measures_every_policy(result):
    measured, _ = result
    rows = [(e["policy"], e["batch"], e["nfe"]) for e in measured["act"]]
    nfe = (1, 2, 3, 4, 1, 15, 15, 100, 158)
    calls = {c.name: n for c, n in zip(act.CONTENDERS, nfe, strict=True)}
    assert rows == [(name, 1, n) for name, n in calls.items()]
    for entry in measured["act"]:
        assert 0 < entry["median_ms"] <= entry["p95_ms"] <= entry["p99_ms"]
        assert entry["repeats"] >= 5
        assert entry["floor_ratio"] == pytest.approx(entry["median_ms"] / entry["floor_ms"])
    one, four, low = (e for e in measured["act"] if e["nfe"] in (1, 4))
    assert low["policy"] == act.LOW
    assert four["operations"] == 4 * one["operations"]
    # On a CPU vectors are multiplied as two columns in bfloat16.
    assert one["operations"] <= low["operations"] <= 2 * one["operations"]
    assert low["bytes"] == one["bytes"] / 2
    assert set(measured["bfloat16_over_float32"]) == {1}
    assert set(measured["teacher_over_student"]) == {1}
    assert [e["stage"] for e in measured["train"]] == ["reward", "teacher", "student"]
    assert all(e["fused_per_s"] > 0 and e["stepwise_per_s"] > 0 for e in measured["train"])
    assert all(e["updates_fused"] == 3 for e in measured["train"])  # a dispatch, as in training
    assert measured["memory_peak_bytes"] > 2**20


def test_output_says_that_it_is_about_speed(result):
    _, text = result
    assert "random weights" in text
    assert "published: 142" in text
    for contender in act.CONTENDERS:
        assert contender.name in text
    assert "stepwise" in text


def test_slow_contenders_are_skipped_and_named(config, monkeypatch):
    monkeypatch.setattr(act, "CONTENDERS", act.CONTENDERS[:2])
    entries = list(act.measure(config, RATES, seconds=0.01, max_seconds=0.0))
    assert [entry["median_ms"] for entry in entries] == [None, None]
    console = Console(width=120, file=io.StringIO())
    console.print(run.act_table(entries))
    assert "skipped" in console.file.getvalue()
    assert run.ratios(entries) == {}
    rows = list(train.measure(config, RATES, max_seconds=0.0))
    assert [row["fused_per_s"] for row in rows] == [None] * 3


def test_rates_of_this_machine_are_numbers():
    assert np.isfinite(floor.bandwidth(2**16, 0.01))
    assert np.isfinite(floor.product_rate(0.01, side=64))


def test_the_picture_shows_every_policy_and_model_that_was_measured(result):
    measured, _ = result
    figure = plot.draw(measured)
    acting, training = figure.axes
    drawn = {line.get_label(): line.get_ydata()[0] for line in acting.lines}
    for entry in measured["act"]:
        if entry["policy"] in plot.POLICIES:
            assert drawn[entry["policy"]] == entry["median_ms"]
    assert set(plot.POLICIES) < set(drawn)
    widths = [bar.get_width() for bar in training.patches]
    for row in measured["train"]:
        assert row["fused_per_s"] in widths
        assert row["stepwise_per_s"] in widths


def test_plotting_something_else_is_refused_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    path.write_text("[]")
    monkeypatch.setattr("sys.argv", ["plot", str(path)])
    with pytest.raises(SystemExit, match="is no bench"):
        plot.main()


@pytest.mark.parametrize(("calls_fit", "rounds"), [(3, None), (4, 2), (6, 3), (100, 5)])
def test_turns_are_fewer_where_time_is_short(monkeypatch, calls_fit, rounds):
    clock, calls = [0.0], []

    def call():  # takes a second
        clock[0] += 1
        calls.append(clock[0])

    monkeypatch.setattr(versus.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(versus.floor, "timed", lambda call, slot, least: [call() or 1.0])
    timed = versus.turns(call, call, seconds=1.0, max_seconds=2.0 * calls_fit)
    assert timed == (rounds and [(1.0, 1.0)])
    assert len(calls) == 4 + 4 * (rounds or 0)  # two first calls each, then two a round
