"""The training set holds the episodes' own rows, normalised, and windows that stay inside them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STRUCTURES, transitions_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd_jax import errors
from ractd_jax.data import episodes, normalization, windows

PAPER = {"discount": 0.99, "termination_penalty": -100.0, "drop_last": False}


def batch_of(sample, data, **options):
    """Return the batch of the first key: one program, as in training."""
    draw = jax.jit(functools.partial(sample, **options))
    return jax.device_get(draw(data, jax.random.key(0)))


@settings(deadline=None, max_examples=12)
@given(STRUCTURES, st.booleans())
def test_sampled_windows_are_the_rows_of_one_episode(structure, drop_last):
    horizon = 4
    transitions = transitions_of(structure)
    options = PAPER | {"horizon": horizon, "drop_last": drop_last}
    if max((length for length, _ in structure[0]), default=0) < horizon + drop_last:
        with pytest.raises(errors.UserError, match="horizon 4 does not fit"):
            windows.build(transitions, **options)
        return
    data, normalizer = windows.build(transitions, **options)
    batch = batch_of(windows.sample_windows, data, batch_size=32, horizon=horizon)
    chex.assert_shape(batch, [(32, horizon, 2), (32, 3), (32,)])

    whole = episodes.complete(transitions)
    returns = episodes.returns_to_go(whole, 0.99, -100.0)
    owner = np.repeat(np.arange(len(structure[0])), episodes.lengths(whole))
    actions = normalization.unnormalize(batch.x, normalizer.actions)
    observations = normalization.unnormalize(batch.cond, normalizer.observations)
    returns_to_go = normalization.unnormalize(batch.returns, normalizer.returns)
    for window, obs, value in zip(actions, observations, returns_to_go, strict=True):
        row = int(np.abs(whole.observations - obs).sum(axis=1).argmin())
        np.testing.assert_allclose(whole.actions[row : row + horizon], window, atol=1e-5)
        np.testing.assert_allclose(value, returns[row], rtol=1e-4, atol=1e-3)
        assert owner[row] == owner[row + horizon - 1]


@pytest.mark.parametrize("horizon", [1, 4])
def test_plans_are_the_states_of_one_episode_given_their_ends(horizon):
    transitions = transitions_of(([(6, True), (9, False)], 0))
    data, normalizer = windows.build(transitions, **PAPER | {"horizon": horizon})
    batch = batch_of(windows.sample_plans, data, batch_size=64, horizon=horizon)
    chex.assert_shape(batch, [(64, horizon, 3), (64, 6), (64,)])
    np.testing.assert_array_equal(batch.cond[:, :3], batch.x[:, 0])
    np.testing.assert_array_equal(batch.cond[:, 3:], batch.x[:, -1])
    returns = episodes.returns_to_go(transitions, 0.99, -100.0)
    states = normalization.unnormalize(batch.x, normalizer.observations)
    returns_to_go = normalization.unnormalize(batch.returns, normalizer.returns)
    firsts = set()
    for window, value in zip(states, returns_to_go, strict=True):
        row = int(np.abs(transitions.observations - window[0]).sum(axis=1).argmin())
        np.testing.assert_allclose(transitions.observations[row : row + horizon], window, atol=1e-5)
        np.testing.assert_allclose(value, returns[row], rtol=1e-4, atol=1e-3)
        assert (row < 6) == (row + horizon - 1 < 6)
        firsts.add(row)
    assert len(firsts) == len(data.starts)


def test_everything_lies_in_the_unit_box_whatever_the_horizon():
    transitions = transitions_of(([(3, True), (9, True), (12, False)], 2))
    data, normalizer = windows.build(transitions, horizon=4, **PAPER)
    single, same = windows.build(transitions, horizon=1, **PAPER)
    assert data.observations.shape == (24, 3)
    assert len(data.starts) == 6 + 9
    assert len(single.starts) == 24
    for column in data[:3]:
        assert float(jnp.abs(column).max()) == pytest.approx(1.0, abs=1e-5)
    chex.assert_trees_all_equal(normalizer, same)
    chex.assert_trees_all_equal_shapes(normalizer, normalization.identity(3, 2))


def test_every_window_is_drawn_equally_often():
    data, _ = windows.build(transitions_of(([(6, True), (9, False)], 0)), horizon=4, **PAPER)
    draw = functools.partial(windows.sample_windows, batch_size=9000, horizon=4)
    batch = jax.jit(draw)(data, jax.random.key(1))
    counts = np.unique(np.asarray(batch.cond[:, 0]), return_counts=True)[1]
    assert len(counts) == len(data.starts) == 9
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_same_key_same_batch_other_key_other_batch():
    data, _ = windows.build(transitions_of(([(12, True)] * 5, 0)), horizon=4, **PAPER)
    draw = functools.partial(windows.sample_windows, data, batch_size=16, horizon=4)
    first, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first.cond, other.cond)


@pytest.mark.parametrize("history", [1, 3, 8])
def test_history_is_the_rows_before_oldest_first_and_repeats_an_episodes_first(history):
    transitions = transitions_of(([(6, True), (9, False)], 2))
    data, _ = windows.build(transitions, **PAPER | {"horizon": 2})
    assert data.episode_starts.tolist() == [0] * 6 + [6] * 9
    options = {"batch_size": 256, "horizon": 2}
    batch = batch_of(windows.sample_windows, data, **options, history=history)
    plain = batch_of(windows.sample_windows, data, **options)
    chex.assert_trees_all_equal(batch._replace(cond=plain.cond), plain)
    observations, drawn = np.asarray(data.observations), set()
    for cond, present in zip(np.asarray(batch.cond), np.asarray(plain.cond), strict=True):
        (row,) = np.flatnonzero((observations == present).all(axis=1))
        first = 0 if row < 6 else 6
        wanted = [max(row - k, first) for k in reversed(range(history))]
        np.testing.assert_array_equal(cond, observations[wanted].reshape(-1))
        drawn.add(int(row))
    assert drawn == set(data.starts.tolist())


def test_relabelled_plans_go_to_the_goal_and_rest_there():
    horizon, rows = 5, 4000
    transitions = transitions_of(([(6, True), (9, False)], 0))
    reached = np.isin(np.arange(15), [2, 9])  # besides 5 and 14, where the episodes end
    shifted = transitions._replace(observations=np.tile(transitions.observations[:, :1] + 1, 4))
    data, normalizer = windows.build(shifted, **PAPER | {"horizon": horizon}, reached=reached)
    assert data.segment_ends.tolist() == [2] * 3 + [5] * 3 + [9] * 4 + [14] * 5
    options = {"batch_size": rows, "horizon": horizon}
    plans = batch_of(windows.sample_plans, data, **options, goal_relabel=1.0)
    states = normalization.unnormalize(np.unique(plans.x, axis=0), normalizer.observations)
    row_of = {float(value): i for i, value in enumerate(shifted.observations[:, 0])}
    seen = set()
    for plan in states:
        first = row_of[min(row_of, key=lambda value: abs(value - plan[0, 0]))]
        steps = min(int(data.segment_ends[first]) - first, horizon - 1)
        wanted = shifted.observations[np.minimum(first + np.arange(horizon), first + steps)].copy()
        wanted[steps + 1 :, 2:] = 0.0
        np.testing.assert_allclose(plan, wanted, atol=1e-4)
        seen.add(first)
    assert seen == set(range(15))  # any row, those near the end of an episode too
    np.testing.assert_array_equal(plans.cond, plans.x[:, [0, -1]].reshape(rows, -1))
    both = batch_of(windows.sample_state_action, data, **options, goal_relabel=1.0, ends=2)
    np.testing.assert_array_equal(both.x[..., -4:], plans.x)
    distinct = np.unique(both.x, axis=0)
    states = normalization.unnormalize(distinct[..., -4:], normalizer.observations)
    actions = normalization.unnormalize(distinct[..., :-4], normalizer.actions)
    for plan, action in zip(states, actions, strict=True):
        first = row_of[min(row_of, key=lambda value: abs(value - plan[0, 0]))]
        driven = transitions.actions[first : int(data.segment_ends[first]) + 1][:horizon]
        np.testing.assert_allclose(action[: len(driven)], driven, atol=1e-4)
        np.testing.assert_allclose(action[len(driven) :], 0, atol=1e-4)

    half = batch_of(windows.sample_plans, data, **options, goal_relabel=0.5)
    whole = batch_of(windows.sample_plans, data, **options)
    same = (half.x == whole.x).all(axis=(1, 2))
    assert 0.5 < same.mean() < 0.65  # a way as long as the window is a window


@pytest.mark.parametrize("ends", [1, 2])
def test_state_action_windows_hold_action_and_state_of_each_row(ends):
    transitions = transitions_of(([(6, True), (9, False)], 0))
    data, _ = windows.build(transitions, **PAPER | {"horizon": 4})
    options = {"batch_size": 64, "horizon": 4}
    some = batch_of(windows.sample_windows, data, **options)
    plans = batch_of(windows.sample_plans, data, **options)
    both = batch_of(windows.sample_state_action, data, **options, ends=ends)
    np.testing.assert_array_equal(both.x, np.concatenate([some.x, plans.x], axis=-1))
    np.testing.assert_array_equal(both.cond, plans.cond[:, : 3 * ends])
    np.testing.assert_array_equal(both.returns, plans.returns)


def test_pairs_hold_an_action_and_the_states_around_it():
    data, _ = windows.build(transitions_of(([(6, True), (9, False)], 0)), horizon=2, **PAPER)
    some = batch_of(windows.sample_windows, data, batch_size=64, horizon=2)
    plans = batch_of(windows.sample_plans, data, batch_size=64, horizon=2)
    pairs = batch_of(windows.sample_pairs, data, batch_size=64, horizon=2)
    np.testing.assert_array_equal(pairs.x, some.x[:, :1])
    np.testing.assert_array_equal(pairs.cond, plans.cond)
