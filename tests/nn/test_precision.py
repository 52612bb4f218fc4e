"""bfloat16 in the networks changes little, and nothing outside them is computed in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE, load
from jax.experimental.layout import Layout, with_layout_constraint

from ractd_jax import ctm, diffusion, edm, errors, networks, train_state
from ractd_jax.bench import floor
from ractd_jax.methods import registry
from ractd_jax.nn.cpu import conv1d, cpuinfo, matmul, winograd

NOISE = diffusion.Noise()
ROWS = 64
LOW, FULL = jnp.dtype("bfloat16"), jnp.dtype("float32")


def low(net):
    return networks.in_precision(net, "bfloat16")


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    x, cond = jax.random.normal(keys[0], (ROWS, *SHAPE)), jax.random.normal(keys[1], (ROWS, COND))
    times = diffusion.c_noise(diffusion.mixed(NOISE, keys[2], 2 * ROWS)).reshape(ROWS, 2)
    return x, times, cond


def factors(jaxpr):
    """Yield the types of the factors of every matrix product."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            yield tuple(x.aval.dtype for x in eqn.invars)
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from factors(inner)


@pytest.mark.parametrize("tiles", [True, False])  # without: fewer products in bfloat16 too
@pytest.mark.parametrize("kind", ["mlp", "spectral", "unet", "value_unet", "fourier"])
def test_network_in_bfloat16_is_within_two_percent(tiny, weights, inputs, monkeypatch, kind, tiles):
    monkeypatch.setattr(cpuinfo, "multiplies_bfloat16_in_tiles", lambda: tiles)
    net = tiny(kind)
    params = {"params": weights(net, 2)}
    exact, near = (jax.jit(n.apply)(params, *inputs) for n in (net, low(net)))
    assert near.dtype == jnp.float32
    error = np.sqrt(np.mean((near - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.02  # bfloat16 has 8 bits: 2^-9 a number, some tens of numbers deep
    with monkeypatch.context() as patch:
        fewer, original = [], winograd.conv1d
        patch.setattr(winograd, "conv1d", lambda *args: fewer.append(args) or original(*args))
        program = jax.make_jaxpr(lambda *args: low(net).apply(*args))(params, *inputs)
    assert bool(fewer) == (kind in ("unet", "value_unet") and not tiles)
    # Every kernel is multiplied in bfloat16; cosine transforms and means of groups are not.
    kernels = sum(a.ndim > 1 for a in jax.tree.leaves(params))
    types = list(factors(program.jaxpr))
    assert types.count((LOW, LOW)) >= kernels
    assert set(types) <= {(LOW, LOW), (FULL, FULL)}
    # Weights cast beforehand, as for acting, give the very same.
    cast = networks.cast_weights(params, "bfloat16")
    np.testing.assert_array_equal(jax.jit(low(net).apply)(cast, *inputs), near)


OPERATIONS = {
    "dense": (matmul.linear, (20, 9), 6),
    "conv": (conv1d.conv1d, (3, 20, 9), 6),
    "conv of width 1": (conv1d.conv1d, (1, 20, 9), 6),
    "conv of stride 2": (functools.partial(conv1d.conv1d, stride=2), (3, 20, 9), 3),
    "transposed conv": (conv1d.conv1d_transpose, (4, 20, 9), 12),
}


@pytest.mark.parametrize("rows", [1, 2, 70])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kernel_in_bfloat16_meets_rounded_numbers_and_gives_float32(name, rows):
    f, shape, length = OPERATIONS[name]
    rng = np.random.default_rng(0)
    # Whole numbers are rounded nowhere: the result is exactly that of float32.
    shapes = (rows, 6, 20), shape, (rows, length, 9)
    x, kernel, dy = (jnp.asarray(rng.integers(-3, 4, s), jnp.float32) for s in shapes)
    low = kernel.astype(LOW)
    plainly = jnp.matmul if name == "dense" else functools.partial(f, as_matmul=False)
    exact, pullback = jax.vjp(plainly, x, kernel)
    dx, dk = pullback(dy)
    for weights in (kernel, low):
        near, back = jax.vjp(f, x, weights)
        near_dx, near_dk = back(dy)
        assert (near.dtype, near_dx.dtype) == (jnp.float32, jnp.float32)
        np.testing.assert_array_equal(near, exact)
        np.testing.assert_array_equal(near_dx, dx)
        np.testing.assert_array_equal(near_dk, dk.astype(weights.dtype), strict=True)
    # Other numbers are rounded before the product, and what it gives is not.
    x = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    expected = f(x.astype(LOW).astype(jnp.float32), kernel)
    np.testing.assert_allclose(f(x, low), expected, atol=1e-4)
    with matmul.transposed_kernels():
        np.testing.assert_allclose(f(x, low), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("length", "width", "c_in", "c_out", "multiplied"),
    [
        (4, 5, 80, 90, 14),  # shorter than the kernel: of 20 taps those that see an input
        (3, 5, 80, 90, 9),
        (2, 5, 80, 90, 10),  # no: a tap sees none
        (8, 5, 80, 30, 48),  # narrow outputs in pairs, of six neighbours each
        (8, 5, 30, 80, 40),  # narrow in the gradient of x alone
        (9, 5, 30, 30, 45),  # no pairs
    ],
)
def test_convolutions_in_bfloat16_are_exact_on_whole_numbers(
    length, width, c_in, c_out, multiplied
):
    rng, rows = np.random.default_rng(0), 7
    shapes = (rows, length, c_in), (width, c_in, c_out), (rows, length, c_out)
    x, kernel, dy = (jnp.asarray(rng.integers(-2, 3, s), jnp.float32) for s in shapes)
    exact, pullback = jax.vjp(functools.partial(conv1d.conv1d, as_matmul=False), x, kernel)
    convolve = functools.partial(conv1d.conv1d, as_matmul=True)
    near, back = jax.vjp(convolve, x, kernel.astype(LOW))
    for low, full in zip((near, *back(dy)), (exact, *pullback(dy)), strict=True):
        np.testing.assert_array_equal(low, full.astype(low.dtype))
    with matmul.transposed_kernels():
        np.testing.assert_array_equal(convolve(x, kernel.astype(LOW)), exact)
    done = floor.operations(convolve, x, kernel.astype(LOW))
    assert done <= 2 * rows * multiplied * c_in * c_out


@pytest.mark.parametrize("store", [lambda a: a, lambda a: jnp.array(a.T).T])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 5), (3, 1, 2), (64, 300, 1), (17, 5, 64)])
def test_products_of_any_shape_and_order_in_memory_compile(shape, store):
    rng, (n, m, k) = np.random.default_rng(0), shape
    a, b = (jnp.asarray(rng.normal(size=s), LOW) for s in ((n, m), (m, k)))
    exact = np.asarray(a, np.float32) @ np.asarray(b, np.float32)
    f = jax.jit(lambda a, b: matmul.matmul(store(a), store(b)).T)
    np.testing.assert_allclose(f(a, b), exact.T, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 4, 4096])
def test_no_kernel_is_written_out_in_float32(rows):
    def program(multiply, *kernel):
        shapes = jnp.zeros((rows, 320)), jnp.zeros(kernel, LOW)
        return jax.jit(multiply).lower(*shapes).compile().as_text()

    def plainly(x, kernel):
        order = Layout(major_to_minor=(1, 0))
        return x.astype(LOW) @ with_layout_constraint(kernel, order)

    def in_inference(x, kernel):
        with matmul.transposed_kernels():
            return matmul.linear(x, kernel.T)

    if "f32[320,96]" not in program(plainly, 320, 96):
        pytest.skip("this device multiplies bfloat16 however it is stored")
    assert "f32[320,96]" not in program(matmul.linear, 320, 96)
    assert "f32[96,320]" not in program(in_inference, 96, 320)


def test_float32_is_the_network_itself_and_other_words_are_refused(tiny):
    net = tiny("mlp")
    assert networks.in_precision(net, "float32") is net
    assert networks.in_precision(net, "bfloat16") == networks.InPrecision(net, "bfloat16")
    with pytest.raises(errors.FieldError, match=r"unknown precision 'float16'.*bfloat16, float32"):
        networks.in_precision(net, "float16")


def test_where_noise_ends_nothing_is_rounded(tiny, weights, inputs):
    x, _, cond = inputs
    net = low(tiny("mlp"))
    t = jnp.full(ROWS, NOISE.sigma_min)
    np.testing.assert_array_equal(edm.denoise(net, weights(net.net, 1), NOISE, x, t, cond), x)


def test_student_learns_nearly_the_same_and_its_state_stays_float32(
    tiny, weights, optimiser, sizes, toy, draw
):
    def first_update(wrap):
        net, adam = tiny("mlp"), optimiser(warmup=0)
        method = ctm.Student(reward_weight=0.0, warm_start=False)
        algorithm = ctm.make_student(wrap(net), wrap(net), None, NOISE, method, adam, **sizes)
        frozen = {"teacher": weights(net, 1, seed=1)}
        state = train_state.create(weights(net, 2), adam, frozen)
        batch = draw(toy, jax.random.key(1))
        state, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(2))
        mean = jnp.concatenate([a.ravel() for a in jax.tree.leaves(state.opt_state[0].mu)])
        return state, metrics["loss"], mean

    _, exact, slope = first_update(lambda net: net)
    state, near, rounded = first_update(low)
    assert {a.dtype for a in jax.tree.leaves(state)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert exact != near
    assert float(near) == pytest.approx(float(exact), rel=0.02)
    cosine = slope @ rounded / (jnp.linalg.norm(slope) * jnp.linalg.norm(rounded))
    assert cosine > 0.999


def test_configuration_chooses_it_for_every_denoising_network():
    _, values = load("hopper_mr", "student,size=demo")
    values["training"]["precision"] = "bfloat16"
    values["student"]["method"]["warm_start"] = False
    config = registry.configure(values)
    algorithm = registry.make(config, "student")
    frozen = {
        need: jax.eval_shape(registry.make(config, need).init, jax.random.key(0)).params
        for need in ("teacher", "reward")
    }
    state = jax.eval_shape(algorithm.init, jax.random.key(0), frozen)
    cond, keys = jnp.zeros((2, 11)), jax.random.split(jax.random.key(0), 2)
    program = jax.make_jaxpr(algorithm.act)(state.params, cond, keys)
    assert set(factors(program.jaxpr)) == {(LOW, LOW)}
