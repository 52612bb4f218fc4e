"""Expectiles, and the fixed point of IQL on two states, are worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import load

from ractd_jax import config as configuration
from ractd_jax import errors, train_state
from ractd_jax.methods import iql, registry
from ractd_jax.nn import mlp
from ractd_jax.types import Transition

GAMMA = 0.9
EXAMPLES = jnp.array([0.0, 0.0, 1.0, 3.0])


def minimiser(tau, x=EXAMPLES):
    """The v of least expected loss, by Newton's method: the loss is quadratic piece by piece."""

    slope = jax.grad(lambda v: jnp.mean(iql.expectile(x - v, tau)))

    def newton(_, v):
        return v - slope(v) / jax.grad(slope)(v)

    return float(jax.jit(lambda v: jax.lax.fori_loop(0, 20, newton, v))(jnp.mean(x)))


def test_expectile_of_one_half_is_half_the_squared_error_and_its_minimiser_the_mean():
    np.testing.assert_allclose(iql.expectile(EXAMPLES, 0.5), 0.5 * EXAMPLES**2)
    np.testing.assert_allclose(iql.expectile(-EXAMPLES, 0.5), 0.5 * EXAMPLES**2)
    assert minimiser(0.5) == pytest.approx(float(jnp.mean(EXAMPLES)), abs=1e-6)


def test_expectiles_rise_from_the_worst_to_the_best():
    minima = [minimiser(tau) for tau in (0.0001, 0.1, 0.5, 0.7, 0.9, 0.9999)]
    assert minima == sorted(minima)
    assert minima[0] == pytest.approx(0, abs=0.01)
    assert minima[-1] == pytest.approx(3, abs=0.01)
    for tau in (0.2, 0.7):  # of 0 and 1, as often the one as the other
        assert minimiser(tau, jnp.array([0.0, 1.0])) == pytest.approx(tau, abs=1e-6)


# ---- two states ----------------------------------------------------------------------------------
#
#   at A   +1 leads to B, -1 leads back to A; neither earns anything
#   at B   the only action, 0, earns 1, and is the end (mask 0) or leads to B again (mask 1)
#
# States are seen one-hot, so linear networks hold any values of these three pairs.

A, B = (1.0, 0.0), (0.0, 1.0)


def two_states(mask):
    steps = [(A, 1.0, 0.0, B, 1.0), (A, -1.0, 0.0, A, 1.0), (B, 0.0, 1.0, B, mask)]
    cond, action, rewards, next_cond, masks = (jnp.array(c) for c in zip(*steps, strict=True))
    return Transition(action[:, None, None], cond, rewards, next_cond, masks)


def by_hand(tau, mask):
    """V(B), Q(A, +1), Q(A, -1), V(A)."""
    b = 1 / (1 - mask * GAMMA)
    high = GAMMA * b
    # The expectile of two numbers is tau high + (1 - tau) low, and low is gamma V(A).
    v = tau * high / (1 - (1 - tau) * GAMMA)
    return b, high, GAMMA * v, v


@pytest.fixture(scope="module")
def learnt(optimiser):
    """`(mask, **fields) -> (weights, policy's mean at A)` after 4,000 updates."""

    def learn(mask, **fields):
        method = iql.Iql(discount=GAMMA, **fields)
        linear = mlp.MLP((), 1)
        policy = mlp.GaussianPolicy((), 1)
        adam = optimiser(steps=4000, learning_rate=0.05, weight_decay=0.0, ema=0.9, ema_power=0.0)
        algorithm = iql.make_iql(linear, linear, policy, method, adam, shape=(1, 1), cond_dim=2)
        batch = two_states(mask)

        def run(key):
            key_init, key_update = jax.random.split(key)

            def body(i, state):
                return algorithm.update(state, batch, jax.random.fold_in(key_update, i))[0]

            state = jax.lax.fori_loop(0, 4000, body, algorithm.init(key_init))
            acts = algorithm.act(state.params, batch.cond[:1], jax.random.split(key_update, 1))
            values = algorithm.value(state.ema, batch.x, batch.cond)
            v = linear.apply({"params": state.params["v"]}, batch.cond)[:, 0]
            return values, v, acts[0, 0, 0]

        return jax.jit(run)(jax.random.key(0))

    return learn


@pytest.mark.parametrize(("tau", "mask"), [(0.5, 0.0), (0.9, 0.0), (0.7, 1.0)])
def test_two_states_reach_the_fixed_point_and_terminals_end_it(learnt, tau, mask):
    values, v, _ = learnt(mask, expectile=tau, temperature=0.1)
    b, high, low, a = by_hand(tau, mask)
    np.testing.assert_allclose(values, [high, low, b], rtol=0.01)
    np.testing.assert_allclose(v, [a, a, b], rtol=0.01)


def test_policy_is_the_mean_of_actions_weighted_by_their_advantage(learnt):
    _, high, low, _ = by_hand(0.7, 0.0)
    _, _, mean = learnt(0.0, temperature=1.5)
    # (e^x - e^y) / (e^x + e^y), x and y being 1.5 times the two advantages
    assert mean == pytest.approx(np.tanh(1.5 * (high - low) / 2), abs=0.01)


def test_weights_of_the_policy_are_bounded(learnt):
    _, _, low, v = by_hand(0.7, 0.0)
    _, _, mean = learnt(0.0, temperature=1.5, largest_weight=1.0)
    worse = np.exp(1.5 * (low - v))  # the better action weighs 1, not more
    assert mean == pytest.approx((1 - worse) / (1 + worse), abs=0.01)


def test_huge_advantages_weigh_no_more_than_the_bound():
    """A single step: the gradient of the imitation is finite however good an action is."""
    linear, policy = mlp.MLP((), 1), mlp.GaussianPolicy((), 1)
    batch = two_states(0.0)
    critic = {"kernel": jnp.zeros((3, 1)), "bias": jnp.full(1, 1e6)}  # every Q is a million
    adam = train_state.Optimiser(steps=1, warmup=0)
    algorithm = iql.make_iql(linear, linear, policy, iql.Iql(), adam, shape=(1, 1), cond_dim=2)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    twins = jax.tree.map(lambda a: jnp.stack([a, a]), {"output": {"linear": critic}})
    state = state.replace(ema=state.ema | {"q": twins})
    _, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(1))
    mean, log_std = policy.apply({"params": state.params["policy"]}, batch.cond)
    expected = -100 * jnp.mean(iql.log_prob(batch.x[:, 0], mean, log_std))
    assert metrics["imitation"] == pytest.approx(float(expected), rel=1e-5)


def test_smaller_of_two_critics_counts(optimiser):
    linear, policy = mlp.MLP((), 1), mlp.GaussianPolicy((), 1)
    sizes = {"shape": (1, 1), "cond_dim": 2}
    value = iql.make_iql(linear, linear, policy, iql.Iql(), optimiser(), **sizes).value
    zero = {"kernel": jnp.zeros((2, 1)), "bias": jnp.zeros(1)}
    twins = {"kernel": jnp.zeros((2, 3, 1)), "bias": jnp.array([[5.0], [2.0]])}
    q, v = ({"output": {"linear": layer}} for layer in (twins, zero))
    batch = two_states(0.0)
    _, adv, _ = iql.critic_loss(linear, linear, {"q": q, "v": v}, q, iql.Iql(), batch)
    np.testing.assert_array_equal(adv, [2] * 3)
    np.testing.assert_array_equal(value({"q": q}, batch.x, batch.cond), [2] * 3)


def test_log_density_is_the_gaussians_up_to_a_constant():
    mean, log_std = jnp.array([[0.2, -0.1]]), jnp.log(jnp.array([0.5, 2.0]))
    x = jnp.array([[0.7, 1.9]])
    z = np.array([1.0, 1.0])
    log_prob = iql.log_prob(x, mean, log_std)[0]
    assert log_prob == pytest.approx(-0.5 * np.sum(z**2) - np.log(0.5) - np.log(2.0), rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expectile", 1.0),
        ("expectile", 0.0),
        ("discount", 1.0),
        ("temperature", -1.0),
        ("largest_weight", 0.0),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(errors.FieldError, match=rf"^{field} is {value}"):
        iql.Iql(**{field: value})


def test_critic_and_value_are_normalised_as_asked_for_and_the_policy_is_not():
    config = registry.configure(load("hopper_mr", "iql,size=demo")[1])
    config = configuration.replace(config, iql__network=iql.Layers((8,), "relu", "after"))
    params = jax.eval_shape(registry.make(config, "iql").init, jax.random.key(0)).params
    assert set(params["q"]) == set(params["v"]) == {"dense0", "norm0", "output"}
    assert set(params["policy"]["mean"]) == {"dense0", "output"}
