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
from ractd_jax import stages
from ractd_jax.bench import act, floor, run, train, versus
from ractd_jax.nn.cpu import conv1d
from ractd_jax.training import pipeline

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
        as_product: floor.operations(
            lambda x, k, p=as_product: conv1d.conv1d(x, k, stride=stride, as_product=p),
            x,
            kernel,
        )
        for as_product in (True, False)
    }
    assert counts[True] == counts[False] == 2 * 2 * (16 // stride) * 8 * 5 * 3


def test_a_transposed_convolution_counts_the_same_either_way():
    x, kernel = jnp.ones((2, 8, 3)), jnp.ones((4, 3, 5))
    counts = {
        as_product: floor.operations(
            lambda x, k, p=as_product: conv1d.conv1d_transpose(x, k, as_product=p), x, kernel
        )
        for as_product in (True, False)
    }
    assert counts[True] == counts[False] == 2 * 2 * 16 * 5 * (2 * 3)


def test_network_of_linear_layers_does_two_operations_a_weight_and_call(tiny):
    net, x = tiny("return"), jnp.ones((7, 5))
    params = net.init(jax.random.key(0), x)["params"]
    kernels = [a.size for a in jax.tree.leaves(params) if a.ndim == 2]
    found = floor.operations(lambda p, x: net.apply({"params": p}, x), params, x)
    assert found == 2 * 7 * sum(kernels)
    assert floor.size(params) == 4 * sum(a.size for a in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def config():
    _, config = load("hopper_mr", "bench,size=demo,source=simulated")
    for stage in stages.of(config):
        if config[stage].get("network", {}).get("kind") == "mlp":
            config[stage]["network"].update(hidden=8, blocks=1)
            config[stage]["optimiser"]["batch_size"] = 8
    config["reward"]["network"]["dims"] = [8]
    config["training"]["updates_per_dispatch"] = 3
    config["bench"] = {"batches": [1], "seconds": 0.01, "limit": 60.0}
    return config


@pytest.fixture(scope="module")
def result(config, tmp_path_factory):
    """The whole stage; `(contents of bench.json, what was printed)`."""
    folder = tmp_path_factory.mktemp("bench")
    console = Console(width=120, record=True, file=io.StringIO())
    found = run.show(pipeline.Experiment(config, str(folder), console=console))
    assert json.loads((folder / "bench.json").read_text()) == json.loads(json.dumps(found))
    return found, console.export_text()


def test_interrupted_bench_keeps_what_it_has_measured(config, tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.act, "CONTENDERS", run.act.CONTENDERS[:1])
    monkeypatch.setattr(run.train, "measure", stopped)
    console = Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        run.show(pipeline.Experiment(config, str(tmp_path), console=console))
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(e["policy"], e["batch"]) for e in found["act"]] == [(run.act.CONTENDERS[0].name, 1)]
    assert found["train"] == []


def test_stage_measures_every_policy(result):
    found, _ = result
    rows = [(e["policy"], e["batch"], e["nfe"]) for e in found["act"]]
    nfe = (1, 2, 3, 4, 1, 15, 15, 100, 158)
    calls = {c.name: n for c, n in zip(act.CONTENDERS, nfe, strict=True)}
    assert rows == [(name, 1, n) for name, n in calls.items()]
    for entry in found["act"]:
        assert 0 < entry["median_ms"] <= entry["p95_ms"] <= entry["p99_ms"]
        assert entry["repeats"] >= 5
        assert entry["floor_ratio"] == pytest.approx(entry["median_ms"] / entry["floor_ms"])
    one, four, low = (e for e in found["act"] if e["nfe"] in (1, 4))
    assert low["policy"] == act.LOW
    assert four["operations"] == 4 * one["operations"]
    # On a CPU vectors are multiplied as two columns in bfloat16.
    assert one["operations"] <= low["operations"] <= 2 * one["operations"]
    assert low["bytes"] == one["bytes"] / 2
    assert set(found["bfloat16_over_float32"]) == {1}
    assert set(found["teacher_over_student"]) == {1}
    assert [e["stage"] for e in found["train"]] == ["reward", "teacher", "student"]
    assert all(e["fused_per_s"] > 0 and e["stepwise_per_s"] > 0 for e in found["train"])
    assert all(e["updates_fused"] == 3 for e in found["train"])  # a dispatch, as in training
    assert found["memory_peak_bytes"] > 2**20


def test_output_says_that_it_is_about_speed(result):
    _, text = result
    assert "random weights" in text
    assert "published: 142" in text
    for contender in act.CONTENDERS:
        assert contender.name in text
    assert "stepwise" in text


def test_slow_contenders_are_skipped_and_named(config):
    task = pipeline.Experiment(config, "unused").task
    settings = {"seconds": 0.01, "limit": 0.0}
    entries = list(act.measure(config, task, RATES, **settings))
    assert {entry["median_ms"] for entry in entries} == {None}
    console = Console(width=120, file=io.StringIO())
    console.print(run.act_table(entries))
    assert "skipped" in console.file.getvalue()
    assert run.ratios(entries) == {}
    rows = list(train.measure(config, task, RATES, limit=0.0))
    assert [row["fused_per_s"] for row in rows] == [None] * 3


def test_rates_of_this_machine_are_numbers():
    assert np.isfinite(floor.bandwidth(2**16, 0.01))
    assert np.isfinite(floor.product_rate(0.01, side=64))


def test_the_picture_shows_every_policy_and_model_that_was_measured(result):
    found, _ = result
    figure = plot.draw(found)
    acting, training = figure.axes
    drawn = {line.get_label(): line.get_ydata()[0] for line in acting.lines}
    for entry in found["act"]:
        if entry["policy"] in plot.POLICIES:
            assert drawn[entry["policy"]] == entry["median_ms"]
    assert set(plot.POLICIES) < set(drawn)
    widths = [bar.get_width() for bar in training.patches]
    for row in found["train"]:
        assert row["fused_per_s"] in widths
        assert row["stepwise_per_s"] in widths


def test_plotting_something_else_is_refused_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    path.write_text("[]")
    monkeypatch.setattr("sys.argv", ["plot", str(path)])
    with pytest.raises(SystemExit, match="is no bench"):
        plot.main()


@pytest.mark.parametrize(("limit", "rounds"), [(3, None), (4, 2), (6, 3), (100, 5)])
def test_turns_are_fewer_where_time_is_short(monkeypatch, limit, rounds):
    clock, calls = [0.0], []

    def call():  # takes a second
        clock[0] += 1
        calls.append(clock[0])

    monkeypatch.setattr(versus.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(versus.floor, "timed", lambda call, slot, least: [call() or 1.0])
    found = versus.turns(call, call, seconds=1.0, limit=2.0 * limit)
    assert found == (rounds and [(1.0, 1.0)])
    assert len(calls) == 4 + 4 * (rounds or 0)  # two first calls each, then two a round
