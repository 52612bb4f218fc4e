"""A flow whose velocity is known ends at the data; the one-step policy follows flow and critic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE

from ractd_jax import errors
from ractd_jax.methods import fql
from ractd_jax.nn import mlp
from ractd_jax.types import Transition

MEAN, STD = 0.2, 0.15  # of data whose flow stays inside [-1, 1]
SIZES = {"shape": (1, SHAPE[1]), "cond_dim": COND}


def exact(a, t):
    """E[a - z | a_t] where the data is N(MEAN, STD^2)."""
    t = t[:, None]
    slope = (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2)
    return MEAN + slope * (a - t * MEAN)


def make(optimiser, hidden=(32, 32), **method):
    q_net = mlp.MLP(hidden, 1, "gelu", "after")
    net = mlp.MLP(hidden, SHAPE[1], "gelu", "")
    return fql.make_fql(q_net, net, net, fql.Fql(**method), optimiser, **SIZES)


# ---- the flow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_flow_to_one_point_arrives_from_everywhere_in_any_number_of_steps(key, steps):
    point = jnp.array([0.3, -0.7])

    def velocity(a, t):
        return (point[None] - a) / (1 - t[:, None])

    z = 3 * jax.random.normal(key, (50, 2))
    np.testing.assert_allclose(
        fql.follow(velocity, z, steps), jnp.broadcast_to(point, z.shape), atol=1e-5
    )


def test_flow_to_a_gaussian_scales_noise_to_it_with_an_error_of_first_order(key):
    z = jnp.clip(jax.random.normal(key, (200, 2)), -3, 3)
    gap = {n: np.abs(fql.follow(exact, z, n) - (MEAN + STD * z)).max() for n in (50, 100, 200)}
    assert gap[200] < 0.02
    assert gap[50] / gap[100] == pytest.approx(2, rel=0.15)
    assert gap[100] / gap[200] == pytest.approx(2, rel=0.15)


def test_flow_stays_in_the_range_of_actions(key):
    z = jax.random.normal(key, (20, 2))
    assert np.abs(fql.follow(lambda a, t: 10 * a, z, 5)).max() == 1


def test_flow_loss_is_the_variance_that_the_exact_velocity_leaves(key):
    key_a, key_loss = jax.random.split(key)
    action = MEAN + STD * jax.random.normal(key_a, (50_000, 2))
    t = np.linspace(0, 1, 10_001)
    covariance, variance = t * STD**2 - (1 - t), (1 - t) ** 2 + t**2 * STD**2
    left = np.mean(1 + STD**2 - covariance**2 / variance)  # Var[a - z | a_t], over all t alike
    value = fql.flow_loss(exact, action, key_loss)
    assert value == pytest.approx(left, rel=0.02)
    for factor in (0.9, 1.1):

        def off(a, t, factor=factor):
            return factor * exact(a, t)

        assert fql.flow_loss(off, action, jax.random.clone(key_loss)) > value


# ---- critic and policy ---------------------------------------------------------------------------


@pytest.mark.parametrize(("agg", "goals"), [("mean", [1 + 0.5 * 3, 1]), ("min", [1 + 0.5 * 2, 1])])
def test_critic_loss_by_hand(agg, goals):
    method = fql.Fql(q_agg=agg, discount=0.5)
    batch = Transition(
        jnp.zeros((2, 1, 1)),
        jnp.zeros((2, 1)),
        jnp.ones(2),
        jnp.zeros((2, 1)),
        jnp.array([1.0, 0.0]),  # a terminal: nothing after it counts
    )
    q = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    q_next = jnp.array([[2.0, 9.0], [4.0, 9.0]])
    expected = np.mean((np.asarray(q) - np.asarray(goals)) ** 2)
    assert fql.critic_loss(q, q_next, method, batch) == pytest.approx(expected)
    pull = jax.grad(lambda q_next: fql.critic_loss(q, q_next, method, batch))(q_next)
    assert not np.any(pull)  # targets are not taught


def test_update_looks_one_step_ahead_by_the_target_critic_and_the_live_policy(
    key, optimiser, half_over
):
    """All is linear: mu(s, z) is s's first numbers, Q is 0, and Q'(s, a) = s_2 + 2 a_0."""
    algorithm = make(optimiser(), (), flow_steps=1)
    state = jax.jit(algorithm.init)(key)
    live, target = (jax.tree.map(jnp.zeros_like, p) for p in (state.params, state.ema))
    live["policy"]["output"]["linear"]["kernel"] = jnp.eye(COND + 2, 2)
    target["q"]["output"]["linear"]["kernel"] = jnp.float32([[[0], [0], [1], [2], [0]]] * 2)
    state = state.replace(params=live, ema=target)
    _, metrics = jax.jit(algorithm.update)(state, half_over, jax.random.key(1))
    value = half_over.next_cond[:, 2] + 2 * half_over.next_cond[:, 0]
    expected = float(jnp.mean((half_over.rewards + 0.99 * half_over.masks * value) ** 2))
    assert metrics["q_loss"] == pytest.approx(expected, rel=1e-5)


def test_distillation_is_zero_where_one_step_ends_as_the_flow_does(key):
    z = jax.random.normal(key, (30, 2))
    goal = fql.follow(exact, z, 10)

    def distill(action, goal):
        return fql.policy_loss(action, goal, lambda a: jnp.zeros((2, len(a))), fql.Fql())[0]

    assert distill(goal, goal) == 0
    assert not np.any(jax.grad(distill)(goal, goal))
    assert distill(goal + 0.1, goal) == pytest.approx(0.01, rel=1e-4)
    assert not np.any(jax.grad(distill, argnums=1)(goal + 0.1, goal))  # the flow is not taught


@pytest.mark.parametrize("normalize", [True, False])
def test_normalised_q_loss_is_the_same_in_every_unit_of_reward(key, normalize):
    action = jax.random.uniform(key, (30, 2), minval=-0.9, maxval=0.9)

    def against_q(action, unit):
        def q(a):
            return unit * jnp.stack([1 + a[:, 0], 2 - a[:, 1] ** 2])

        return fql.policy_loss(action, action, q, fql.Fql(normalize_q_loss=normalize))[1]

    one, hundred = (jax.value_and_grad(against_q)(action, unit) for unit in (1.0, 100.0))
    if normalize:
        assert one[0] == pytest.approx(-1)  # where all values are above 0
        np.testing.assert_allclose(one[1], hundred[1], rtol=1e-5)
    else:
        np.testing.assert_allclose(100 * one[1], hundred[1], rtol=1e-5)


def test_policys_loss_moves_the_policy_alone(key, optimiser, steps):
    batch = jax.tree.map(lambda a: a[:32], steps)
    key_init, key_update = jax.random.split(key)
    after = {}
    for normalize in (True, False):
        method = {"flow_steps": 2, "alpha": 1.0, "normalize_q_loss": normalize}
        algorithm = make(optimiser(warmup=0), (8,), **method)
        state = jax.jit(algorithm.init)(jax.random.clone(key_init))
        update = jax.jit(algorithm.update)
        after[normalize] = update(state, batch, jax.random.clone(key_update))[0].params
    for name in ("q", "flow", "policy"):
        pairs = zip(*(jax.tree.leaves(after[n][name]) for n in (True, False)), strict=True)
        same = all(np.allclose(a, b, atol=1e-7) for a, b in pairs)
        assert same == (name != "policy")


def test_policy_finds_the_better_mode_of_the_data_and_the_flow_keeps_both(
    key, optimiser, steps, draw
):
    algorithm = make(optimiser(steps=800), alpha=1.0, normalize_q_loss=True)

    def body(i, state):
        key_batch, key_update = jax.random.split(jax.random.fold_in(key, i))
        return algorithm.update(state, draw(steps, key_batch), key_update)[0]

    state = jax.jit(lambda s: jax.lax.fori_loop(0, 800, body, s))(
        jax.jit(algorithm.init)(jax.random.key(1))
    )
    keys = jax.random.split(jax.random.key(2), 200)
    action = algorithm.act(state.params, steps.cond[:200], keys)[:, 0]
    assert (action[:, 0] > 0.3).mean() > 0.95  # the reward is its first number
    assert 0.2 < (action[:, 1] > 0).mean() < 0.8  # of the second it says nothing
    better, worse = (
        algorithm.value(state.params, jnp.full((200, 1, SHAPE[1]), a), steps.cond[:200])
        for a in (0.6, -0.6)
    )
    np.testing.assert_allclose(better, 0.6, atol=0.2)
    np.testing.assert_allclose(worse, -0.6, atol=0.2)


def test_impossible_settings_are_refused():
    with pytest.raises(errors.FieldError, match="Did you mean 'mean'"):
        fql.Fql(q_agg="men")
    for field, value in (("flow_steps", 0), ("alpha", -1.0), ("discount", 1.0)):
        with pytest.raises(errors.FieldError, match=rf"^{field} is {value}"):
            fql.Fql(**{field: value})


def test_layers_that_cannot_be_are_refused():
    for fields, text in (
        ({"hidden": ()}, "hidden is empty"),
        ({"hidden": (8, 0)}, "hidden is 0"),
        ({"activation": "swish"}, "Choose from: gelu, mish, relu"),
        ({"layer_norm": "befor"}, "Did you mean 'before'"),
    ):
        with pytest.raises(errors.FieldError, match=text):
            fql.Layers(**fields)
