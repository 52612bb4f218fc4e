"""Single steps: which can be drawn, what came after them, and how they are normalised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STRUCTURES, transitions_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd_jax import config, errors
from ractd_jax.data import episodes, normalization, transitions

# The drawing in the module: one episode fails at row 4, the other is cut at row 8.
DRAWN = ([(5, True), (4, False)], 0)
PLAIN = {"normalization": "none", "reward_scale": "none"}


def test_rows_that_nothing_came_after_are_left_out():
    data, _ = transitions.build(transitions_of(DRAWN), **PLAIN)
    assert data.starts.tolist() == list(range(8))
    assert np.flatnonzero(data.masks == 0).tolist() == [4]


def test_a_row_that_fails_at_the_time_limit_has_failed():
    both = transitions_of(DRAWN)
    both = both._replace(timeouts=both.timeouts | both.terminals)
    data, _ = transitions.build(both, **PLAIN)
    assert data.starts.tolist() == list(range(8))
    assert np.flatnonzero(data.masks == 0).tolist() == [4]


@settings(deadline=None, max_examples=20)
@given(STRUCTURES)
def test_next_observation_is_of_the_same_episode(structure):
    recorded = transitions_of(structure)
    whole = episodes.complete(recorded)
    # Steps that know what came after: all but the last of a cut episode.
    lengths = [length - (not terminal) for length, terminal in structure[0]]
    if not sum(lengths):
        with pytest.raises(errors.UserError, match="two steps"):
            transitions.build(recorded, **PLAIN)
        return
    data, _ = transitions.build(recorded, **PLAIN)
    assert len(data.starts) == sum(lengths)
    episode = np.repeat(range(len(structure[0])), [length for length, _ in structure[0]])
    batch = transitions.take(data, data.starts)
    rows = np.asarray(data.starts)
    alive = np.asarray(batch.masks) > 0
    assert (alive == ~whole.terminals[rows]).all()
    assert (episode[rows[alive] + 1] == episode[rows[alive]]).all()
    after = whole.observations[rows[alive] + 1]
    np.testing.assert_array_equal(np.asarray(batch.next_cond)[alive], after)
    np.testing.assert_array_equal(batch.cond, whole.observations[rows])
    np.testing.assert_array_equal(batch.x[:, 0], whole.actions[rows])
    np.testing.assert_array_equal(batch.rewards, whole.rewards[rows])


@settings(deadline=None, max_examples=10)
@given(STRUCTURES, st.integers(0, 2**31 - 1))
def test_batches_hold_steps_that_can_be_drawn(structure, seed):
    if not sum(length - (not terminal) for length, terminal in structure[0]):
        return
    data, _ = transitions.build(transitions_of(structure), **PLAIN)
    batch = transitions.sample(data, jax.random.key(seed), batch_size=16)
    assert batch.x.shape == (16, 1, 2)
    legal = np.asarray(data.observations)[np.asarray(data.starts)]
    assert all((legal == row).all(axis=1).any() for row in np.asarray(batch.cond))


def test_every_step_is_drawn_as_often_as_any_other():
    data, _ = transitions.build(transitions_of(DRAWN), **PLAIN)
    batch = transitions.sample(data, jax.random.key(0), batch_size=8000)
    counts = [(batch.rewards == r).sum() for r in data.rewards[:8]]
    assert sum(counts) == 8000
    assert np.abs(np.array(counts) - 1000).max() < 4 * np.sqrt(8000 / 8 * 7 / 8)


@settings(deadline=None, max_examples=20)
@given(STRUCTURES)
def test_scaled_returns_span_a_thousand(structure):
    recorded = transitions_of(structure)
    returns = episodes.returns(recorded)
    if len(returns) < 2 or not sum(length - (not end) for length, end in structure[0]):
        return
    data, _ = transitions.build(recorded, normalization="none", reward_scale="range")
    scaled = episodes.complete(recorded)._replace(rewards=np.asarray(data.rewards))
    found = episodes.returns(scaled)
    assert found.max() - found.min() == pytest.approx(1000, rel=1e-3)
    assert transitions.build(recorded, **PLAIN)[0].rewards.tolist() == pytest.approx(
        episodes.complete(recorded).rewards.tolist()
    )


LONG = ([(50, True), (70, False)], 3)


def test_standard_normalisation_is_of_observations_alone():
    recorded = transitions_of(LONG)
    far = recorded._replace(observations=5 * recorded.observations + 3)
    data, _ = transitions.build(far, normalization="standard", reward_scale="none")
    np.testing.assert_allclose(data.observations.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.observations.std(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(data.actions, recorded.actions[:120])


@pytest.mark.parametrize("word", config.NORMALIZATIONS)
def test_actions_of_any_unit_come_within_the_bounds_of_policies(word):
    recorded = transitions_of(LONG)
    far = recorded._replace(actions=3 * recorded.actions / np.abs(recorded.actions).max() + 1)
    data, normalizer = transitions.build(far, normalization=word, reward_scale="none")
    assert np.abs(data.actions).max() <= 1 + 1e-5
    back = normalization.unnormalize(data.actions, normalizer.actions)
    np.testing.assert_allclose(back, far.actions[:120], atol=1e-5)


def test_minmax_spans_observations_and_actions():
    data, _ = transitions.build(transitions_of(LONG), normalization="minmax", reward_scale="none")
    for field in (data.observations, data.actions):
        np.testing.assert_allclose(field.min(axis=0), -1, atol=1e-5)
        np.testing.assert_allclose(field.max(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("word", config.NORMALIZATIONS)
def test_the_normalizer_leads_back_to_the_recorded_numbers(word):
    recorded = transitions_of(LONG)
    data, normalizer = transitions.build(recorded, normalization=word, reward_scale="none")
    for field, affine in (
        ("observations", normalizer.observations),
        ("actions", normalizer.actions),
    ):
        back = normalization.unnormalize(getattr(data, field), affine)
        np.testing.assert_allclose(back, getattr(recorded, field)[:120], atol=1e-5)
    # Another data set seen through the same normalizer, as the critic of a policy sees its data.
    other = recorded._replace(observations=recorded.observations + 1)
    again, kept = transitions.build(
        other, normalization="none", reward_scale="none", normalizer=normalizer
    )
    assert kept is normalizer
    expected = data.observations + jnp.asarray(normalizer.observations.scale)[None]
    np.testing.assert_allclose(again.observations, expected, atol=1e-4)


def test_unknown_words_are_refused():
    for word, fields in (
        ("minmax", {"normalization": "minma"}),
        ("range", {"reward_scale": "rang"}),
    ):
        with pytest.raises(errors.UserError, match=f"Did you mean '{word}'"):
            transitions.build(transitions_of(DRAWN), **PLAIN | fields)
