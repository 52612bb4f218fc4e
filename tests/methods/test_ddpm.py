"""Where the data is Gaussian the noise, the posterior and the limit of DDIM have closed forms."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE
from run_helpers import tiny_pipeline, train

import ractd_jax
from ractd_jax import diffusion, errors
from ractd_jax.methods import ddpm, registry, vp_schedule

STD = 0.5
FULL = ddpm.Ddpm(steps=100)


def exact(method):
    """E[eps | x_t] where the data is N(0, STD^2)."""

    def predictor(x, t):
        a = diffusion.expand(vp_schedule.alpha_bars(method.steps)[t])
        return jnp.sqrt(1 - a) / (a * STD**2 + 1 - a) * x

    return predictor


def start(method, keys):
    """The noise that sampling starts from."""
    fold = jax.random.fold_in
    return jax.vmap(lambda k: jax.random.normal(fold(k, method.steps), SHAPE))(keys)


def draw(method, rows=4000, clip=False, seed=0):
    def run(keys):
        return ddpm.sample(exact(method), method, keys, SHAPE, clip=clip)

    return np.asarray(jax.jit(run)(jax.random.split(jax.random.key(seed), rows)))


def test_schedule_falls_from_all_of_the_data_to_nearly_none():
    a = np.asarray(vp_schedule.alpha_bars(100), np.float64)
    betas = 1 - a[1:] / a[:-1]
    assert a[0] == 1
    assert a[-1] < 1e-5
    assert betas.max() == pytest.approx(0.999, abs=1e-6)

    def cosine(t):
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    np.testing.assert_allclose(a[:-1], cosine(np.arange(100) / 100) / cosine(0), rtol=2e-5)


@pytest.mark.parametrize(
    ("steps", "calls", "seen"), [(4, 4, [4, 3, 2, 1, 0]), (100, 1, [100, 0]), (9, 2, [9, 4, 0])]
)
def test_sampling_starts_where_x_is_noise_and_ends_at_the_data(steps, calls, seen):
    np.testing.assert_array_equal(ddpm.visited(ddpm.Ddpm(steps, sample_steps=calls)), seen)


@pytest.mark.parametrize(("t", "s"), [(100, 99), (50, 49), (50, 20), (1, 0)])
def test_posterior_is_bayes_rule(t, s):
    """q(x_s | x_t, x_0) by conditioning the joint normal of (x_s, x_t) given x_0."""
    a = np.asarray(vp_schedule.alpha_bars(100), np.float64)
    kept, x_0, x_t = a[t] / a[s], 0.3, -0.8
    covariance = np.sqrt(kept) * (1 - a[s])
    mean = np.sqrt(a[s]) * x_0 + covariance / (1 - a[t]) * (x_t - np.sqrt(a[t]) * x_0)
    deviation = np.sqrt(max(1 - a[s] - covariance**2 / (1 - a[t]), 0))
    x = jnp.full((1, 1, 1), x_t)
    posterior_mean, std = ddpm.posterior(
        x, jnp.full_like(x, x_0), jnp.float32(a[t]), jnp.float32(a[s])
    )
    np.testing.assert_allclose(posterior_mean[0, 0, 0], mean, rtol=1e-4)
    np.testing.assert_allclose(std, deviation, rtol=1e-3, atol=1e-6)


def test_ddim_keeps_data_and_noise(key):
    key_x, key_eps = jax.random.split(key)
    x_0, eps = jax.random.normal(key_x, (3, *SHAPE)), jax.random.normal(key_eps, (3, *SHAPE))
    a = vp_schedule.alpha_bars(100)

    def at(t):
        alpha, sigma = jnp.full(3, jnp.sqrt(a[t])), jnp.full(3, jnp.sqrt(1 - a[t]))
        return vp_schedule.add_noise(alpha, sigma, x_0, eps)

    x, deviation = ddpm.ddim(at(60), x_0, a[60], a[25])
    assert deviation is None
    np.testing.assert_allclose(x, at(25), atol=1e-5)


def test_loss_is_the_variance_that_the_exact_predictor_leaves(key):
    key_x, key_loss = jax.random.split(key)
    x_0 = STD * jax.random.normal(key_x, (20_000, *SHAPE))
    a = np.asarray(vp_schedule.alpha_bars(100)[1:])
    left = np.mean(a * STD**2 / (a * STD**2 + 1 - a))  # Var[eps | x_t], over all steps alike
    value = np.mean(ddpm.loss(exact(FULL), FULL, x_0, jax.random.clone(key_loss)))
    assert value == pytest.approx(left, rel=0.02)
    for factor in (0.8, 1.2):

        def off(x, t, factor=factor):
            return factor * exact(FULL)(x, t)

        assert np.mean(ddpm.loss(off, FULL, x_0, jax.random.clone(key_loss))) > value


def test_spread_of_ddpm_samples_is_worked_out_and_approaches_the_data():
    def spread(method):
        """With the exact predictor every step is linear: its variance is a recursion."""
        a = np.asarray(vp_schedule.alpha_bars(method.steps), np.float64)[
            np.asarray(ddpm.visited(method))
        ]
        variance = 1.0
        for now, after in itertools.pairwise(a):
            x_0 = np.sqrt(now) * STD**2 / (now * STD**2 + 1 - now)  # E[x_0 | x_t] / x_t
            kept = now / after
            slope = np.sqrt(after) * (1 - kept) * x_0 + np.sqrt(kept) * (1 - after)
            variance *= (slope / (1 - now)) ** 2
            variance += (1 - kept) * (1 - after) / (1 - now)
        return np.sqrt(variance)

    for method in (FULL, ddpm.Ddpm(100, sample_steps=15)):
        assert draw(method).std() == pytest.approx(spread(method), rel=0.02)
    assert spread(ddpm.Ddpm(2000, sample_steps=2000)) == pytest.approx(STD, rel=0.01)


def test_ddim_with_all_steps_approaches_the_ode(key):
    # The probability-flow ODE scales x_T, which has variance a std^2 + 1 - a, to the data.
    keys = jax.random.split(key, 50)
    gap = {}
    for steps in (25, 50, 1000):
        method = ddpm.Ddpm(steps, "ddim", steps)
        x = ddpm.sample(exact(method), method, jax.random.clone(keys), SHAPE, clip=False)
        gap[steps] = float(np.abs(x - STD * start(method, jax.random.clone(keys))).max())
    assert gap[50] < 0.7 * gap[25]
    assert gap[1000] < 0.02


def test_ddim_is_a_function_of_its_first_noise_and_ddpm_is_not(key):
    spread = {}  # of x_0 / x_T, which is one number if nothing else is drawn: all is linear
    for sampler in ddpm.SAMPLERS:
        method = ddpm.Ddpm(100, sampler, 10)
        keys = jax.random.split(jax.random.clone(key), 20)
        x = ddpm.sample(exact(method), method, jax.random.clone(keys), SHAPE, clip=False)
        spread[sampler] = np.std(x / start(method, jax.random.clone(keys)))
    assert spread["ddim"] < 1e-4
    assert spread["ddpm"] > 0.1


def test_clip_keeps_samples_in_the_box():
    wild = ddpm.Ddpm(100, "ddim", 10)

    def predictor(x, t):
        return -5 * x

    keys = jax.random.split(jax.random.key(0), 8)
    x = ddpm.sample(predictor, wild, keys, SHAPE, clip=True)
    assert np.abs(x).max() <= 1


@pytest.mark.parametrize(("sampler", "calls"), [("ddpm", 100), ("ddim", 15), ("ddim", 1)])
def test_network_is_called_once_a_step(key, optimiser, sizes, sampler, calls):
    seen = collections.Counter()

    class Net:
        def apply(self, variables, x, times, cond):
            jax.debug.callback(lambda t: seen.update([int(t)]), times[0, 0])
            return 0.1 * x

    method = ddpm.Ddpm(100, sampler, calls)
    algorithm = ddpm.make_ddpm(Net(), diffusion.Noise(), method, optimiser(), **sizes)
    act = jax.jit(algorithm.act)
    x = act({}, jnp.zeros((2, COND)), jax.random.split(key, 2))
    jax.effects_barrier()
    assert np.isfinite(x).all()
    assert sum(seen.values()) == calls
    assert max(seen) == 100
    assert 0 not in seen  # step 0 is clean data; there is nothing to predict


def test_impossible_settings_are_refused():
    with pytest.raises(errors.UserError, match="Did you mean 'ddim'"):
        ddpm.Ddpm(sampler="dimm")
    with pytest.raises(errors.FieldError, match=r"^sample_steps is 101: between 1 and steps"):
        ddpm.Ddpm(sample_steps=101)
    with pytest.raises(errors.FieldError, match=r"^steps is 0"):
        ddpm.Ddpm(steps=0)
    with pytest.raises(errors.FieldError, match="Choose from: cosine, vp"):
        ddpm.Ddpm(schedule="line")


def test_stage_trains_alone_and_acts_with_any_sampler(tmp_path):
    method = {"steps": 20, "sample_steps": 20}

    def make(**fields):
        return tiny_pipeline("hopper_mr", tmp_path, ddpm={"method": method | fields})

    train(make(), "ddpm")
    run = tmp_path / "run" / "ddpm"
    assert [folder.name for folder in run.parent.iterdir() if folder.is_dir()] == ["ddpm"]

    quick = make(sampler="ddim", sample_steps=3)
    assert registry.calls(quick.config, "ddpm") == 3
    train(quick, "ddpm", resume=True)  # the same run
    with pytest.raises(errors.UserError, match=r"ddpm\.method\.steps = 20, now it is 30"):
        train(make(steps=30), "ddpm", resume=True)

    obs = np.zeros(11)
    trained = ractd_jax.load_policy(run)(obs)
    quick = ractd_jax.load_policy(run, sampler="ddim", sample_steps=3)(obs)
    assert trained.shape == quick.shape == (3,)
    assert (trained != quick).any()
    with pytest.raises(errors.UserError, match="Did you mean 'sample_steps'"):
        ractd_jax.load_policy(run, sample_step=3)


def test_all_leaves_rivals_out():
    assert not registry.get("ddpm").trained_by_all
