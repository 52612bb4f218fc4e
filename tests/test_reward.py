"""The return model values (action, observation) pairs, alone or as a pessimistic ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE

from ractd_jax import errors, reward, train_state


class Constant:
    """A network that answers its only weight, whatever it is asked."""

    def apply(self, variables, inputs):
        return jnp.broadcast_to(variables["params"], len(inputs))


def value_of(members, pessimism, batch=3):
    model = reward.ReturnModel(members=len(members), pessimism=pessimism)
    x, cond = jnp.zeros((batch, *SHAPE)), jnp.zeros((batch, COND))
    return reward.value(Constant(), jnp.asarray(members), model, x, cond)


# ---- what it sees and says -----------------------------------------------------------------------


def test_inputs_are_the_first_action_then_the_observation():
    x = jnp.arange(2 * np.prod(SHAPE), dtype=jnp.float32).reshape(2, *SHAPE)
    cond = -jnp.arange(2.0 * COND).reshape(2, COND)
    np.testing.assert_array_equal(reward.inputs(x, cond), [[0, 1, 0, -1, -2], [8, 9, -3, -4, -5]])


@pytest.mark.parametrize("pessimism", [0.0, 0.5, 2.0])
def test_value_is_the_mean_less_pessimism_standard_deviations(pessimism):
    members = np.array([1.0, 2.0, 6.0], np.float32)
    expected = members.mean() - pessimism * members.std()
    np.testing.assert_allclose(value_of(members, pessimism), np.full(3, expected), rtol=1e-5)


@pytest.mark.parametrize("pessimism", [0.0, 2.0])
def test_value_of_one_member_is_that_member(pessimism):
    np.testing.assert_allclose(value_of([3.0], pessimism), [3.0] * 3, atol=1e-5)


def test_pessimism_keeps_gradients_finite_where_members_agree():
    gradient = jax.grad(lambda members: value_of(members, 1.0).sum())(jnp.array([2.0, 2.0]))
    assert np.isfinite(gradient).all()


def test_value_is_differentiable_in_the_first_action_only(key, tiny, toy):
    net, model = tiny("return"), reward.ReturnModel(members=2, pessimism=0.5)
    shapes = jax.eval_shape(net.init, key, jnp.zeros((1, SHAPE[1] + COND)))["params"]
    params = jax.tree.map(lambda a: jnp.linspace(-1, 1, 2 * a.size).reshape(2, *a.shape), shapes)
    x, cond = toy.x[:8], toy.cond[:8]
    slope = jax.jit(jax.grad(lambda x: reward.value(net, params, model, x, cond).sum()))(x)
    assert (np.abs(slope[:, 0]).sum(axis=-1) > 0).all()
    assert not np.any(slope[:, 1:])


def test_the_value_of_a_plan_is_the_sum_of_its_states(key, tiny, toy):
    net, model = tiny("return"), reward.ReturnModel(members=2, pessimism=0.0)
    shapes = jax.eval_shape(net.init, key, jnp.zeros((1, SHAPE[1])))["params"]
    params = jax.tree.map(lambda a: jnp.linspace(-1, 1, 2 * a.size).reshape(2, *a.shape), shapes)
    x, cond = toy.x[:8], toy.cond[:8]

    def value(x):
        return reward.value(net, params, model, x, cond, reward.states)

    single = sum(value(x[:, j : j + 1]) for j in range(SHAPE[0]))
    np.testing.assert_allclose(value(x), single, rtol=1e-4)
    slope = jax.grad(lambda x: value(x).sum())(x)
    assert (np.abs(slope).sum(axis=-1) > 0).all()
    np.testing.assert_array_equal(reward.states(x, cond), x.reshape(-1, SHAPE[1]))


# ---- loss ----------------------------------------------------------------------------------------

RETURNS = jnp.array([0.0, 0.0, 1.0, 1.0])


def test_expectile_of_a_half_is_the_squared_error():
    prediction = jnp.array([-0.3, 0.4, 1.5, 1.0])
    expected = (prediction - RETURNS) ** 2
    np.testing.assert_allclose(reward.loss(prediction, RETURNS, 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.95])
def test_expectile_of_a_fair_coin_is_tau(expectile):
    # The minimiser m of tau (1 - m)^2 + (1 - tau) m^2.
    guesses = np.linspace(0, 1, 1001, dtype=np.float32)
    losses = [np.mean(reward.loss(jnp.full(4, m), RETURNS, expectile)) for m in guesses[::50]]
    assert guesses[::50][np.argmin(losses)] == pytest.approx(expectile)


# ---- learning ------------------------------------------------------------------------------------


def make(tiny, optimiser, sizes, **fields):
    return reward.make_return_model(
        tiny("return"), reward.ReturnModel(**fields), optimiser(), **sizes
    )


def test_members_differ_and_each_learns_as_if_it_were_alone(tiny, optimiser, sizes, toy):
    pair, single = (make(tiny, optimiser, sizes, members=n) for n in (2, 1))
    state = jax.jit(pair.init)(jax.random.key(0))
    for leaf in jax.tree.leaves(state.params):
        assert not np.allclose(leaf[0], leaf[1])
    alone = train_state.create(jax.tree.map(lambda a: a[1:], state.params), optimiser())
    batch = jax.tree.map(lambda a: a[:32], toy)
    update_pair, update_single = jax.jit(pair.update), jax.jit(single.update)
    for i in range(3):
        state, _ = update_pair(state, batch, jax.random.key(i))
        alone, _ = update_single(alone, batch, jax.random.key(i))
    for both, one in zip(*map(jax.tree.leaves, (state.params, alone.params)), strict=True):
        np.testing.assert_allclose(both[1], one[0], atol=1e-5)
    members = reward.predict(tiny("return"), state.params, batch.x, batch.cond)
    reported = float(update_pair(state, batch, jax.random.key(3))[1]["loss"])
    expected = float(np.mean((members - batch.returns[None]) ** 2))
    assert reported == pytest.approx(expected, rel=1e-4)


def test_learns_returns_that_grow_with_the_action(tiny, optimiser, sizes, toy, draw):
    algorithm = make(tiny, optimiser, sizes, members=2)
    state = jax.jit(algorithm.init)(jax.random.key(0))

    def body(i, state):
        key = jax.random.fold_in(jax.random.key(1), i)
        return algorithm.update(state, draw(toy, key), jax.random.key(2))[0]

    state = jax.jit(lambda state: jax.lax.fori_loop(0, 300, body, state))(state)
    predicted = reward.predict(tiny("return"), state.ema, toy.x, toy.cond)
    assert predicted.shape == (2, len(toy.returns))
    error = np.mean((predicted - toy.returns[None]) ** 2)
    assert error < 0.02 * np.var(toy.returns)


def test_drawn_members_are_distinct_and_on_average_all_of_them():
    params = {"w": jnp.arange(5.0)}
    model = reward.ReturnModel(members=5, drawn=2)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.vmap(lambda key: reward.draw(params, model, key)["w"])(keys)
    assert drawn.shape == (2000, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    shares = np.bincount(np.asarray(drawn, int).ravel(), minlength=5) / drawn.size
    np.testing.assert_allclose(shares, 0.2, atol=0.02)


def test_all_members_are_asked_where_none_are_drawn():
    params = {"w": jnp.arange(5.0)}
    for drawn in (0, 5):
        model = reward.ReturnModel(members=5, drawn=drawn)
        assert reward.draw(params, model, jax.random.key(0)) is params


def test_key_of_the_value_draws_the_members_that_are_asked(tiny, optimiser, sizes):
    algorithm = make(tiny, optimiser, sizes, members=4, drawn=1)
    params = algorithm.init(jax.random.key(0)).params
    x, cond = jnp.ones((1, *SHAPE)), jnp.ones((1, COND))
    members = reward.predict(tiny("return"), params, x, cond)[:, 0]
    drawn = [algorithm.value(params, x, cond, jax.random.key(i))[0] for i in range(16)]
    assert {round(float(v), 4) for v in drawn} == {round(float(v), 4) for v in members}
    np.testing.assert_allclose(algorithm.value(params, x, cond)[0], members.mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("drawn", {"members": 2, "drawn": 3}),
        ("drawn", {"members": 3, "drawn": -1}),
        ("members", {"members": 0}),
        ("pessimism", {"pessimism": -0.5}),
        ("pessimism", {"pessimism": 1.0, "members": 6, "drawn": 1}),
        ("expectile", {"expectile": 0.0}),
        ("expectile", {"expectile": 1.0}),
    ],
)
def test_impossible_models_are_refused_by_their_field(field, fields):
    with pytest.raises(errors.FieldError) as e:
        reward.ReturnModel(**fields)
    assert e.value.field == field


# ---- L_R -----------------------------------------------------------------------------------------


def critic(x):
    """A return that looks at the first action, and matters more in some rows than in others."""
    rows = jnp.arange(1.0, len(x) + 1)
    return rows * jnp.sum(x[:, 0] + 0.1 * x[:, 0] ** 2, axis=-1)


def reward_gradient(x, critic=critic, **fields):
    return np.asarray(jax.grad(lambda x: reward.reward_loss(critic, x, **fields)[0])(x))


@pytest.fixture
def actions():
    return jnp.linspace(-0.9, 0.9, 6 * int(np.prod(SHAPE))).reshape(6, *SHAPE)


@pytest.mark.parametrize("clip", [True, False])
def test_reward_loss_is_minus_the_mean_value_and_has_its_gradient(actions, clip):
    """The expansion that is computed equals Eq. 8 as it is written, also outside the data."""
    actions = actions.at[1, 0, 0].set(1.5)

    def plain(x):
        return -jnp.mean(critic(jnp.clip(x, -1, 1) if clip else x))

    def fast(x):
        return reward.reward_loss(critic, x, clip=clip)[0]

    assert float(fast(actions)) == pytest.approx(float(plain(actions)), rel=1e-6)
    gradient = jax.grad(plain)(actions)
    assert gradient[:, 0].any()
    np.testing.assert_allclose(jax.grad(fast)(actions), gradient, rtol=1e-6)


def test_reward_loss_reports_the_value_of_each_trajectory(actions):
    outside = actions.at[1, 0, 0].set(1.5)
    for clip, seen in ((False, outside), (True, jnp.clip(outside, -1, 1))):
        values = reward.reward_loss(critic, outside, clip=clip, scale="gradient")[1]
        np.testing.assert_allclose(values, critic(seen), rtol=1e-6)


@pytest.mark.parametrize("scale", reward.SCALES)
def test_loss_and_scale_take_one_pass_of_the_critic(actions, scale):
    calls = []

    def counted(x):
        calls.append(x)
        return critic(x)

    reward_gradient(actions, counted, scale=scale)
    assert len(calls) == 1


@pytest.mark.parametrize("scale", reward.SCALES)
def test_clipped_reward_has_no_gradient_outside_the_range_of_the_data(actions, scale):
    outside = actions.at[1, 0, 0].set(1.5).at[2, 0, 1].set(-1.5)
    gradient = reward_gradient(outside, clip=True, scale=scale)
    assert gradient[1, 0, 0] == 0
    assert gradient[2, 0, 1] == 0
    assert (gradient[:, 0] != 0).sum() == gradient[:, 0].size - 2  # all other first actions
    unclipped = reward_gradient(outside, clip=False, scale=scale)
    assert (unclipped[:, 0] != 0).all()


@pytest.mark.parametrize("scale", reward.SCALES)
def test_reward_climbs_and_pulls_what_the_critic_sees_alone(actions, scale):
    gradient = reward_gradient(actions, scale=scale)
    assert (gradient[:, 0] < 0).all()
    assert not gradient[:, 1:].any()


def test_gradient_scale_makes_the_weight_independent_of_the_unit_of_the_return(actions):
    pulls = [
        reward_gradient(actions, lambda x, unit=unit: unit * critic(x), scale="gradient")
        for unit in (0.01, 1.0, 1000.0)
    ]
    for pull in pulls[1:]:
        np.testing.assert_allclose(pull, pulls[0], rtol=1e-3, atol=1e-6)


def test_gradient_scale_makes_the_mean_length_of_the_pull_one(actions):
    pull = -len(actions) * reward_gradient(actions, scale="gradient")
    slope = -len(actions) * reward_gradient(actions, scale="none")
    lengths = np.sqrt((pull**2).sum(axis=(1, 2)))
    assert lengths.mean() == pytest.approx(1, rel=1e-4)
    ratio = pull[:, 0] / slope[:, 0]  # one number for the batch: directions and proportions stay
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-4)
