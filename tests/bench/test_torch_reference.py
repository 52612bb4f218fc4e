"""The PyTorch program that speed is compared with computes what the package computes."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import CASES, METHODS, REFERENCE, raveled
from helpers import COND, DATA, SHAPE, load
from rich.console import Console

from ractd_jax import config as configuration
from ractd_jax import ctm, diffusion, edm, networks, train_state
from ractd_jax.bench import act, run, versus
from ractd_jax.console import Progress
from ractd_jax.methods import ddpm, registry
from ractd_jax.training import opening

torch = pytest.importorskip("torch")
from benchmarks import torch_reference as reference  # noqa: E402

torch.set_num_threads(1)  # tests share their cores
ROWS = 32
FIELDS = {
    "mlp": {"kind": "mlp", "hidden": 16, "blocks": 2, "embed_dim": 8, "dropout": 0.0},
    "unet": {
        "kind": "unet", "down_dims": (8, 16), "embed_dim": 8, "width": 5, "groups": 8,
        "dropout": 0.0, "mid_dropout": 0.0,
    },
}  # fmt: skip
FIELDS["spectral"] = FIELDS["mlp"] | {"frequencies": 3}


def tensor(a):
    return torch.from_numpy(np.array(a))


@pytest.fixture(scope="module")
def pair(tiny, weights):
    """`(kind, n_times, seed) -> (our network, our weights, PyTorch's network)`."""

    def make(kind, n_times, seed=0):
        net = tiny(kind)
        params = weights(net, n_times, seed)
        return net, params, reference.network(FIELDS[kind], SHAPE, COND, n_times, params)

    return make


def draw(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def levels(noise, seed=1):
    return diffusion.mixed(noise, jax.random.key(seed), ROWS)


@pytest.mark.parametrize("n_times", [1, 2])
@pytest.mark.parametrize("kind", FIELDS)
def test_networks_agree(pair, kind, n_times):
    net, params, torch_net = pair(kind, n_times)
    x, cond = draw((ROWS, *SHAPE)), draw((ROWS, COND), 1)
    times = 250 * draw((ROWS, n_times), 2)
    expected = jax.jit(net.apply)({"params": params}, x, times, cond)
    with torch.inference_mode():
        actual = torch_net(*map(tensor, (x, times, cond))).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("kind", FIELDS)
def test_networks_in_bfloat16_agree_as_far_as_it_goes(tiny, weights, kind):
    net = networks.InPrecision(tiny(kind), "bfloat16")
    params = weights(net.net, 2)
    x, cond, times = draw((ROWS, *SHAPE)), draw((ROWS, COND), 1), 250 * draw((ROWS, 2), 2)
    torch_net = reference.network(FIELDS[kind], SHAPE, COND, 2, params, "bfloat16")
    expected = jax.jit(net.apply)({"params": params}, x, times, cond)
    with torch.inference_mode():
        actual = torch_net(*map(tensor, (x, times, cond)))
    assert actual.dtype == torch.float32
    error = np.sqrt(np.mean((actual.numpy() - expected) ** 2) / np.mean(expected**2))
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize(
    ("kind", "preset"),
    [*(("mlp", preset) for preset in METHODS), ("unet", "released"), ("spectral", "default")],
)
def test_student_loss_and_gradient_agree_for_the_same_draws(
    pair, optimiser, sizes, toy, kind, preset
):
    noise, method = METHODS[preset]
    net, params, student = pair(kind, 2)
    teacher_net, teacher_params, teacher = pair(kind, 1, seed=1)
    adam = optimiser(warmup=0)
    algorithm = ctm.make_student(net, teacher_net, None, noise, method, adam, **sizes)
    state = train_state.create(params, adam, {"teacher": teacher_params})
    batch = jax.tree.map(lambda a: a[:ROWS], toy)
    after, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(3))

    key_ctm, key_dsm, *_ = jax.random.split(jax.random.key(3), 9)  # as in `ctm.make_student`
    key_bins, key_eps = jax.random.split(key_ctm)
    t, u, s = ctm.triples(noise, key_bins, ROWS, method.max_jump)
    key_t, key_dsm_eps = jax.random.split(key_dsm)
    draws = reference.Draws(
        *map(tensor, (t, u, s)),
        tensor(jax.random.normal(key_eps, batch.x.shape)),
        tensor(diffusion.mixed(noise, key_t, ROWS)),
        tensor(jax.random.normal(key_dsm_eps, batch.x.shape)),
    )
    _, _, target = pair(kind, 2)
    target.requires_grad_(False)
    loss = reference.student_loss(
        student, target, teacher, noise, method, tensor(batch.x), tensor(batch.cond), draws
    )
    assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-4)

    loss.backward()
    mean = jax.tree.map(lambda m: m / (1 - adam.b1), after.opt_state[0].mu)
    expected = reference.state_dict(mean)  # gradients in PyTorch's layouts
    length = np.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    for name, parameter in student.named_parameters():
        np.testing.assert_allclose(parameter.grad, expected[name], atol=1e-3 * length, err_msg=name)


# ---- what `test_golden` holds JAX to without PyTorch --------------------------------------------


def given(file):
    """Draw the inputs of a golden file; weights are one vector for each network."""
    rng = np.random.default_rng(0)
    shapes = {"x": (16, *SHAPE), "cond": (16, COND), "times": (16, 2)}
    shapes |= {name: raveled(file, 2)[0].shape for name in ("student", "average")}
    shapes["teacher"] = raveled(file, 1)[0].shape
    scale = {"x": 0.5, "cond": 1.0, "times": 250.0}
    inputs = {
        name: (scale.get(name, 0.3) * rng.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
    }
    torch.manual_seed(0)
    draws = reference.draw(diffusion.Noise(), ctm.Student(max_jump=80), tensor(inputs["x"]))
    return inputs | {name: a.numpy() for name, a in draws._asdict().items()}


def computed(file, arrays):
    """Return what PyTorch makes of the inputs of a golden file."""

    def network(name):
        n_times = 1 if name == "teacher" else 2
        params = raveled(file, n_times)[1](jnp.asarray(arrays[name]))
        return reference.network({"kind": "mlp"} | REFERENCE[file], SHAPE, COND, n_times, params)

    a, results = {name: tensor(array) for name, array in arrays.items()}, {}
    with torch.inference_mode():
        results["teacher_out"] = network("teacher")(a["x"], a["times"][:, :1], a["cond"]).numpy()
        results["student_out"] = network("student")(a["x"], a["times"], a["cond"]).numpy()
    for preset in (preset for case, preset in CASES if case == file):
        noise, method = METHODS[preset]
        student, teacher = network("student"), network("teacher")
        target = network("average" if method.target == "ema" else "student").requires_grad_(False)
        draws = reference.Draws(*(a[name] for name in reference.Draws._fields))
        draws = draws._replace(u=torch.minimum(draws.u, draws.t + method.max_jump))
        loss = reference.student_loss(
            student, target, teacher, noise, method, a["x"], a["cond"], draws
        )
        loss.backward()
        zeros, unravel = raveled(file, 2)
        # Where in our vector PyTorch's weights are.
        places = reference.state_dict(unravel(jnp.arange(len(zeros), dtype=jnp.float32)))
        gradient = np.full(len(zeros), np.nan, np.float32)
        for name, parameter in student.named_parameters():
            gradient[places[name].int()] = parameter.grad
        results |= {f"{preset}_loss": np.float32(loss.item()), f"{preset}_gradient": gradient}
    return results


@pytest.mark.parametrize("file", REFERENCE)
def test_golden_file_holds_what_pytorch_computes(file):
    with np.load(DATA / f"{file}.npz") as z:
        stored = dict(z)
    results = computed(file, stored)
    assert stored.keys() == given(file).keys() | results.keys()
    for name, array in results.items():
        np.testing.assert_allclose(array, stored[name], atol=1e-4 * np.abs(array).max())


# ---- what is drawn, an update, samplers and the stage bench --------------------------------------


@pytest.mark.parametrize("per_sample", [False, True])
def test_drawn_bins_follow_the_published_distribution(per_sample):
    noise, method = METHODS["paper"]
    batch = 2000 if per_sample else 50_000
    torch.manual_seed(0)
    draws = reference.draw(noise, method, torch.zeros(batch, *SHAPE), per_sample=per_sample)
    t, u, s = draws.t, draws.u, draws.s
    assert t.min() >= 0
    assert t.max() <= 79
    assert s.max() <= 80
    assert ((t <= u) & (u <= s) & (u <= t + 1)).all()
    # Exact: P(u = t) = mean of 1 / (s - t + 1), P(s = t) = mean of 1 / (81 - t).
    counts = 81 - np.arange(80)
    stay = np.mean([np.mean(1 / np.arange(1, n + 1)) for n in counts])
    for happened, p in (((u == t), stay), ((s == t), np.mean(1 / counts))):
        assert float(happened.float().mean()) == pytest.approx(p, abs=4 * np.sqrt(p / batch))


@pytest.mark.parametrize("target", ["online", "ema"])
def test_update_trains_and_keeps_the_teacher(pair, toy, target):
    noise, method = METHODS["paper"]
    method = dataclasses.replace(method, target=target)
    _, _, student = pair("mlp", 2)
    _, params, teacher = pair("mlp", 1, seed=1)
    settings = {"learning_rate": 3e-3, "b1": 0.95, "b2": 0.999, "weight_decay": 1e-6, "ema": 0.9}
    torch.manual_seed(0)
    update = reference.make_update(student, teacher, noise, method, settings)
    x_0, cond = tensor(toy.x[:256]), tensor(toy.cond[:256])
    losses = [update(x_0, cond).item() for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert all(p.grad is None for p in teacher.parameters())
    for name, weight in reference.state_dict(params).items():
        np.testing.assert_array_equal(teacher.state_dict()[name], weight)


def test_samplers_agree(pair):
    noise = diffusion.Noise()
    x, cond = draw((ROWS, *SHAPE)), draw((ROWS, COND), 1)
    net, params, torch_net = pair("mlp", 2)
    top, zero = jnp.full(ROWS, 80.0), jnp.full(ROWS, noise.sigma_min)
    expected = ctm.jump(net, params, noise, 80 * x, top, zero, cond).clip(-1, 1)
    actual = reference.sample_student(torch_net, noise, 1, tensor(80 * x), tensor(cond))
    np.testing.assert_allclose(actual.numpy(), expected, atol=2e-4)

    net, params, torch_net = pair("mlp", 1)
    grid = diffusion.sigmas(dataclasses.replace(noise, bins=5), jnp.arange(5))

    def denoiser(x, t):
        return edm.denoise(net, params, noise, x, t, cond).clip(-1, 1)

    expected = edm.solve(denoiser, 80 * x, jnp.broadcast_to(grid[:, None], (5, ROWS)), "heun")
    actual = reference.sample_teacher(
        torch_net, noise, tensor(grid), "heun", tensor(80 * x), tensor(cond)
    )
    np.testing.assert_allclose(actual.numpy(), expected, atol=2e-4)

    method = ddpm.Ddpm(sampler="ddim", sample_steps=5)
    keys = jax.random.split(jax.random.key(0), ROWS)
    start = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 100), SHAPE))(keys)

    def predictor(x, t):
        return net.apply({"params": params}, x, t[:, None].astype(x.dtype), cond)

    expected = ddpm.sample(predictor, method, keys, SHAPE, clip=True)
    actual = reference.make_sample_ddpm(method, noise)(torch_net, tensor(start), tensor(cond))
    np.testing.assert_allclose(actual.numpy(), expected, atol=2e-4)


@pytest.fixture
def smallest():
    """Return the stage `bench`'s configuration, as small as it gets."""
    _, values = load("hopper_mr", "bench,size=demo")
    for stage in ("teacher", "ctd", "student", "ddpm"):
        values[stage]["network"].update(hidden=8, blocks=1)
        values[stage]["optimiser"]["batch_size"] = 8
    values["reward"]["network"]["dims"] = [8]
    values["reward"]["method"]["members"] = values["reward"]["method"]["drawn"] = 1
    values["training"]["updates_per_dispatch"] = 20
    values["bench"] = {"batches": [1], "seconds": 0.01, "max_seconds": 60.0}
    return registry.configure(values)


def test_the_published_loop_is_in_float32_whatever_jax_computes_in(smallest, monkeypatch):
    asked, network = [], versus.network

    def noted(config, *args):
        asked.append(config.training.precision)
        return network(config, *args)

    monkeypatch.setattr(versus, "network", noted)
    low = configuration.replace(smallest, training__precision="bfloat16")
    entry = versus.updates(low, seconds=0.01, max_seconds=60.0)
    assert entry["published_over_jax"] > 0
    assert asked == ["bfloat16", "bfloat16", "float32", "float32"]  # teacher and student


def test_bench_shows_what_pytorch_takes(smallest, tmp_path):
    console = Console(width=120, record=True, file=io.StringIO())
    result = run.show(opening.open_pipeline(smallest, tmp_path, Progress(console)))
    for entry in result["act"]:
        assert entry["policy"] == act.LOW or entry["torch_ms"] / entry["torch_over_jax"] > 0
    training = result["torch_train"]
    assert (training["updates_a_turn"], training["torch_updates_a_turn"]) == (20, 2)
    assert training["torch_per_s"] > 0
    assert training["published_over_jax"] > 0
    text = console.export_text()
    assert "torch" in text
    assert "published loop (float32)" in text


if __name__ == "__main__":
    for file in REFERENCE:
        arrays = given(file)
        np.savez_compressed(DATA / f"{file}.npz", **arrays, **computed(file, arrays))
