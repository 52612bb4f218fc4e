"""One compiled loop trains a whole run, and how it is cut into dispatches changes no bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax import train_state
from ractd_jax.training import loop
from ractd_jax.types import Algorithm

pytestmark = pytest.mark.usefixtures("optimised")  # the bits that users get

OPTIMISER = train_state.Optimiser(steps=20, warmup=2, learning_rate=0.1, batch_size=32)


def noisy_regression(traced=lambda: None, explode_at=None):
    """Fit the returns linearly in the condition, with noise that comes from the update's key."""

    def init(key):
        return train_state.create({"w": jax.random.normal(key, (3,))}, OPTIMISER)

    def update(state, batch, key):
        traced()

        def loss_fn(params):
            noise = 0.1 * jax.random.normal(key, batch.returns.shape)
            return jnp.mean((batch.cond @ params["w"] + noise - batch.returns) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        if explode_at is not None:
            loss = jnp.where(state.step == explode_at, jnp.nan, loss)
        metrics = {"loss": loss, "step": jnp.float32(state.step)}
        return train_state.apply_gradients(state, grads, OPTIMISER), metrics

    return Algorithm(init, update, None)


@pytest.fixture(scope="module")
def train(toy, draw):
    """Train; return the last state (as NumPy arrays) and all reports."""

    def train(algorithm=None, state=None, *, steps=20, every=20, seed=0):
        algorithm = algorithm or noisy_regression()
        state = (
            algorithm.init(jax.random.key(7)) if state is None else jax.tree.map(jnp.array, state)
        )
        options = {"steps": steps, "updates_per_dispatch": every, "key": jax.random.key(seed)}
        reports = []
        last = state
        for last, report in loop.fit(algorithm, state, toy, draw, **options):  # noqa: B007
            reports.append(report)
        return jax.tree.map(np.asarray, last), reports

    return train


@pytest.fixture(scope="module")
def whole(train):
    """The run that others are compared with: 20 updates in one dispatch."""
    return train()


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_same_seed_gives_the_same_bits(train, whole):
    assert_same_bits(train()[0], whole[0])


def test_another_seed_gives_another_result(train, whole):
    assert (train(seed=1)[0].params["w"] != whole[0].params["w"]).all()


@pytest.mark.parametrize("every", [1, 7])
def test_size_of_a_dispatch_changes_no_bit(train, whole, every):
    state, reports = train(every=every)
    assert_same_bits(state, whole[0])
    assert [r.step for r in reports] == [*range(every, 20, every), 20]


def test_resumed_run_ends_with_the_same_bits(train, whole):
    middle, _ = train(steps=9, every=4)
    resumed, reports = train(state=middle, every=4)
    assert_same_bits(resumed, whole[0])
    assert [r.step for r in reports] == [12, 16, 20]  # dispatches end where they always do


def test_fused_loop_equals_single_updates(whole, toy, draw):
    algorithm = noisy_regression()
    state, update = algorithm.init(jax.random.key(7)), jax.jit(algorithm.update)
    losses = []
    for step in range(20):
        key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(0), step))
        state, metrics = update(state, draw(toy, key_batch), key_update)
        losses.append(metrics["loss"])
    fused, (report,) = whole
    for a, b in zip(jax.tree.leaves(fused), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert report.metrics["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_metrics_are_means_over_their_dispatch(train):
    _, reports = train(every=8)
    assert [r.metrics["step"] for r in reports] == [3.5, 11.5, 17.5]
    assert all(r.finite for r in reports)


def test_run_is_compiled_once(train):
    count = [0]

    def traced():
        count[0] += 1

    algorithm = noisy_regression(traced)
    train(algorithm, steps=7, every=7)
    for_one_dispatch, count[0] = count[0], 0
    train(algorithm, every=7)  # three dispatches, the last one shorter
    assert count[0] == for_one_dispatch


def test_loss_that_is_not_finite_stops_the_dispatch_at_that_update(train):
    _, reports = train(noisy_regression(explode_at=9), every=8)
    # Update number 9, counted from 0, is the last of its dispatch.
    assert [(r.step, r.finite) for r in reports] == [(8, True), (10, False), (16, True), (20, True)]
    assert np.isnan(reports[1].metrics["loss"])
    assert reports[1].metrics["step"] == 8.5  # the mean over the updates that were made


def test_state_is_donated(toy, draw):
    algorithm = noisy_regression()
    state = algorithm.init(jax.random.key(0))
    updates = loop.make_loop(algorithm, draw, jax.random.key(1))
    after, _, _ = updates(state, toy, 3)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, toy)))


def test_finished_run_makes_no_update(train, whole):
    again, reports = train(state=whole[0])
    assert reports == []
    assert_same_bits(again, whole[0])
