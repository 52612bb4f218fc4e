"""What `training` and `policy` may expect of every algorithm."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import COND, SHAPE

from ractd_jax import action_networks, ctm, ddpm, diffusion, eda, edm, networks, reward

NOISE = diffusion.Noise()
STUDENTS = {
    "ctd-mlp": {"warm_start": False},
    "student-mlp": {"warm_start": False, "reward_weight": 0.1, "reward_on": "start"},
    "student-unet": {"dsm_goal": "teacher", "reward_weight": 0.1, "reward_on": "dsm"},
}
DIFFUSION = ["teacher-mlp", "teacher-unet", "ddpm-mlp", "ddim-unet"]
ACTING = [*DIFFUSION, "eda_behavior", "eda", *STUDENTS]
ALL = ["reward", *ACTING]


class Case(NamedTuple):
    """An algorithm, compiled, and the state it starts from."""

    act: Any
    update: Any
    state: Any


@functools.cache
def network(kind):
    if kind == "unet":
        return networks.ConditionalUnet1D((8,), embed_dim=8, dropout=0.1, mid_dropout=0.2)
    return networks.ResidualMLP(hidden=32, blocks=1, embed_dim=8)


def propose(batch):
    """Make of windows what EDA's policy learns from: the less an action is, the better."""
    x = batch.x[:, None] + jnp.linspace(-1, 1, 4)[None, :, None, None]
    return eda.Proposals(x, batch.cond, -4 * x.mean(axis=(2, 3)))


@pytest.fixture(scope="module")
def case(optimiser, sizes):
    """`(name) -> Case`, made once."""
    return_net, return_model = networks.ReturnMLP((8,)), reward.ReturnModel(2, pessimism=0.5)
    adam = optimiser(steps=150)

    def judge(params, x, cond, key=None):
        return reward.value(return_net, params, return_model, x, cond)

    @functools.cache
    def make(name):
        stage, *rest = name.split("-")
        frozen, see = (), lambda batch: batch
        if stage == "reward":
            algorithm = reward.make_return_model(return_net, return_model, adam, **sizes)
        elif stage == "teacher":
            teacher = edm.Teacher(sample_bins=4)
            algorithm = edm.make_teacher(network(rest[0]), NOISE, teacher, adam, **sizes)
        elif stage in ddpm.SAMPLERS:
            method = ddpm.Ddpm(steps=20, sampler=stage, sample_steps=4)
            algorithm = ddpm.make_ddpm(network(rest[0]), NOISE, method, adam, **sizes)
        elif stage.startswith("eda"):
            net = action_networks.Bottleneck(hidden=16, blocks=1, embed_dim=8, dropout=0.1)
            if stage == "eda_behavior":
                algorithm = eda.make_behavior(net, eda.Sampler(nfe=3), adam, **sizes)
            else:
                method, see = eda.Eda(nfe=3), propose
                algorithm = eda.make_eda(net, judge, method, adam, **sizes)
                frozen = ({"behavior": make("eda_behavior").state.params},)
        else:
            net, student = network(rest[0]), ctm.Student(nfe=2, **STUDENTS[name])
            algorithm = ctm.make_student(net, net, judge, NOISE, student, adam, **sizes)
            needs = {"teacher": f"teacher-{rest[0]}"}
            if stage == "student":
                needs |= {"reward": "reward"}
            weights = {need: make(other).state.params for need, other in needs.items()}
            # Far from the student's own first weights, so that there is something to learn.
            frozen = (jax.tree.map(lambda a: 2 * a, weights),)
        state = jax.jit(algorithm.init)(jax.random.key(ALL.index(name)), *frozen)

        def update(state, batch, key):
            return algorithm.update(state, see(batch), key)

        return Case(algorithm.act and jax.jit(algorithm.act), jax.jit(update), state)

    return make


@pytest.fixture(scope="module")
def batch(draw, toy):
    """`(key) -> batch`."""
    return jax.jit(functools.partial(draw, toy))


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [np.array_equal(x, y) for x, y in pairs]


@pytest.mark.parametrize("name", ALL)
def test_first_state_is_at_step_zero_and_averages_its_own_weights(case, name):
    state = case(name).state
    assert state.step == 0
    assert all(same(state.ema, state.params))
    buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)  # or it could not be donated


@pytest.mark.parametrize("name", STUDENTS)
def test_student_starts_from_its_teacher_if_told_to(case, name):
    state = case(name).state
    pairs = zip(*map(jax.tree.leaves, (state.params, state.frozen["teacher"])), strict=True)
    equal = [np.array_equal(a, b) for a, b in pairs if a.shape == b.shape]
    assert all(equal) == STUDENTS[name].get("warm_start", True)


@pytest.mark.parametrize("name", ALL)
def test_update_counts_moves_all_weights_and_keeps_everything_else(case, batch, name):
    update, before = case(name).update, case(name).state
    after, metrics = update(before, batch(jax.random.key(0)), jax.random.key(1))
    assert all(same(after.params, before.params))  # the first learning rate of the warm-up is 0
    after, metrics = update(after, batch(jax.random.key(0)), jax.random.key(2))
    assert after.step == 2
    assert not any(same(after.params, before.params))
    assert all(same(after.frozen, before.frozen))

    def describe(state):
        return jax.tree.map(lambda a: (a.shape, a.dtype), state)

    assert describe(after) == describe(before)
    types = {a.dtype for a in jax.tree.leaves((before, after))}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}

    assert "loss" in metrics
    assert all(isinstance(word, str) and m.shape == () for word, m in metrics.items())
    assert all(np.isfinite(m) for m in metrics.values())


@pytest.mark.parametrize("name", ALL)
def test_update_is_a_function_of_its_key(case, batch, name):
    def update(seed):
        return case(name).update(case(name).state, batch(jax.random.key(0)), jax.random.key(seed))

    assert all(same(update(0), update(0)))
    draws = name != "reward"
    assert all(same(update(0), update(1))) != draws  # EDA's first loss is always the same


@pytest.mark.parametrize("name", ALL)
def test_loss_falls_on_a_toy(case, batch, name):
    update, state = case(name).update, case(name).state

    def loss(state):  # always of the same examples with the same noise
        return float(update(state, batch(jax.random.key(0)), jax.random.key(0))[1]["loss"])

    before = loss(state)
    for i in range(150):
        key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        state, _ = update(state, batch(key_batch), key_update)
    assert loss(state) < 0.98 * before


@pytest.mark.parametrize("name", ACTING)
def test_action_depends_on_weights_condition_and_key_of_its_row_only(case, name):
    act, params = case(name).act, case(name).state.params
    keys = jax.random.split(jax.random.key(3), 5)
    cond = jnp.linspace(-1, 1, 5 * COND).reshape(5, COND)
    x = np.asarray(act(params, cond, keys))
    assert x.shape == (5, *SHAPE)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(act(params, cond, jax.random.clone(keys)), x)

    order = jnp.array([3, 1, 4, 0, 2])
    again = act(params, cond[order], jax.random.clone(keys)[order])
    np.testing.assert_allclose(again, x[order], atol=1e-5)

    for others in (
        act(params, -cond - 0.1, jax.random.clone(keys)),
        act(params, cond, jax.random.split(jax.random.key(4), 5)),
        act(jax.tree.map(lambda a: a + 0.1, params), cond, jax.random.clone(keys)),
    ):
        assert (np.abs(others - x).max(axis=(1, 2)) > 1e-4).all()


@pytest.mark.parametrize("name", STUDENTS)
def test_students_act_within_the_range_of_actions(case, name):
    keys = jax.random.split(jax.random.key(3), 5)
    wild = jax.tree.map(lambda a: 5 * a, case(name).state.params)
    x = case(name).act(wild, jnp.ones((5, COND)), keys)
    assert np.abs(x).max() == 1


def test_return_model_does_not_act(case):
    assert case("reward").act is None
