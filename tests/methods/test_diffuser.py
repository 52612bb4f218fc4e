"""Guidance, in-painting and choice of plans; where the data is Gaussian all has a closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_config, tiny_pipeline, train

import ractd_jax
from ractd_jax import diffusion, errors
from ractd_jax.methods import ddpm, diffuser, diffuser_value, inpainting, registry, vp_schedule
from ractd_jax.policies import load
from ractd_jax.types import Batch

ACT, OBS, HORIZON, STD = 2, 3, 4, 0.5
SHAPE = (HORIZON, ACT + OBS)
PLAN = {"horizon": HORIZON, "act_dim": ACT, "obs_dim": OBS}
FREE = diffuser.Diffuser(guide_steps=0)


def nothing(x):
    """Know nothing."""
    return x


def exact(x, t, steps=20):
    """E[x_0 | x_t] where the data is N(0, STD^2)."""
    a = diffusion.expand(vp_schedule.alpha_bars(steps)[t])
    return jnp.sqrt(a) * STD**2 / (a * STD**2 + 1 - a) * x


def draw(method, rows=4000, known=nothing, **kwargs):
    def run(keys):
        return diffuser.sample(exact, method, known, keys, SHAPE, **kwargs)

    return jax.jit(run)(jax.random.split(jax.random.key(0), rows))


@pytest.mark.parametrize("ends", [1, 2])
def test_inpainting_sets_the_known_states_and_nothing_else(ends):
    x = jnp.arange(2 * HORIZON * (ACT + OBS), dtype=jnp.float32).reshape(2, *SHAPE)
    cond = -jnp.arange(1.0, 1 + 2 * ends * OBS).reshape(2, -1)
    known = np.array(inpainting.inpaint(x, cond, ACT))
    np.testing.assert_array_equal(known[:, 0, ACT:], cond[:, :OBS])
    if ends == 2:
        np.testing.assert_array_equal(known[:, -1, ACT:], cond[:, OBS:])
        known[:, -1, ACT:] = x[:, -1, ACT:]
    known[:, 0, ACT:] = x[:, 0, ACT:]
    np.testing.assert_array_equal(known, x)


@pytest.mark.parametrize("gives", ["states", "actions"])
def test_plans_keep_their_ends_exactly_even_outside_the_box(tiny, weights, optimiser, gives):
    net, method = tiny("mlp"), diffuser.Diffuser(steps=5, clip=True, guide_steps=0)
    algorithm = diffuser.make_diffuser(net, None, method, optimiser(), **PLAN, gives=gives)
    params = {"plan": weights(net, 1, shape=SHAPE, cond_dim=0)}
    cond = jnp.linspace(-1.3, 1.7, 12).reshape(2, 6)
    x = jax.jit(algorithm.act)(params, cond, jax.random.split(jax.random.key(0), 2))
    if gives == "actions":
        assert x.shape == (2, HORIZON, ACT)
        return
    assert x.shape == (2, HORIZON, OBS)
    np.testing.assert_array_equal(x[:, 0], cond[:, :3])
    np.testing.assert_array_equal(x[:, -1], cond[:, 3:])
    assert np.abs(x[:, 1:-1]).max() <= 1


def test_without_guidance_and_knowledge_it_is_a_ddpm():
    schedule = ddpm.Ddpm(20, sample_steps=20)

    def noise(x, t):
        a = diffusion.expand(vp_schedule.alpha_bars(20)[t])
        return (x - jnp.sqrt(a) * exact(x, t)) / jnp.sqrt(1 - a)

    keys = jax.random.split(jax.random.key(0), 5)
    expected = ddpm.sample(noise, schedule, keys, SHAPE, clip=False)
    x, values = draw(FREE, 5)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    assert not values.any()


def test_climbing_a_parabola_closes_in_by_a_constant_factor(key):
    x, peak = jax.random.normal(key, (3, *SHAPE)), 0.7

    def value(x):
        return -jnp.sum((x - peak) ** 2, axis=(1, 2)) / 2

    climbed, values = diffuser.guide(value, nothing, x, jnp.float32(0.25), steps=3)
    np.testing.assert_allclose(climbed - peak, 0.75**3 * (x - peak), rtol=1e-4, atol=1e-6)
    before = peak + 0.75**2 * (x - peak)
    np.testing.assert_allclose(values, value(before), rtol=1e-4)


def test_climbing_leaves_what_is_known_in_its_place():
    cond = jnp.ones((2, OBS))

    def known(x):
        return inpainting.inpaint(x, cond, ACT)

    x, _ = diffuser.guide(
        lambda x: jnp.sum(x, axis=(1, 2)), known, jnp.zeros((2, *SHAPE)), jnp.float32(0.1), 2
    )
    np.testing.assert_allclose(x[:, 0], [[0.2, 0.2, 1, 1, 1]] * 2, rtol=1e-6)
    np.testing.assert_allclose(x[:, 1:], 0.2, rtol=1e-6)


@pytest.mark.parametrize("stop", [0, 2, 20])
def test_guidance_shifts_the_mean_by_scale_times_posterior_variance_times_slope(stop):
    """With V = c x and the exact predictor every step is linear: the mean is a recursion."""
    slope = np.linspace(-1, 1, HORIZON * (ACT + OBS)).reshape(SHAPE)
    method = diffuser.Diffuser(guide_steps=2, guide_scale=0.6, guide_stop=stop)
    a = np.asarray(vp_schedule.alpha_bars(20), np.float64)
    mean = 0.0
    for now, after in itertools.pairwise(range(20, -1, -1)):
        kept = a[now] / a[after]
        if now > stop:
            mean += 2 * 0.6 * (1 - kept) * (1 - a[after]) / (1 - a[now])
        x_0 = np.sqrt(a[now]) * STD**2 / (a[now] * STD**2 + 1 - a[now]) * mean
        mean = np.sqrt(a[after]) * (1 - kept) * x_0 + np.sqrt(kept) * (1 - a[after]) * mean
        mean /= 1 - a[now]

    def value(x, t):
        return jnp.sum(jnp.asarray(slope, jnp.float32)[None] * x, axis=(1, 2))

    guided, _ = draw(method, 50, value=value)
    plain, _ = draw(FREE, 50)  # of the same noise
    np.testing.assert_allclose(guided - plain, np.tile(mean * slope, (50, 1, 1)), atol=1e-5)
    assert (mean > 0.1) == (stop < 20)


def test_loss_weighs_the_first_action_and_forgives_what_is_known(key):
    method = diffuser.Diffuser(action_weight=10.0)
    x_0, cond = jnp.zeros((3, *SHAPE)), jnp.zeros((3, 2 * OBS))
    wrong = jnp.ones(SHAPE).at[0, :ACT].set(2.0)

    def known(x):
        return inpainting.inpaint(x, cond, ACT)

    def predictor(x, t):
        return jnp.tile(wrong[None], (3, 1, 1))

    loss = diffuser.loss(predictor, method, known, x_0, key, ACT)
    total = 10 * ACT * 4 + (HORIZON - 1) * ACT + (HORIZON - 2) * OBS
    np.testing.assert_allclose(loss, total / (HORIZON * (ACT + OBS)), rtol=1e-6)


def test_noisy_plans_know_their_ends_and_have_the_schedules_variance(key):
    cond = jnp.full((20_000, OBS), 3.0)
    x_0 = jnp.zeros((20_000, *SHAPE))
    x, t = inpainting.noisy_plans(3, lambda x: inpainting.inpaint(x, cond, ACT), x_0, key)
    assert set(t.tolist()) == {1, 2, 3}
    assert (x[:, 0, ACT:] == 3).all()
    for step in (1, 2, 3):
        spread = np.asarray(x)[np.asarray(t) == step][:, 1:].std()
        np.testing.assert_allclose(spread, np.sqrt(1 - vp_schedule.alpha_bars(3)[step]), rtol=0.02)


@pytest.mark.parametrize("stage", ["diffuser", "diffuser_value"])
def test_training_shows_the_network_the_ends_of_its_plans(stage, key, optimiser):
    class Notes:
        def init(self, *example):
            return {"params": jnp.float32(1)}

        def apply(self, variables, x, times, cond, **kwargs):
            self.seen = x
            return variables["params"] * x

    net, adam = Notes(), optimiser()
    if stage == "diffuser":
        algorithm = diffuser.make_diffuser(net, None, FREE, adam, **PLAN, gives="states")
    else:
        algorithm = diffuser_value.make_value(net, FREE.steps, adam, **PLAN)
    cond = jnp.linspace(-1, 1, 3 * 2 * OBS).reshape(3, 2 * OBS)
    batch = Batch(jnp.zeros((3, *SHAPE)), cond, jnp.zeros(3))
    algorithm.update(algorithm.init(jax.random.key(1)), batch, key)
    np.testing.assert_array_equal(net.seen[:, 0, ACT:], cond[:, :OBS])
    np.testing.assert_array_equal(net.seen[:, -1, ACT:], cond[:, OBS:])


class Plan:
    """Half of what is noisy, whatever the noise."""

    def apply(self, variables, x, times, cond):
        assert cond.shape == (len(x), 0)
        return 0.5 * x


class Value:
    """A multiple of the second action's first number."""

    def apply(self, variables, x, times, cond):
        return variables["params"] * x[:, 1, 0]


def test_guidance_is_in_units_of_the_return(optimiser):
    """Plan and value are linear, so how far guidance leads is in proportion to the unit."""
    method = diffuser.Diffuser(steps=5, plans=1, guide_stop=0)
    algorithm = diffuser.make_diffuser(
        Plan(), Value(), method, optimiser(), **PLAN, gives="actions"
    )
    act, keys = jax.jit(algorithm.act), jax.random.split(jax.random.key(0), 3)

    def led(unit):
        params = {"plan": {}, "value": jnp.float32(1), "unit": jnp.float32(unit)}
        return act(params, jnp.zeros((3, OBS)), jax.random.clone(keys))[:, 1, 0]

    one = led(1.0) - led(0.0)
    assert (one > 0.01).all()
    np.testing.assert_allclose(led(100.0) - led(0.0), 100 * one, rtol=1e-3)


def test_the_plan_of_the_highest_value_is_the_one_that_acts(optimiser):
    chosen = {}
    for sign in (1.0, -1.0, 0.0):
        method = diffuser.Diffuser(steps=1, plans=5, guide_stop=1)
        algorithm = diffuser.make_diffuser(
            Plan(), Value(), method, optimiser(), **PLAN, gives="actions"
        )
        params = {"plan": {}, "value": jnp.float32(sign), "unit": jnp.float32(100.0)}
        keys = jax.random.split(jax.random.key(0), 3)
        chosen[sign] = algorithm.act(params, jnp.zeros((3, OBS)), keys)[:, 1, 0]
    assert (chosen[1.0] > chosen[0.0] - 1e-6).all()
    assert (chosen[-1.0] < chosen[0.0] + 1e-6).all()
    assert (chosen[1.0] - chosen[-1.0] > 0.1).all()


def test_impossible_settings_are_refused():
    for field in ("steps", "plans"):
        with pytest.raises(errors.FieldError, match=rf"^{field} is 0: at least 1"):
            diffuser.Diffuser(**{field: 0})
    with pytest.raises(errors.FieldError, match=r"^guide_scale is -1"):
        diffuser.Diffuser(guide_scale=-1.0)


def test_stage_trains_its_value_first_and_acts_alone(tmp_path):
    method = {"horizon": 8, "steps": 3, "plans": 2, "guide_stop": 1}
    train(tiny_pipeline("hopper_mr", tmp_path, diffuser={"method": method}), "diffuser")
    value, run = tmp_path / "run" / "diffuser_value", tmp_path / "run" / "diffuser"
    assert value.exists()
    value.rename(tmp_path / "moved")  # the run of the planner is whole without it
    model = load.load_model(run)
    assert set(model.saved["params"]) == {"plan", "value", "unit"}
    unit = 1 / model.saved["normalizer"].returns.scale
    np.testing.assert_allclose(model.saved["params"]["unit"], unit)
    action = ractd_jax.load_policy(run)(np.zeros(11))
    assert action.shape == (3,)
    pushed = ractd_jax.load_policy(run, guide_scale=50.0)(np.zeros(11))
    assert (action != pushed).any()


def test_value_is_trained_by_the_planners_horizon_and_steps(tmp_path):
    config = tiny_config("hopper_mr", tmp_path, diffuser={"method": {"horizon": 0, "steps": 7}})
    assert registry.horizon(config, "diffuser_value") == config.data.horizon
    assert registry.get("diffuser_value").depends(config) == {
        "diffuser.method.horizon": 0,
        "diffuser.method.steps": 7,
    }
    assert registry.needs(config, "diffuser") == {"diffuser_value": "diffuser_value"}
    assert registry.calls(config, "diffuser") == 7


def test_maze_planner_needs_no_value_and_refuses_to_be_guided(tmp_path):
    config = tiny_config("maze2d_umaze", tmp_path)
    assert registry.needs(config, "diffuser") == {}
    assert "diffuser_value" not in config.stages
    guided = tiny_config("maze2d_umaze", tmp_path, diffuser={"method": {"guide_steps": 2}})
    with pytest.raises(errors.UserError, match=r"^diffuser\.method\.guide_steps is 2: in a maze"):
        registry.make(guided, "diffuser")
