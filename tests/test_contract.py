"""What `training` and `policy` may expect of every algorithm."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import COND, SHAPE

from ractd_jax import ctm, diffusion, edm, networks, reward

NOISE = diffusion.Noise()
CASES = ["reward", "teacher-mlp", "teacher-unet", "ctd-mlp", "student-mlp-start", "student-unet-dsm"]


class Case(NamedTuple):
    """An algorithm, compiled, with the state it starts from."""

    act: Any
    update: Any
    state: Any
    draw: Any


@functools.cache
def network(kind):
    if kind == "unet":
        return networks.ConditionalUnet1D((8, 8), embed_dim=8, dropout=0.1, mid_dropout=0.2)
    return networks.ResidualMLP(hidden=16, blocks=1, embed_dim=8, dropout=0.1)


def make(name, optimiser, sizes):
    """Return the algorithm called `name` and what its `init` takes beside the key."""
    stage, *rest = name.split("-")
    return_net, return_model = networks.ReturnMLP((8,)), reward.ReturnModel(2, pessimism=0.5)
    if stage == "reward":
        return reward.make_return_model(return_net, return_model, optimiser, **sizes), ()
    net = network(rest[0])
    if stage == "teacher":
        return edm.make_teacher(net, NOISE, edm.Teacher(sample_bins=4), optimiser, **sizes), ()

    def judge(params, x, cond):
        return reward.value(return_net, params, return_model, x, cond)

    method = {"reward_weight": 0.1, "reward_on": rest[1]} if stage == "student" else {}
    student = ctm.Student(nfe=2, **method)
    algorithm = ctm.make_student(net, net, judge, NOISE, student, optimiser, **sizes)
    needs = {"teacher": f"teacher-{rest[0]}"} | ({"reward": "reward"} if method else {})
    frozen = {
        need: jax.jit(make(other, optimiser, sizes)[0].init)(jax.random.key(9)).params
        for need, other in needs.items()
    }
    return algorithm, (frozen,)


@pytest.fixture(scope="module", params=CASES)
def case(request, optimiser, sizes, toy, draw):
    algorithm, frozen = make(request.param, optimiser(), sizes)
    state = jax.jit(algorithm.init)(jax.random.key(0), *frozen)
    act = algorithm.act and jax.jit(algorithm.act)
    return Case(act, jax.jit(algorithm.update), state, jax.jit(functools.partial(draw, toy)))


@pytest.fixture
def batch(case):
    return case.draw(jax.random.key(5))


def leaves_equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_first_state_is_at_step_zero_and_averages_its_own_weights(case):
    assert case.state.step == 0
    assert leaves_equal(case.state.ema, case.state.params)
    buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(case.state)]
    assert len(set(buffers)) == len(buffers)  # or it could not be donated


def test_every_leaf_is_single_precision(case, batch):
    after = case.update(case.state, batch, jax.random.key(0))[0]
    for state in (case.state, after):
        assert {a.dtype for a in jax.tree.leaves(state)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
        assert state.step.dtype == jnp.int32


def test_update_counts_keeps_shapes_and_leaves_frozen_weights_alone(case, batch):
    after, metrics = case.update(case.state, batch, jax.random.key(0))
    after, metrics = case.update(after, batch, jax.random.key(1))  # the first has learning rate 0
    assert after.step == 2
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, case.state)
    assert leaves_equal(after.frozen, case.state.frozen)
    assert not any(
        np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (after.params, case.state.params)), strict=True)
    )
    assert "loss" in metrics
    assert all(isinstance(name, str) and m.shape == () for name, m in metrics.items())
    assert all(np.isfinite(m) for m in metrics.values())


def test_update_is_a_function_of_its_key(case, batch, request):
    def update(seed):
        return case.update(case.state, batch, jax.random.key(seed))

    assert leaves_equal(update(0), update(0))
    draws_at_random = "reward" != request.node.callspec.params["case"]
    assert leaves_equal(update(0)[1], update(1)[1]) is not draws_at_random


def test_action_has_its_shape_range_and_depends_on_its_row_only(case):
    if case.act is None:
        pytest.skip("judges, does not act")
    keys = jax.random.split(jax.random.key(3), 5)
    cond = jnp.linspace(-1, 1, 5 * COND).reshape(5, COND)
    x = case.act(case.state.params, cond, keys)
    assert x.shape == (5, *SHAPE)
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= 1.05
    order = jnp.array([3, 1, 4, 0, 2])
    again = case.act(case.state.params, cond[order], jax.random.clone(keys)[order])
    np.testing.assert_allclose(again, x[order], atol=1e-5)
    others = case.act(case.state.params, cond, jax.random.split(jax.random.key(4), 5))
    assert not np.allclose(x, others, atol=1e-3)


def test_loss_falls_on_a_toy(case, batch):
    state = case.state
    before = case.update(state, batch, jax.random.key(0))[1]["loss"]
    for i in range(60):
        key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        state, _ = case.update(state, case.draw(key_batch), key_update)
    after = case.update(state, batch, jax.random.key(0))[1]["loss"]
    print("LOSS", before, after)
    assert after < 0.8 * before


@pytest.mark.parametrize("kind", ["mlp", "unet"])
def test_student_starts_from_its_teacher(case, request, kind):
    name = request.node.callspec.params["case"]
    if kind not in name or "teacher" in name:
        pytest.skip("another network")
    pairs = zip(
        *map(jax.tree.leaves, (case.state.params, case.state.frozen["teacher"])), strict=True
    )
    assert all(np.array_equal(a, b) or a.shape[0] == b.shape[0] + 8 for a, b in pairs)
