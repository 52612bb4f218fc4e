"""The losses of Eqs. 5 to 9, against closed forms and the published procedure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SHAPE

from ractd_jax import ctm, diffusion, edm, errors

NOISE = diffusion.Noise()
ZERO = NOISE.sigma_min


# ---- G(x_T, T, 0) --------------------------------------------------------------------------------


def test_prediction_of_one_call_starts_at_sigma_max_and_is_never_clipped(key, gaussian):
    wide, keys = gaussian._replace(std=5.0), jax.random.split(key, 8)
    x_T = diffusion.initial(NOISE, jax.random.clone(keys), SHAPE)
    expected = wide.jump(x_T, jnp.full(8, NOISE.sigma_max), jnp.full(8, ZERO))
    assert np.abs(expected).max() > 1
    np.testing.assert_array_equal(ctm.from_noise(wide.jump, NOISE, keys, SHAPE), expected)


# ---- L_CTM ---------------------------------------------------------------------------------------


def exact_ctm_loss(gaussian, factor=1.0, **fields):
    student = ctm.Student(distance="squared", **fields)
    key_x, key_loss = jax.random.split(jax.random.key(0))
    x_0 = gaussian.std * jax.random.normal(key_x, (2000, *SHAPE))

    def model(x, t, s):
        return factor * gaussian.jump(x, t, s)

    return np.mean(
        ctm.ctm_loss(model, gaussian.jump, gaussian.denoise, NOISE, student, x_0, key_loss)
    )


def test_ctm_loss_of_the_exact_jump_vanishes_as_the_solver_is_refined(gaussian):
    coarse, fine = (exact_ctm_loss(gaussian, max_jump=20, solver_steps=n) for n in (2, 4))
    assert coarse > 10 * fine  # Heun: error / 4, squared error / 16
    shortest = exact_ctm_loss(gaussian, max_jump=1)
    assert fine > 10 * shortest
    assert shortest < 1e-6
    assert exact_ctm_loss(gaussian, max_jump=1, solver="euler") > 10 * shortest


def test_ctm_loss_of_another_jump_does_not_vanish(gaussian):
    assert exact_ctm_loss(gaussian, factor=1.1) > 1e-4


def published_triple_probabilities(max_jump, bins=80):
    """Enumerate P(t, u, s) of the released code, which draws one number after the other."""
    p = np.zeros((bins, bins + 1, bins + 1))
    for t in range(bins):
        for s in range(t, bins + 1):
            for u in range(t, s + 1):
                p[t, min(u, t + max_jump), s] += 1 / bins / (bins + 1 - t) / (s - t + 1)
    return p


@pytest.mark.parametrize("max_jump", [1, 4])
def test_triples_are_distributed_as_published(key, max_jump):
    n = 400_000
    expected = published_triple_probabilities(max_jump)
    assert expected.sum() == pytest.approx(1)
    drawn = [np.asarray(a) for a in ctm.triples(NOISE, key, n, max_jump)]
    counts = np.zeros(expected.shape)
    np.add.at(counts, tuple(drawn), 1)
    assert not counts[expected == 0].any()

    # Pearson's statistic over the cells that expect at least 5; its mean is their number.
    big = n * expected >= 5
    statistic = ((counts - n * expected)[big] ** 2 / (n * expected)[big]).sum()
    cells = big.sum()
    assert cells > 2000
    assert abs(statistic - cells) < 5 * np.sqrt(2 * cells)
    rest = n * expected[~big].sum()
    assert abs(counts[~big].sum() - rest) < 5 * np.sqrt(rest)


def test_triples_meet_as_often_as_published(key):
    expected = published_triple_probabilities(1)
    t, u, s = (np.asarray(a) for a in ctm.triples(NOISE, key, 400_000, 1))
    bin_ = np.arange(80)
    assert expected[bin_, bin_].sum() == pytest.approx(0.1526, abs=5e-5)
    assert expected[bin_, :, bin_].sum() == pytest.approx(0.0497, abs=5e-5)
    assert np.mean(u == t) == pytest.approx(0.1526, abs=0.003)
    assert np.mean(s == t) == pytest.approx(0.0497, abs=0.002)


@pytest.mark.parametrize("max_jump", [3, 17])
def test_long_triples_are_distributed_as_in_ctm(key, max_jump):
    bins, n = 20, 400_000
    noise = diffusion.Noise(bins=bins)
    expected = np.zeros((bins, bins, bins))
    for t in range(bins - 1):
        longest = min(max_jump, bins - 1 - t)
        for h in range(1, longest + 1):
            share = h / (longest * (longest + 1) / 2) / (bins - 1)
            expected[t, t + h, t + h :] = share / (bins - t - h)
    assert expected.sum() == pytest.approx(1)
    counts = np.zeros(expected.shape)
    np.add.at(counts, tuple(np.asarray(a) for a in ctm.long_triples(noise, key, n, max_jump)), 1)
    assert not counts[expected == 0].any()
    cells = expected > 0
    statistic = ((counts - n * expected)[cells] ** 2 / (n * expected)[cells]).sum()
    assert abs(statistic - cells.sum()) < 5 * np.sqrt(2 * cells.sum())


# ---- L_DSM ---------------------------------------------------------------------------------------


def test_dsm_loss_is_one_at_the_exact_denoiser_and_larger_elsewhere(gaussian):
    key_x, key_loss = jax.random.split(jax.random.key(0))
    x_0 = gaussian.std * jax.random.normal(key_x, (20_000, *SHAPE))

    def mean_loss(factor):
        def model(x, t, s):
            np.testing.assert_array_equal(s, np.full(len(x_0), np.float32(ZERO)))
            return factor * gaussian.denoise(x, t)

        key = jax.random.clone(key_loss)
        losses, prediction = ctm.dsm_loss(model, None, NOISE, "squared", x_0, key)
        assert prediction.shape == x_0.shape
        return np.mean(losses)

    assert mean_loss(1.0) == pytest.approx(1.0, abs=0.01)
    assert mean_loss(0.9) > mean_loss(1.0) < mean_loss(1.1)


@pytest.mark.parametrize(("stop", "same"), [("zero", False), ("level", True)])
def test_dsm_asks_for_the_stop_that_it_is_told(key, stop, same):
    stops = []

    def model(x, t, s):
        stops.append((np.asarray(t), np.asarray(s)))
        return x

    ctm.dsm_loss(model, None, NOISE, "huber", jnp.zeros((8, *SHAPE)), key, stop=stop)
    ((t, s),) = stops
    assert np.array_equal(t, s) == same
    assert same or (s == np.float32(NOISE.sigma_min)).all()


def test_dsm_scale_is_the_ratio_of_gradients_at_the_last_layer():
    params = {"input": jnp.array([1.0]), "output": jnp.array([2.0, 3.0])}

    def terms(params):
        w = params["output"] * params["input"]
        return ctm.Terms(3 * w[0] + 4 * w[1], 100 * params["input"][0] + 0.5 * w[0], jnp.zeros(()))

    assert float(ctm.dsm_scale(terms, params)) == pytest.approx(5 / 0.5, rel=1e-3)
    assert (
        float(ctm.dsm_scale(lambda p: terms(p)._replace(dsm=0.0 * p["output"][0]), params)) == 1e4
    )
    slope = jax.grad(lambda p: ctm.dsm_scale(terms, p))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))


def test_dsm_on_the_teacher_has_the_minimum_of_dsm_on_data_without_its_chance(gaussian):
    x_0 = gaussian.std * jax.random.normal(jax.random.key(0), (256, *SHAPE))

    def gradient(factor, teacher, key):
        def mean_loss(factor):
            def model(x, t, s):
                return factor * gaussian.denoise(x, t)

            return jnp.mean(ctm.dsm_loss(model, teacher, NOISE, "squared", x_0, key)[0])

        return float(jax.grad(mean_loss)(factor))

    keys = [jax.random.key(i) for i in range(20)]
    # At the exact denoiser: no gradient at all, where the data leave one of either sign.
    assert all(gradient(1.0, gaussian.denoise, jax.random.clone(k)) == 0 for k in keys)
    data = np.array([gradient(1.0, None, jax.random.clone(k)) for k in keys])
    assert data.std() > 0
    assert abs(data.mean()) < 4 * data.std() / np.sqrt(len(data))
    # Elsewhere: the same gradient on average.
    on_data = np.array([gradient(0.9, None, jax.random.clone(k)) for k in keys])
    on_teacher = np.array([gradient(0.9, gaussian.denoise, jax.random.clone(k)) for k in keys])
    difference = on_data - on_teacher
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(keys))


def test_ctm_loss_reaches_the_model_and_not_the_teacher(key, tiny, weights, toy):
    net, x_0, cond = tiny("small"), toy.x[:16], toy.cond[:16]
    student = ctm.Student()

    def loss_fn(student_weights, teacher_weights):
        def model(x, t, s):
            return ctm.jump(net, student_weights, NOISE, x, t, s, cond)

        def target(x, t, s):
            return ctm.jump(net, weights(net, 2, seed=2), NOISE, x, t, s, cond)

        def teacher(x, t):
            return edm.denoise(net, teacher_weights, NOISE, x, t, cond)

        return ctm.ctm_loss(model, target, teacher, NOISE, student, x_0, key).mean()

    live, teachers = jax.jit(jax.grad(loss_fn, argnums=(0, 1)))(weights(net, 2), weights(net, 1))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(live))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teachers))


# ---- advantage weights ---------------------------------------------------------------------------


def test_weights_are_exponentials_of_the_standardised_advantage_with_mean_one():
    returns, values = jnp.array([1.0, 4.0, 2.0]), jnp.array([0.0, 1.0, 3.0])
    advantage = np.array([1.0, 3.0, -1.0])
    expected = np.exp(0.5 * (advantage - advantage.mean()) / advantage.std())
    weights = ctm.advantage_weights(returns, values, 0.5)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)


def test_no_example_weighs_more_than_twenty_times_the_usual():
    returns = jnp.zeros(1000).at[0].set(1.0)  # 31 standard deviations above the others
    weights = ctm.advantage_weights(returns, jnp.zeros(1000), 1.0)
    assert float(weights[0] / weights[1]) == pytest.approx(20 / np.exp(-1 / 999**0.5), rel=1e-3)


# ---- Eq. 9 ---------------------------------------------------------------------------------------


def test_the_sum_weighs_each_term():
    terms = ctm.Terms(*jnp.array([5.0, 7.0, -11.0]))
    student = ctm.Student(ctm_weight=2.0, dsm_weight=3.0, reward_weight=0.5)
    assert float(ctm.student_loss(student, terms)) == 2 * 5 + 3 * 7 - 0.5 * 11
    for i, field in enumerate(["ctm_weight", "dsm_weight", "reward_weight"]):
        weights = {"ctm_weight": 0.0, "dsm_weight": 0.0, "reward_weight": 0.0} | {field: 1.0}
        assert float(ctm.student_loss(ctm.Student(**weights), terms)) == terms[i]


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("distance", "huberr"),
        ("dsm_stop", "levl"),
        ("dsm_goal", "dat"),
        ("balance", "gradients"),
        ("draw", "ctms"),
        ("reward_on", "stat"),
        ("reward_scale", "gradients"),
        ("solver", "huen"),
        ("target", "onlin"),
    ],
)
def test_unknown_option_is_refused_with_a_hint(field, word):
    with pytest.raises(errors.FieldError, match="Did you mean") as e:
        ctm.Student(**{field: word})
    assert e.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, 0) for field in ("nfe", "solver_steps", "max_jump")),
        *((f, -0.1) for f in ("ctm_weight", "dsm_weight", "reward_weight", "advantage")),
        ("reward_weight", float("nan")),
    ],
)
def test_number_out_of_range_is_refused_by_its_name(field, value):
    with pytest.raises(errors.FieldError) as e:
        ctm.Student(**{field: value})
    assert e.value.field == field
