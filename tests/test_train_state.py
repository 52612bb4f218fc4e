"""Optimiser, schedule and average are the published ones, checked by hand."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax import errors, train_state


def run(optimiser, steps, gradient=1.0, start=0.0):
    """Return the states of a one-weight model under a constant gradient."""
    state = train_state.create({"w": jnp.float32(start)}, optimiser)

    def body(state, _):
        state = train_state.apply_gradients(state, {"w": jnp.float32(gradient)}, optimiser)
        return state, state

    return jax.jit(lambda state: jax.lax.scan(body, state, None, steps))(state)[1]


def test_learning_rate_warms_up_linearly_then_follows_a_cosine_to_zero():
    # Adam's step under a constant gradient is the learning rate itself.
    optimiser = train_state.Optimiser(
        steps=100, learning_rate=0.01, warmup=20, weight_decay=0.0, b1=0.0, b2=0.0
    )
    w = np.asarray(run(optimiser, 110).params["w"], np.float64)
    rates = -np.diff(w, prepend=0.0)
    k = np.arange(110)
    cosine = 0.005 * (1 + np.cos(np.pi * np.minimum((k - 20) / 80, 1)))
    np.testing.assert_allclose(rates, np.where(k < 20, 0.01 * k / 20, cosine), atol=1e-6)
    assert rates[0] == 0
    assert rates[20] == pytest.approx(0.01, rel=1e-3)
    assert rates[100:].max() < 1e-9


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_without_a_warm_up_the_first_update_is_a_whole_one(schedule):
    optimiser = train_state.Optimiser(
        steps=100, learning_rate=0.01, warmup=0, schedule=schedule, weight_decay=0.0
    )
    assert run(optimiser, 1).params["w"] == pytest.approx(-0.01, rel=1e-4)


def test_runs_shorter_than_the_warm_up_are_legal():
    assert np.isfinite(run(train_state.Optimiser(steps=5, warmup=10), 5).params["w"]).all()


def test_step_is_adamw_with_decoupled_decay():
    optimiser = train_state.Optimiser(
        steps=10**6, learning_rate=0.1, warmup=1, weight_decay=0.01, b1=0.9, b2=0.99
    )
    gradients = [0.5, -2.0, 1.0]
    state = train_state.create({"w": jnp.float32(3.0)}, optimiser)
    w, m, v = 3.0, 0.0, 0.0
    for k, g in enumerate(gradients):
        state = train_state.apply_gradients(state, {"w": jnp.float32(g)}, optimiser)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.99 ** (k + 1))
        rate = 0.0 if k == 0 else 0.1  # one update of warm-up
        w -= rate * (m_hat / (np.sqrt(v_hat) + 1e-8) + 0.01 * w)
        assert float(state.params["w"]) == pytest.approx(w, rel=1e-5)
    assert int(state.step) == 3


def test_average_decays_as_published():
    optimiser = train_state.Optimiser(steps=1)
    decays = [float(train_state.ema_decay(optimiser, jnp.int32(k))) for k in (0, 1, 2, 16, 10**6)]
    assert decays == pytest.approx([0.0, 0.0, 1 - 2**-0.75, 1 - 16**-0.75, 0.9999])


def test_average_without_warm_up_has_one_decay():
    optimiser = train_state.Optimiser(steps=1, ema=0.99, ema_power=0.0)
    decays = [float(train_state.ema_decay(optimiser, jnp.int32(k))) for k in (0, 5, 10**6)]
    assert decays == pytest.approx([0.99] * 3)


def test_average_follows_its_recursion():
    optimiser = train_state.Optimiser(steps=50, warmup=1, learning_rate=0.1)
    states = run(optimiser, 20, start=1.0)
    average = 1.0
    for k, w in enumerate(np.asarray(states.params["w"], np.float64)):
        decay = min(max(1 - max(k, 1) ** -0.75, 0.0), 0.9999)
        average = decay * average + (1 - decay) * w
        assert float(states.ema["w"][k]) == pytest.approx(average, abs=1e-6)


def test_average_of_decay_zero_is_the_live_weights():
    states = run(train_state.Optimiser(steps=50, warmup=1, learning_rate=0.1, ema=0.0), 10)
    np.testing.assert_array_equal(states.ema["w"], states.params["w"])


def test_new_state_can_be_donated(tiny, optimiser):
    params = {"w": jnp.ones(3)}
    state = train_state.create(params, optimiser(), frozen={"teacher": {"w": jnp.ones(3)}})
    buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)
    np.testing.assert_array_equal(state.ema["w"], params["w"])
    assert int(state.step) == 0


def test_frozen_weights_stay():
    optimiser = train_state.Optimiser(steps=10, warmup=1)
    state = train_state.create({"w": jnp.ones(3)}, optimiser, {"teacher": jnp.ones(2)})
    after = train_state.apply_gradients(state, {"w": jnp.ones(3)}, optimiser)
    np.testing.assert_array_equal(after.frozen["teacher"], np.ones(2))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("steps", [-1]),
        ("batch_size", [0]),
        ("learning_rate", [0.0, -1e-3, 1e20, float("nan")]),
        ("weight_decay", [-1e-6]),
        ("b1", [-0.1, 1.0, 1.5]),
        ("b2", [-0.1, 1.0]),
        ("warmup", [-1]),
        ("ema", [-0.1, 1.1]),
        ("ema_power", [-1.0]),
        ("clip", [-1.0]),
        ("schedule", ["cosin"]),
    ],
)
def test_number_out_of_range_is_refused_by_its_name(field, values):
    for value in values:
        with pytest.raises(errors.FieldError, match=re.escape(str(value))) as e:
            train_state.Optimiser(**{field: value})
        assert e.value.field == field
