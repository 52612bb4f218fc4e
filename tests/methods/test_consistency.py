"""Where the data is Gaussian the consistency map has a closed form, and Euler's steps add up."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import COND, SHAPE

from ractd_jax import diffusion, edm, errors
from ractd_jax.methods import consistency
from ractd_jax.methods import consistency_distillation as distillation
from ractd_jax.methods import consistency_training as training
from ractd_jax.nn import denoising_mlp, embeddings

NOISE = diffusion.Noise(sigma_min=0.002, clip=False)
CD, CT = distillation.Distillation(), training.Training()


def exact(gaussian, noise=NOISE):
    """The map that leads along the ODE to sigma_min."""
    return lambda x, t: gaussian.jump(x, t, jnp.full_like(t, noise.sigma_min))


# ---- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 18, 1280])
def test_levels_rise_from_the_smallest_to_the_largest_on_edms_curve(n):
    t = np.asarray(consistency.level(NOISE, jnp.arange(n + 1), jnp.asarray(n)))
    roots = np.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), n + 1)
    np.testing.assert_allclose(t, roots**7, rtol=2e-5)
    middle = jnp.asarray((t[:-1] + t[1:]) / 2)
    np.testing.assert_array_equal(consistency.interval(NOISE, middle, n), np.arange(n))


@pytest.mark.parametrize(
    ("rounding", "intervals"),
    [
        # K' = 1,000,000 / (log2 128 + 1) = 125,000
        ("floor", {0: 10, 1: 10, 124_999: 10, 125_000: 20, 875_000: 1280, 999_999: 1280}),
        ("ceil", {0: 10, 1: 20, 125_000: 20, 125_001: 40, 750_000: 640, 750_001: 1280}),
    ],
)
def test_number_of_intervals_doubles_as_published(rounding, intervals):
    method = dataclasses.replace(CT, rounding=rounding)
    steps = jnp.array(list(intervals))
    n = jax.jit(lambda k: training.intervals(method, k, 1_000_000))(steps)
    np.testing.assert_array_equal(n, list(intervals.values()))


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_short_runs_double_too(steps):
    n = training.intervals(CT, jnp.arange(steps), steps)
    assert n[0] == 10
    assert (jnp.diff(n) >= 0).all()
    assert n[-1] == {1: 10, 2: 20, 100: 1280}[steps]


def test_levels_are_drawn_by_the_error_function():
    """Each interval's share, within four standard deviations of chance."""
    n, draws = 20, 200_000
    t = np.asarray(consistency.level(NOISE, jnp.arange(n + 1), n), np.float64)
    erf = np.array([math.erf((np.log(x) + 1.1) / (2**0.5 * 2.0)) for x in t])
    p = np.diff(erf) / (erf[-1] - erf[0])
    draw = jax.jit(lambda n, key: training.draw_interval(NOISE, CT, n, key, draws))
    counts = np.bincount(draw(jnp.asarray(n), jax.random.key(0)), minlength=n)
    assert len(counts) == n
    assert (np.abs(counts - draws * p) < 4 * np.sqrt(draws * p * (1 - p)) + 1).all()


# ---- losses ------------------------------------------------------------------------------------


def distilled(gaussian, model, n, key):
    """Mean L_CD where the teacher is exact and the target is the model itself."""
    method = distillation.Distillation(n)
    x_0 = gaussian.std * jax.random.normal(jax.random.key(1), (20_000, 1, 1))
    return np.mean(distillation.cd_loss(model, model, gaussian.denoise, NOISE, method, x_0, key))


def test_exact_map_has_no_loss_but_eulers_and_others_have(gaussian, key):
    """With N intervals Euler errs by O(1/N^2), the exact map's L_CD is O(1/N^3); others' O(1/N)."""

    def fall(model):
        coarse, fine = (distilled(gaussian, model, n, jax.random.clone(key)) for n in (40, 160))
        return math.log(coarse / fine, 4)

    def scaled(x, t):  # right at sigma_min, as every model is, and nowhere else
        return exact(gaussian)(x, t) * diffusion.expand(1 + 0.1 * (t - NOISE.sigma_min))

    assert fall(exact(gaussian)) == pytest.approx(3, abs=0.3)
    for wrong in (gaussian.denoise, scaled, exact(gaussian._replace(std=0.4))):
        assert fall(wrong) < 1.5


@pytest.mark.parametrize("weight", ["interval", "one"])
def test_distillation_finds_the_map_of_eulers_steps(gaussian, weight):
    """A model with one free factor at each level ends at the product of the teacher's factors."""
    n, method = 6, distillation.Distillation(6, weight=weight)
    levels = consistency.level(NOISE, jnp.arange(n + 1), n)
    ones = jnp.ones((n, 1, 1))
    steps = edm.euler(gaussian.denoise, ones, levels[1:], levels[:-1])[:, 0, 0]

    def factors(theta):
        def f(x, t):
            i = jnp.searchsorted(levels, t * 0.999)
            return jnp.concatenate([jnp.ones(1), theta])[i][:, None, None] * x

        return f

    adam = optax.adam(optax.cosine_decay_schedule(0.05, 2000))

    def update(carry, key):
        theta, state = carry
        key_x, key_loss = jax.random.split(key)
        x_0 = gaussian.std * jax.random.normal(key_x, (64, 1, 1))

        def loss_fn(model):
            losses = distillation.cd_loss(
                factors(model), factors(theta), gaussian.denoise, NOISE, method, x_0, key_loss
            )
            return jnp.mean(losses)

        updates, state = adam.update(jax.grad(loss_fn)(theta), state)
        return (optax.apply_updates(theta, updates), state), None

    theta = jnp.full(n, 0.5)
    keys = jax.random.split(jax.random.key(0), 2000)
    (theta, _), _ = jax.jit(lambda c: jax.lax.scan(update, c, keys))((theta, adam.init(theta)))
    np.testing.assert_allclose(theta, jnp.cumprod(steps), rtol=0.03)


def test_map_of_eulers_steps_converges_to_the_exact_one(gaussian):
    """What distillation finds errs by O(1/N) in the logarithm of its factor at sigma_max."""
    top = jnp.full(1, NOISE.sigma_max)
    goal = float(exact(gaussian)(jnp.ones((1, 1, 1)), top)[0, 0, 0])

    def error(n):
        levels = consistency.level(NOISE, jnp.arange(n + 1), n)
        steps = edm.euler(gaussian.denoise, jnp.ones((n, 1, 1)), levels[1:], levels[:-1])
        return abs(math.log(float(jnp.prod(steps)) / goal))

    errors_ = [error(n) for n in (18, 72, 288, 1152)]
    assert errors_[0] < 0.2
    falls = [math.log(a / b, 4) for a, b in itertools.pairwise(errors_)]
    assert falls == pytest.approx([1, 1, 1], abs=0.15)


@pytest.mark.parametrize(("stage", "averaged"), [("cd", True), ("ct", False)])
def test_target_is_the_average_in_distillation_and_the_live_model_in_training(
    stage, averaged, weights, optimiser, toy, sizes
):
    net, adam = denoising_mlp.FourierMLP(hidden=8, blocks=1, dropout=0.5), optimiser(ema=0.99)
    if stage == "cd":
        algorithm = distillation.make_cd(net, net, NOISE, CD, adam, **sizes)
        state = algorithm.init(jax.random.key(0), {"teacher": weights(net, 1)})
    else:
        algorithm = training.make_ct(net, NOISE, CT, adam, **sizes)
        state = algorithm.init(jax.random.key(0))
    update = jax.jit(algorithm.update)

    def loss(state):
        return float(update(state, toy, jax.random.key(2))[1]["loss"])

    moved = jax.tree.map(lambda p: p + 0.1, state.ema)
    assert (loss(state) != loss(state.replace(ema=moved))) == averaged


def test_trained_map_is_weighted_by_its_interval(gaussian, key):
    """A constant difference d between model and target costs huber(d) / (t - u)."""
    n, c, d = 8, 0.01, 0.3
    method = dataclasses.replace(CT, huber_c=c)
    seen = {}

    def model(x, t):
        seen.update(x_t=x, t=t)
        return jnp.full_like(x, d)

    def target(x, u):
        seen.update(x_u=x, u=u)
        return jnp.zeros_like(x)

    x_0 = jnp.zeros((50, *SHAPE))
    losses = training.ct_loss(model, target, NOISE, method, jnp.asarray(n), x_0, key)
    t, u = np.asarray(seen["t"]), np.asarray(seen["u"])
    i = np.asarray(consistency.interval(NOISE, jnp.asarray(u) * 1.001, n))
    np.testing.assert_allclose(t, consistency.level(NOISE, jnp.asarray(i) + 1, n), rtol=1e-5)
    np.testing.assert_allclose(losses, (np.hypot(d, c) - c) / (t - u), rtol=1e-4)
    eps_t, eps_u = (seen[x] / diffusion.expand(seen[s]) for x, s in (("x_t", "t"), ("x_u", "u")))
    np.testing.assert_allclose(eps_t, eps_u, atol=1e-5)  # one noise for both levels


def test_gradient_reaches_the_model_and_not_its_target(gaussian, key):
    x_0 = jnp.ones((8, *SHAPE))

    def scaled(factor):
        return lambda x, t: factor * x

    def losses(p, q):
        model, target = scaled(p), scaled(q)
        keys = jax.random.clone(key), jax.random.clone(key)
        cd = distillation.cd_loss(model, target, gaussian.denoise, NOISE, CD, x_0, keys[0])
        ct = training.ct_loss(model, target, NOISE, CT, jnp.asarray(5), x_0, keys[1])
        return jnp.stack([cd.mean(), ct.mean()])

    model, target = jax.jacobian(losses, argnums=(0, 1))(0.7, 0.5)
    assert (model != 0).all()
    assert (target == 0).all()


# ---- sampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_exact_map_samples_the_data_at_any_number_of_calls(gaussian, nfe):
    calls = []

    def model(x, t):
        calls.append(float(t[0]))
        return exact(gaussian)(x, t)

    keys = jax.random.split(jax.random.key(0), 5000)
    x = consistency.sample(model, NOISE, nfe, keys, SHAPE)
    assert x.std() == pytest.approx(gaussian.std, rel=0.02)
    grid = consistency.level(NOISE, jnp.arange(nfe, 0, -1), nfe)
    np.testing.assert_allclose(calls, grid, rtol=1e-5)


def test_samples_are_clipped_where_the_noise_says_so(gaussian):
    keys = jax.random.split(jax.random.key(0), 500)
    clipped = dataclasses.replace(NOISE, clip=True)
    wide = exact(gaussian._replace(std=2.0))
    assert np.abs(consistency.sample(wide, clipped, 2, keys, SHAPE)).max() == 1


# ---- networks ----------------------------------------------------------------------------------


def test_network_is_the_published_one():
    net = denoising_mlp.FourierMLP()
    example = jnp.zeros((1, 1, 3)), jnp.zeros((1, 1)), jnp.zeros((1, 11))
    params = jax.eval_shape(net.init, jax.random.key(0), *example)["params"]
    time, entry, exit = 64 * 128 + 128 + 128 * 64 + 64, (3 + 64 + 11 + 1) * 256, 257 * 3
    block = 2 * 256 + 257 * 1024 + 1025 * 256
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert weights == time + entry + 3 * block + exit


def test_network_sees_a_quarter_of_the_logarithm_of_the_level(weights):
    """A level times e^4 turns the angle of a frequency f by 2 pi f: here by whole turns."""
    net = denoising_mlp.FourierMLP(hidden=8, blocks=1, embed_dim=2, scale=1.0)
    (frequency,) = jax.random.normal(jax.random.key(embeddings.FREQUENCIES_SEED), (1,))
    params, x, cond = weights(net, 1), jnp.ones((1, *SHAPE)), jnp.ones((1, COND))

    def f(t):
        return net.apply({"params": params}, x, diffusion.c_noise(jnp.full((1, 1), t)), cond)

    turn = math.exp(4 / abs(float(frequency)))
    np.testing.assert_allclose(f(0.01), f(0.01 * turn), rtol=2e-3)
    assert np.abs(f(0.01) - f(0.01 * math.sqrt(turn))).max() > 0.01


@pytest.mark.parametrize("kind", ["cd", "ct"])
def test_model_is_the_identity_at_the_smallest_level(kind, weights, optimiser, sizes):
    """Whatever the teacher's scalings: it acts from sigma_max, here as good as sigma_min."""
    net, keys = denoising_mlp.FourierMLP(hidden=8, blocks=1), jax.random.split(jax.random.key(0))

    def change(sigma_max):
        fields = {"sigma_min": 0.5, "sigma_max": sigma_max, "initial_std": 1.0, "scaling": "edm"}
        noise = dataclasses.replace(NOISE, **fields)
        if kind == "cd":
            algorithm = distillation.make_cd(net, net, noise, CD, optimiser(), **sizes)
        else:
            algorithm = training.make_ct(net, noise, CT, optimiser(), **sizes)
        x = algorithm.act(weights(net, 1), jnp.ones((2, COND)), jax.random.clone(keys))
        start = consistency.sample(lambda x, t: x, noise, 1, jax.random.clone(keys), SHAPE)
        return np.abs(x - start).max()

    assert change(0.500001) < 1e-5
    assert change(1.0) > 0.1


# ---- algorithms --------------------------------------------------------------------------------


def test_distillation_starts_from_the_teachers_weights_if_told_to(weights, optimiser, sizes, tiny):
    net = tiny("small")
    for warm in (True, False):
        method = distillation.Distillation(warm_start=warm)
        cd = distillation.make_cd(net, net, NOISE, method, optimiser(), **sizes)
        state = cd.init(jax.random.key(0), {"teacher": weights(net, 1)})
        pairs = zip(*map(jax.tree.leaves, (state.params, weights(net, 1))), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) == warm


def test_teacher_denoises_in_its_own_scalings_and_the_student_in_those_of_a_boundary(
    gaussian, key, optimiser, sizes, tiny, toy
):
    net, noise = tiny("small"), dataclasses.replace(NOISE, sigma_min=0.5, scaling="edm")
    method = distillation.Distillation(warm_start=False)
    teacher_net = gaussian.net(noise)  # exact in these scalings alone
    cd = distillation.make_cd(net, teacher_net, noise, method, optimiser(), **sizes)
    state = jax.jit(cd.init)(jax.random.key(1), {"teacher": {}})
    _, metrics = jax.jit(cd.update)(state, toy, key)
    bounded = consistency.boundary(noise)
    f = consistency.consistency_map(net, state.params, bounded, toy.cond)
    key_loss, _ = jax.random.split(jax.random.clone(key))
    losses = distillation.cd_loss(f, f, gaussian.denoise, bounded, method, toy.x, key_loss)
    assert metrics["loss"] == pytest.approx(float(losses.mean()), rel=1e-4)


@pytest.mark.parametrize(("choice", "falls"), [("same", True), ("own", False), ("none", False)])
def test_dropout_of_the_target(choice, falls, optimiser, sizes, toy, draw):
    """At two levels that hardly differ, the same mask makes model and target nearly the same."""
    net = denoising_mlp.FourierMLP(hidden=32, blocks=2, embed_dim=8, scale=0.02, dropout=0.5)
    method = training.Training(s0=4000, s1=4000, target_dropout=choice, huber_c=0.01)
    ct = training.make_ct(net, NOISE, method, optimiser(steps=100), **sizes)
    state = ct.init(jax.random.key(0))
    _, metrics = jax.jit(ct.update)(state, draw(toy, jax.random.key(1)), jax.random.key(2))
    assert metrics["intervals"] == 4000
    assert (metrics["loss"] < 10) == falls


def test_curriculum_needs_one_compilation(optimiser, sizes, toy, draw, tiny):
    ct = training.make_ct(tiny("small"), NOISE, CT, optimiser(steps=800), **sizes)
    traced = []

    @jax.jit
    def update(state, batch, key):
        traced.append(None)
        return ct.update(state, batch, key)

    state, intervals = ct.init(jax.random.key(0)), []
    for step in (0, 100, 799):
        state = state.replace(step=jnp.asarray(step))
        batch = draw(toy, jax.random.key(1))
        state, metrics = update(state, batch, jax.random.key(step))
        intervals.append(metrics["intervals"])
    assert intervals == [10, 20, 1280]
    assert len(traced) == 1


def test_impossible_settings_are_refused():
    with pytest.raises(errors.FieldError, match="Did you mean 'ceil'"):
        training.Training(rounding="cell")
    with pytest.raises(errors.FieldError, match=r"^s1 is 10: at least 20"):
        training.Training(s0=20, s1=10)
    for field, value in (("s0", 0), ("p_std", 0.0), ("huber_c", -1.0), ("nfe", 0)):
        with pytest.raises(errors.FieldError, match=rf"^{field} is {value}"):
            training.Training(**{field: value})
    for field in ("intervals", "nfe"):
        with pytest.raises(errors.FieldError, match=rf"^{field} is 0"):
            distillation.Distillation(**{field: 0})


def test_warm_start_between_networks_that_differ_is_refused(optimiser, sizes, tiny):
    nets, method = (tiny("small"), tiny("small", hidden=4)), distillation.Distillation()
    with pytest.raises(errors.FieldError, match=r"^warm_start copies .* set it to False"):
        distillation.make_cd(*nets, NOISE, method, optimiser(steps=10), **sizes)
