"""Numbers far from 0 keep their digits, on reading and on acting, and ordinary ones every bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import normalization, transitions, validation, windows
from ractd_jax.policies import policy, selection
from ractd_jax.types import Algorithm

N = 200
FAR = {  # the smallest value, and the range
    "position": (5_412_344.0, 2.0),
    "time": (1.7e9, 60.0),
    "jitter": (1.7e9, 1e-2),
    "below zero": (-5e6, 1.0),
}


def columns_of(low, size, dtype=np.float64):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(N, 3)).astype(np.float32).astype(dtype)
    observations[:, 1] = low + size * np.linspace(0, 1, N)
    return {
        "observations": observations,
        "actions": rng.uniform(-1, 1, (N, 2)),
        "rewards": np.ones(N),
        "terminals": np.zeros(N, bool),
        "timeouts": np.arange(N) % 20 == 19,
    }


def read(columns):
    return validation.check(columns, tasks.TaskSpec(tasks.CUSTOM), "robot.hdf5")


def build(recorded, word):
    return windows.build(
        recorded,
        horizon=4,
        discount=0.9,
        termination_penalty=0.0,
        drop_last=False,
        normalization=word,
    )


@pytest.mark.parametrize("name", FAR)
def test_far_values_are_normalised_as_near_ones(name):
    columns = columns_of(*FAR[name])
    data, normalizer = build(read(columns), "minmax")
    expected = np.linspace(-1, 1, N)
    assert data.observations.dtype == np.float32
    np.testing.assert_allclose(data.observations[:, 1], expected, atol=1e-3)
    near, plain = build(read(columns_of(0.0, 1.0)), "minmax")
    np.testing.assert_array_equal(data.observations[:, [0, 2]], near.observations[:, [0, 2]])
    assert plain.observations.origin.tolist() == [0, 0, 0]
    back = normalization.unnormalize(np.asarray(data.observations), normalizer.observations)
    np.testing.assert_allclose(back[:, 1], columns["observations"][:, 1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("word", ["standard", "none", "quantile"])
def test_other_normalisations_keep_the_digits_too(word):
    recorded = read(columns_of(*FAR["position"]))
    data, _ = transitions.build(recorded, normalization=word, reward_scale="none")
    x = np.asarray(data.observations[:, 1], np.float64)
    np.testing.assert_allclose((x - x.mean()) / x.std(), _standard(np.arange(N)), atol=1e-4)


def _standard(x):
    return (x - x.mean()) / x.std()


@pytest.mark.parametrize("name", FAR)
def test_a_policy_acts_on_far_observations_as_on_near_ones(name):
    columns = columns_of(*FAR[name])
    _, normalizer = build(read(columns), "minmax")

    def act(params, cond, keys):
        return jnp.broadcast_to(cond[:, None, 1:2], (len(cond), 4, 2))

    task = tasks.TaskSpec(
        tasks.CUSTOM, obs_dim=3, act_dim=2, action_low=(-9.0,), action_high=(9.0,)
    )
    same = normalization.identity(3, 2).actions
    normalizer = normalizer._replace(actions=same)
    acting = policy.Policy(Algorithm(init=None, update=None, act=act), {}, normalizer, task)
    actions = acting(columns["observations"])
    np.testing.assert_allclose(actions[:, 0], np.linspace(-1, 1, N), atol=1e-3)
    seeds = np.arange(N)
    np.testing.assert_array_equal(acting.act(columns["observations"], seeds, 0), actions)
    with pytest.raises(errors.UserError, match="NaN or infinity"):
        acting(np.full(3, 1e300))


def test_a_critic_of_another_origin_sees_the_same_digits():
    x = columns_of(*FAR["position"])["observations"]
    of_policy, of_critic = (
        normalization.minmax(x),
        normalization.minmax(x + 0.25 * (np.arange(3) == 1)),
    )
    same = normalization.identity(3, 2).actions
    value = selection.in_units_of(
        lambda params, x, cond: cond[:, 1], (of_policy, same), (of_critic, same)
    )
    seen = jax.jit(value)(
        {}, jnp.zeros((N, 1, 2)), jnp.asarray(normalization.normalize(x, of_policy))
    )
    np.testing.assert_allclose(seen, normalization.normalize(x, of_critic)[:, 1], atol=1e-5)
    assert normalization.gap(of_policy, of_critic) == pytest.approx(0.25, abs=1e-4)


def test_actions_that_float32_cannot_hold_are_refused():
    columns = columns_of(0.0, 1.0)
    columns["actions"][:, 1] += 5_412_345
    with pytest.raises(errors.UserError, match=r"actions: dimension 1 .*float32 has steps of 0\.5"):
        read(columns)


def test_ordinary_data_keep_every_bit():
    x = np.random.default_rng(1).normal(3, 2, size=(N, 3)).astype(np.float32)
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    scale = 2 / (high - low)
    scale, offset = scale.astype(np.float32), (-1 - scale * low).astype(np.float32)
    fitted = normalization.minmax(x)
    np.testing.assert_array_equal(normalization.normalize(x, fitted), x * scale + offset)
    centered = normalization.without_origin(fitted)
    np.testing.assert_array_equal(normalization.normalize(x, centered), x * scale + offset)


def test_quantiles_are_not_squeezed_by_a_glitch():
    columns = columns_of(0.0, 1.0)
    columns["observations"][7, 1] = -9999.0
    squeezed, _ = build(read(columns), "minmax")
    data, _ = build(read(columns), "quantile")
    others = np.arange(N) != 7
    assert np.ptp(squeezed.observations[others, 1]) < 1e-3
    assert np.ptp(data.observations[others, 1]) == pytest.approx(2.0, abs=0.1)
    assert data.observations[7, 1] == -normalization.BOUND
    rare = np.zeros((N, 1))
    rare[5] = 1.0  # a gripper that opens once is no glitch
    assert normalization.normalize(rare, normalization.quantile(rare))[5] == 1.0
