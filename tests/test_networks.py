"""The networks are the published ones, and convolutions do not depend on how they are computed."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from helpers import COND, SHAPE

from ractd_jax import config, diffusion, edm, errors, networks, types
from ractd_jax.nn import activations, blocks, dropout, embeddings, group_norm, layers
from ractd_jax.nn.cpu import conv1d, matmul

# ---- convolutions --------------------------------------------------------------------------------


def compare_convolutions(convolve, x, kernel, cotangent, **options):
    @jax.jit
    def both(x, kernel):
        def run(as_matmul):
            f = functools.partial(convolve, as_matmul=as_matmul, **options)
            y, pullback = jax.vjp(f, x, kernel)
            return y, *pullback(cotangent)

        return run(True), run(False)

    for product, expected in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(product, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "width", "length"),
    [
        (1, 5, 8),
        (1, 5, 7),
        (1, 5, 4),
        (1, 5, 3),
        (1, 5, 2),
        (1, 1, 3),
        (2, 3, 8),
        (2, 3, 7),
        (2, 5, 9),
    ],
)
def test_convolution_as_matmul_equals_lax_in_value_and_gradients(key, stride, width, length):
    key_x, key_kernel, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (2, length, 3))
    kernel = jax.random.normal(key_kernel, (width, 3, 4))
    cotangent = jax.random.normal(key_y, (2, -(-length // stride), 4))
    compare_convolutions(conv1d.conv1d, x, kernel, cotangent, stride=stride)


@pytest.mark.parametrize("length", [1, 4, 5])
def test_transposed_convolution_as_matmul_equals_lax_in_value_and_gradients(key, length):
    key_x, key_kernel, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (2, length, 3))
    kernel = jax.random.normal(key_kernel, (4, 3, 5))
    cotangent = jax.random.normal(key_y, (2, 2 * length, 5))
    compare_convolutions(conv1d.conv1d_transpose, x, kernel, cotangent)


def test_transposed_convolution_is_the_adjoint_of_the_strided_one(key):
    key_x, key_kernel = jax.random.split(key)
    x = jax.random.normal(key_x, (2, 6, 3))
    kernel = jax.random.normal(key_kernel, (4, 3, 5))

    def halve(y):
        backward = kernel.transpose(0, 2, 1)
        names = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(y, backward, (2,), [(1, 1)], dimension_numbers=names)

    (expected,) = jax.linear_transpose(halve, jnp.zeros((2, 12, 5)))(x)
    np.testing.assert_allclose(conv1d.conv1d_transpose(x, kernel), expected, atol=1e-5)


# ---- products of few rows ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, matmul.FEW_ROWS + 1])
@pytest.mark.parametrize("kind", ["unet", "mlp"])
def test_transposed_kernels_give_the_same_numbers(tiny, weights, key, kind, batch):
    net = tiny(kind)
    params = weights(net, 2)
    x = jax.random.normal(key, (batch, *SHAPE))
    times, cond = jnp.ones((batch, 2)), jnp.ones((batch, COND))

    @jax.jit
    def in_inference(params):
        with matmul.transposed_kernels():
            return net.apply({"params": params}, x, times, cond)

    plain = net.apply({"params": params}, x, times, cond)
    np.testing.assert_allclose(in_inference(matmul.transpose_kernels(params)), plain, atol=2e-6)


@pytest.mark.parametrize("layer", [layers.Dense(96), layers.Conv1d(96, 5)])
def test_a_transposed_kernel_is_read_as_it_is_stored_also_in_loops(key, layer):
    def program(rows):
        x = jnp.zeros((rows, 80) if isinstance(layer, layers.Dense) else (1, rows, 80))
        params = matmul.transpose_kernels(layer.init(key, x))

        def often(params, x):
            with matmul.transposed_kernels():
                body = lambda _, x: layer.apply(params, x)[..., :80]  # noqa: E731
                return jax.lax.fori_loop(0, 9, body, x)

        return jax.jit(often).lower(params, x).compile().as_text()

    fan_in = 80 if isinstance(layer, layers.Dense) else 400
    # The outputs of a feature are neighbours in memory: the product is the kernel's with x^T.
    assert "f32[96,16]" in program(16)
    assert f"f32[{fan_in},96]" not in program(16)  # no copy of the kernel in the other order
    assert "f32[96,64]" not in program(64)  # many rows: the plain product


# ---- building blocks -----------------------------------------------------------------------------


def test_mish_closed_values():
    x = np.array([-30.0, 0.0, 1.0, 30.0], np.float32)
    expected = x * np.tanh(np.log1p(np.exp(x.astype(np.float64))))
    np.testing.assert_allclose(activations.mish(jnp.asarray(x)), expected, atol=1e-6)
    assert expected[2] == pytest.approx(0.865098, abs=1e-6)


def test_mish_has_the_slope_of_its_textbook_form_everywhere():
    def textbook(x):
        return x * jnp.tanh(jax.nn.softplus(x))

    x = jnp.linspace(-40.0, 40.0, 1601)
    np.testing.assert_allclose(activations.mish(x), textbook(x), rtol=1e-5, atol=1e-6)
    for order in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        slopes = jax.vmap(order(activations.mish))(x)
        np.testing.assert_allclose(slopes, jax.vmap(order(textbook))(x), rtol=1e-4, atol=1e-4)


def test_group_norm_is_flax_s_in_value_and_gradients(key):
    key_x, key_scale, key_bias, key_y = jax.random.split(key, 4)
    x = 2 * jax.random.normal(key_x, (3, 5, 24)) + 1
    weights = jax.random.normal(key_scale, (24,)), jax.random.normal(key_bias, (24,))
    cotangent = jax.random.normal(key_y, x.shape)

    def flax(x, scale, bias):
        norm = nn.GroupNorm(8, epsilon=1e-5, use_fast_variance=False)
        return norm.apply({"params": {"scale": scale, "bias": bias}}, x)

    def fused(x, scale, bias):
        return group_norm.group_norm(x, scale, bias, 8)

    def everything(f):
        y, pullback = jax.vjp(f, x, *weights)
        return y, *pullback(cotangent)

    for fast, plain in zip(everything(fused), everything(flax), strict=True):
        np.testing.assert_allclose(fast, plain, atol=2e-5)


def test_random_bits_are_even_and_tell_nothing_of_each_other(key):
    keys = jax.random.split(key, 2)
    shape = (64, 16, 64)
    one, other = (np.asarray(dropout.random_bits(k, shape)) for k in keys)
    bits = (one[..., None] >> np.arange(32, dtype=np.uint32) & 1) - 0.5
    few = 5 / np.sqrt(one.size)  # five standard deviations of a correlation
    flat = bits.reshape(-1, 32)
    np.testing.assert_allclose(4 * flat.T @ flat / len(flat), np.eye(32), atol=few)
    assert np.abs(2 * flat.mean(axis=0)).max() < few
    second = (other.reshape(-1, 1) >> np.arange(32, dtype=np.uint32) & 1) - 0.5
    assert np.abs(4 * flat.T @ second / len(flat)).max() < few  # another key, another choice
    for axis in range(3):
        moved = np.roll(bits, 1, axis).reshape(-1, 32)
        assert np.abs(4 * flat.T @ moved / len(flat)).max() < few
    batched = jax.vmap(lambda k: dropout.random_bits(k, shape))(keys)
    np.testing.assert_array_equal(batched, [one, other])


def test_dropout_drops_its_share_and_keeps_the_mean(key):
    x = jnp.ones((200, 500))
    bits = dropout.random_bits(key, x.shape) & 0xFFFF
    dropped = dropout.Dropout(0.2).apply({}, x, bits)
    assert float(jnp.mean(dropped == 0)) == pytest.approx(0.2, abs=0.005)
    assert float(jnp.mean(dropped)) == pytest.approx(1.0, abs=0.01)


def test_the_two_dropouts_of_a_block_are_independent(key):
    block = blocks.FilmResidualBlock(64, 3, 8, 0.5)
    x, cond = jnp.ones((8, 16, 64)), jnp.ones((8, 4))
    params = block.init(key, x, cond, train=False)
    rngs = {"dropout": jax.random.key(1)}
    options = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, seen = block.apply(params, x, cond, train=True, rngs=rngs, **options)
    first, second = (seen["intermediates"][f"Dropout_{i}"]["__call__"][0] == 0 for i in range(2))
    assert float(jnp.mean(first & second)) == pytest.approx(0.25, abs=0.02)


def test_sinusoidal_embeds_from_frequency_one_to_a_ten_thousandth():
    x = np.array([[0.0, 1.5], [-978.0, 1095.5]], np.float32)
    embedded = np.asarray(embeddings.sinusoidal(jnp.asarray(x), 8))
    frequencies = 10_000.0 ** -np.array([0, 1 / 3, 2 / 3, 1])
    angles = x[..., None].astype(np.float64) * frequencies
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    np.testing.assert_allclose(embedded, expected, atol=2e-4)  # float32 angles of order 1000
    np.testing.assert_array_equal(embedded[0, 0], [0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [
        (layers.Dense(400), (1, 9), 9),
        (layers.Conv1d(400, 3), (1, 8, 5), 3 * 5),
        (layers.Conv1d(40, 4, transpose=True), (1, 8, 50), 4 * 40),  # as PyTorch counts it
    ],
)
def test_first_weights_are_uniform_within_one_over_root_fan_in(key, layer, shape, fan_in):
    params = jax.tree.leaves(layer.init(key, jnp.zeros(shape)))
    assert len(params) == 2  # bias and kernel
    for leaf in params:
        assert np.abs(leaf).max() <= fan_in**-0.5
        assert np.std(leaf) == pytest.approx((3 * fan_in) ** -0.5, rel=0.15)


# ---- sizes ---------------------------------------------------------------------------------------

HALF, FULL = (256, 512, 1024), (512, 1024, 2048)


@pytest.mark.parametrize(
    ("down_dims", "embed_dim", "horizon", "dim", "cond", "teacher", "student"),
    [
        pytest.param(FULL, 128, 16, 3, 11, 248_046_211, 251_716_227, id="hopper"),
        pytest.param(FULL, 128, 16, 6, 17, 248_228_998, 251_899_014, id="walker2d"),
        pytest.param(HALF, 256, 128, 4, 8, 65_328_132, 68_998_148, id="umaze"),
        pytest.param(FULL, 256, 256, 4, 8, 252_027_652, 259_367_684, id="medium"),
        pytest.param((256, *FULL), 256, 384, 4, 8, 256_370_692, 264_235_012, id="large"),
    ],
)
def test_unet_has_the_published_number_of_parameters(
    key, down_dims, embed_dim, horizon, dim, cond, teacher, student
):
    net = networks.ConditionalUnet1D(down_dims, embed_dim)
    for n_times, published in ((1, teacher), (2, student)):
        example = jnp.zeros((1, horizon, dim)), jnp.zeros((1, n_times)), jnp.zeros((1, cond))
        assert parameters(net, key, *example) == published


@pytest.mark.parametrize(("inputs", "published"), [(14, 344_257), (23, 345_409), (4, 342_977)])
def test_return_model_has_the_published_number_of_parameters(key, inputs, published):
    net = networks.ReturnMLP((64, 128, 256))  # of the published code
    assert parameters(net, key, jnp.zeros((1, inputs))) == published


def test_inverse_dynamics_are_linear_but_for_their_hidden_layers(key):
    net = networks.InverseMLP(2, (8,))
    state, change = jnp.ones((3, 4)), jnp.arange(12.0).reshape(3, 4)
    params = net.init(key, state, change)["params"]
    flat = {**params, "output": jax.tree.map(jnp.zeros_like, params["output"])}

    def apply(change):
        return net.apply({"params": flat}, state, change)

    np.testing.assert_allclose(
        apply(3 * change) - apply(0 * change), 3 * (apply(change) - apply(0 * change)), rtol=1e-4
    )
    assert (net.apply({"params": params}, state, change) != apply(change)).all()


@pytest.mark.parametrize(("horizon", "levels"), [(32, 4), (4, 3)])
def test_value_ends_in_one_number_whatever_the_horizon(key, horizon, levels):
    net = networks.ValueUnet1D((32, 64, 128, 256)[-levels:])
    example = jnp.zeros((5, horizon, 14)), jnp.zeros((5, 1)), jnp.zeros((5, 0))
    value = jax.eval_shape(lambda k: net.init_with_output(k, *example)[0], key)
    assert value.shape == (5,)


def parameters(net, key, *example):
    shapes = jax.tree.leaves(jax.eval_shape(net.init, key, *example))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in shapes)  # nothing allocated
    return sum(leaf.size for leaf in shapes)


# ---- fields that cannot work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (networks.ConditionalUnet1D, {"down_dims": ()}, "down_dims is empty: at least 1"),
        (networks.ConditionalUnet1D, {"down_dims": (64, 0)}, "down_dims is 0: at least 1"),
        (networks.ConditionalUnet1D, {"groups": 7}, "down_dims: 512 .* do not make 7 equal groups"),
        (networks.ConditionalUnet1D, {"groups": 0}, "groups is 0: at least 1"),
        (networks.ConditionalUnet1D, {"width": 4}, "width is 4: odd"),
        (networks.ConditionalUnet1D, {"embed_dim": 7}, "embed_dim is 7: even"),
        (networks.ConditionalUnet1D, {"embed_dim": 2}, "embed_dim is 2: even, .* at least 4"),
        (networks.ConditionalUnet1D, {"mid_dropout": -0.1}, "mid_dropout is -0.1: between 0 and 1"),
        (networks.ValueUnet1D, {"down_dims": (16, 48)}, "down_dims: 12 .* make 8 equal groups"),
        (networks.ValueUnet1D, {"down_dims": (8, 2)}, "down_dims ends in 2, .* at least 4"),
        (networks.ValueUnet1D, {"width": 2}, "width is 2: odd"),
        (networks.ResidualMLP, {"hidden": 0}, "hidden is 0: at least 1"),
        (networks.ResidualMLP, {"blocks": 0}, "blocks is 0: at least 1"),
        (networks.ResidualMLP, {"frequencies": -3}, "frequencies is -3: at least 0"),
        (networks.ResidualMLP, {"dropout": 1.5}, "dropout is 1.5: between 0 and 1"),
        (networks.ReturnMLP, {"dims": ()}, "dims is empty"),
        (networks.MLP, {"hidden": (8, -1)}, "hidden is -1: at least 1"),
        (networks.MLP, {"activation": "swish"}, "Choose from: gelu, mish, relu"),
        (networks.MLP, {"layer_norm": "befor"}, "Did you mean 'before'"),
        (networks.FourierMLP, {"scale": 0.0}, "scale is 0.0: above 0"),
        (networks.FourierMLP, {"embed_dim": 0}, "embed_dim is 0: at least 1"),
        (networks.Bottleneck, {"hidden": 4}, "hidden is 4: at least 8"),
        (networks.Bottleneck, {"widening": 0}, "widening is 0: at least 1"),
        (networks.StepMLP, {"embed_dim": 3}, "embed_dim is 3: even"),
    ],
)
def test_a_field_that_cannot_work_is_named_as_the_user_wrote_it(kind, fields, text):
    with pytest.raises(errors.FieldError, match=text) as bare:
        kind(**fields)
    with pytest.raises(errors.UserError, match=r"^(unknown )?teacher\.network\.") as whole:
        config.build(kind, fields, "teacher.network")
    assert str(whole.value) == str(bare.value.within("teacher.network"))


@pytest.mark.parametrize(("horizon", "nearest"), [(17, "16 or 20"), (1, ": 4, or fewer")])
def test_horizon_must_fit_the_halvings_of_a_u_net(horizon, nearest):
    net = networks.ConditionalUnet1D((8, 8, 8))
    networks.check(net, 16)
    for unfit in (net, networks.in_precision(net, "bfloat16")):
        with pytest.raises(errors.FieldError, match=f"multiple of 4.*{nearest}"):
            networks.check(unfit, horizon)
    for kind in (networks.ConditionalUnet1D((8,)), networks.ValueUnet1D(), networks.ResidualMLP()):
        networks.check(kind, horizon)


def test_sizes_of_a_dataclass_that_is_no_network_are_checked_by_their_names():
    @dataclasses.dataclass
    class Critic:
        hidden: tuple[int, ...] = (256, 256)
        layer_norm: str | bool = False

    networks.check(Critic(), 1)
    for wrong in (Critic(()), Critic((0,)), Critic(layer_norm="beside")):
        with pytest.raises(errors.FieldError):
            networks.check(wrong, 1)


def test_every_default_makes_a_network_that_works():
    for kind in (
        networks.ConditionalUnet1D,
        networks.ValueUnet1D,
        networks.ResidualMLP,
        networks.ReturnMLP,
        networks.MLP,
        networks.StepMLP,
        networks.FourierMLP,
        networks.Bottleneck,
    ):
        networks.check(config.build(kind, {}), 16)


# ---- what the denoising networks depend on -------------------------------------------------------


@pytest.mark.parametrize("n_times", [1, 2])
@pytest.mark.parametrize("kind", ["unet", "mlp", "spectral", "value_unet"])
def test_output_depends_on_every_input_of_its_own_row_only(key, tiny, weights, kind, n_times):
    net = tiny(kind)
    params = weights(net, n_times)
    key_x, key_times, key_cond = jax.random.split(key, 3)
    inputs = {
        "x": jax.random.normal(key_x, (2, *SHAPE)),
        "times": 100 * jax.random.normal(key_times, (2, n_times)),
        "cond": jax.random.normal(key_cond, (2, COND)),
    }

    @jax.jit
    def apply(x, times, cond):
        return net.apply({"params": params}, x, times, cond)

    before = apply(**inputs)
    assert before.shape == ((2,) if kind == "value_unet" else (2, *SHAPE))
    changes = [(name, i) for name, value in inputs.items() for i in np.ndindex(value.shape[1:])]
    for name, i in changes:
        after = apply(**inputs | {name: inputs[name].at[(0, *i)].add(1.0)})
        assert np.abs(after - before)[0].max() > 1e-5, (name, i)
        np.testing.assert_array_equal(after[1], before[1])


def test_hidden_layers_see_the_lowest_frequencies_only(key, tiny, weights):
    net = tiny("spectral", frequencies=2)
    params = weights(net, 1)
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    transform = scipy.fft.dct(np.eye(len(x)), axis=0, norm="ortho")

    def frequencies(x):
        x = jnp.asarray(x[None], jnp.float32)
        out = net.apply({"params": params}, x, jnp.ones((1, 1)), jnp.zeros((1, COND)))
        return transform @ np.asarray(out[0])

    for k, mixes in ((0, True), (1, True), (2, False), (3, False)):
        change = np.abs(frequencies(x + transform[k][:, None]) - frequencies(x)).max(axis=1)
        assert change[k] > 1e-4
        assert (np.delete(change, k) > 1e-4).any() == mixes


@pytest.mark.slow
def test_spectral_network_takes_noise_off_plans_that_are_longer_than_it_is_wide(tiny, optimiser):
    # Smooth plans, one of four frequencies, 64 steps of 2 numbers: eight times the hidden units.
    steps, noise = jnp.arange(64) / 64, diffusion.Noise()

    def draw(key):
        turns = jax.random.uniform(key, (32, 1, 2)) + jnp.arange(4).repeat(8)[:, None, None] / 4
        return jnp.sin(2 * jnp.pi * (steps[None, :, None] + turns))

    def error(kind):
        net = tiny(kind, **({"frequencies": 16} if kind == "spectral" else {}))
        algorithm = edm.make_teacher(
            net,
            noise,
            edm.Teacher(distance="squared"),
            optimiser(ema=0.0),
            shape=(64, 2),
            cond_dim=COND,
        )

        def update(state, keys):
            batch = types.Batch(draw(keys[0]), jnp.zeros((32, COND)), jnp.zeros(32))
            return algorithm.update(state, batch, keys[1])[0], None

        train = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys)[0])
        keys = jax.random.split(jax.random.key(3), (200, 2))
        state = train(algorithm.init(jax.random.key(4)), keys)
        x, t = draw(jax.random.key(1)), jnp.full(32, 0.5)
        noisy = x + 0.5 * jax.random.normal(jax.random.key(2), x.shape)
        d = edm.denoise(net, state.params, noise, noisy, t, jnp.zeros((32, COND)))
        return float(jnp.sqrt(jnp.mean((d - x) ** 2)))

    e = {kind: error(kind) for kind in ("spectral", "mlp")}
    assert e["spectral"] < 0.7 * e["mlp"], e


def test_network_runs_under_vmap_over_weights(key, tiny, weights):
    net = tiny("mlp")
    members = [weights(net, 1, seed) for seed in (0, 1)]
    x = jax.random.normal(key, (3, *SHAPE))
    times, cond = jnp.zeros((3, 1)), jnp.zeros((3, COND))

    def apply(params):
        return net.apply({"params": params}, x, times, cond)

    stacked = jax.jit(jax.vmap(apply))(jax.tree.map(lambda *a: jnp.stack(a), *members))
    single = jax.jit(apply)
    for member, y in zip(members, stacked, strict=True):
        np.testing.assert_allclose(y, single(member), atol=1e-5)


# ---- dropout -------------------------------------------------------------------------------------


def where_dropout_acts(net, params, *, train):
    """Return the blocks in which dropout zeroes something; Mish never returns an exact 0 here."""

    @jax.jit
    def run(params, key):
        x = jnp.linspace(-1, 1, 2 * np.prod(SHAPE)).reshape(2, *SHAPE)
        inputs = x, jnp.ones((2, 1)), jnp.ones((2, COND))
        options = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return net.apply({"params": params}, *inputs, train=train, rngs={"dropout": key}, **options)

    zeroed = {}

    def walk(tree, path):
        for name, value in tree.items():
            if name.startswith("Dropout"):
                zeros = any((y == 0).any() for y in value["__call__"])
                zeroed[path or name] = zeroed.get(path or name, False) or bool(zeros)
            elif isinstance(value, dict):
                walk(value, name)

    walk(run(params, jax.random.key(0))[1]["intermediates"], "")
    assert zeroed
    return {name for name, zeros in zeroed.items() if zeros}, set(zeroed)


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({"dropout": 0.5, "mid_dropout": 0.5}, False),
        ({"dropout": 0.5}, True),
        ({"mid_dropout": 0.5}, True),
    ],
    ids=["not training", "outer only", "middle only"],
)
def test_unet_dropout_acts_in_training_and_in_its_own_blocks_only(tiny, weights, options, train):
    net = tiny("unet", **options)
    active, blocks = where_dropout_acts(net, weights(net, 1), train=train)
    middle = {"mid_block0", "mid_block1"}
    outer = {f"{side}_block{j}" for side in ("down0", "down1", "up0") for j in range(2)}
    assert blocks == middle | outer
    expected = (outer if "dropout" in options else set()) | (
        middle if "mid_dropout" in options else set()
    )
    assert active == (expected if train else set())


@pytest.mark.parametrize("train", [True, False])
def test_mlp_dropout_acts_in_training_only(tiny, weights, train):
    net = tiny("mlp", dropout=0.5)
    active, blocks = where_dropout_acts(net, weights(net, 1), train=train)
    assert active == (blocks if train else set())


def test_return_model_with_layer_norm_ignores_the_scale_inside_its_blocks(key):
    # The first linear layer of a block may be multiplied by anything without changing the output.
    net = networks.ReturnMLP((8,), layer_norm=True)
    key_init, key_x = jax.random.split(key)
    x = jax.random.normal(key_x, (5, 3))
    params = net.init(key_init, x)["params"]
    first = "level0_block0_dense0"
    scaled = params | {first: jax.tree.map(lambda a: 100 * a, params[first])}
    y, z = (net.apply({"params": p}, x) for p in (params, scaled))
    assert y.shape == (5,)
    np.testing.assert_allclose(y, z, atol=1e-3)
