"""What `training` and `policy` may expect of every algorithm."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE

from ractd_jax import ctm, diffusion, edm, networks, reward
from ractd_jax.data import windows
from ractd_jax.methods import (
    consistency,
    ddpm,
    diffuser,
    diffusion_ql,
    eda,
    fql,
    inverse_dynamics,
    iql,
)
from ractd_jax.nn import denoising_mlp, mlp

NOISE = diffusion.Noise()
STUDENTS = {
    "ctd-mlp": {"warm_start": False},
    "student-mlp": {"warm_start": False, "reward_weight": 0.1, "reward_on": "start"},
    "student-unet": {"dsm_goal": "teacher", "reward_weight": 0.1, "reward_on": "dsm"},
}
SINGLE = ["iql", "fql", "dql"]  # learn from single steps
ACTING = [
    *("cd-fourier", "ct-fourier", "eda_behavior", "eda"),
    *("teacher-mlp", "teacher-unet", "teacher-aware", "ddpm-mlp", "ddim-unet"),
    *STUDENTS,
    *SINGLE,
]
WAYS = ["diffuser-mlp", "diffuser-unet", "diffuser_value-mlp", "diffuser_value-value_unet"]
ALL = ["reward", "inverse", *WAYS, *ACTING]
DETERMINISTIC = ["reward", "inverse", "iql"]
CONSISTENCY = ["cd-fourier", "ct-fourier"]
BOUNDED = [*STUDENTS, *SINGLE]  # never leave [-1, 1]
DROPOUT = [name for name in WAYS[:3] + ACTING if name not in ("eda", *SINGLE)]  # in training


DIFFUSER = diffuser.Diffuser(steps=5, plans=3, guide_stop=1)
WAY = {"horizon": SHAPE[0], "act_dim": SHAPE[1], "obs_dim": COND}


class Case(NamedTuple):
    """An algorithm, compiled, and the state it starts from."""

    act: Any
    update: Any
    state: Any
    params: Any  # what `act` takes


@functools.cache
def network(kind):
    if kind == "value_unet":
        return networks.ValueUnet1D((8, 8), embed_dim=8, groups=1)
    if kind == "unet":
        return networks.ConditionalUnet1D((8,), embed_dim=8, dropout=0.1, mid_dropout=0.2)
    if kind == "fourier":
        return denoising_mlp.FourierMLP(hidden=16, blocks=1, embed_dim=8, scale=1.0)
    return networks.ResidualMLP(hidden=32, blocks=1, embed_dim=8)


def single(stage, adam):
    """Return an algorithm that learns from single steps."""
    sizes = {"shape": shape(stage), "cond_dim": COND}
    critic = mlp.MLP((16,), 1)
    if stage == "iql":
        policy = mlp.GaussianPolicy((16,), SHAPE[1], "mish")
        return iql.make_iql(critic, critic, policy, iql.Iql(), adam, **sizes)
    if stage == "dql":
        method = diffusion_ql.DiffusionQl(steps=3)
        return diffusion_ql.make_diffusion_ql(
            denoising_mlp.StepMLP((16,), 8), critic, method, adam, **sizes
        )
    net = mlp.MLP((16,), SHAPE[1], "gelu", "")
    return fql.make_fql(critic, net, net, fql.Fql(flow_steps=3), adam, **sizes)


def shape(name):
    """Return the shape of a trajectory."""
    return (1, SHAPE[1]) if name in SINGLE else SHAPE


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
            aware = rest[0] == "aware"
            teacher = edm.Teacher(sample_bins=4, reward_weight=0.1 * aware)
            algorithm = edm.make_teacher(
                network(rest[0]), NOISE, teacher, adam, **sizes, judge=judge
            )
            if aware:
                frozen = ({"reward": make("reward").state.ema},)
        elif stage == "inverse":
            inverse, pair = inverse_dynamics.Inverse(), {"shape": (1, SHAPE[1]), "cond_dim": 4}
            net = networks.InverseMLP(SHAPE[1], (16,))
            algorithm = inverse_dynamics.make_inverse(net, inverse, adam, **pair)
        elif stage == "diffuser_value":
            algorithm = diffuser.make_value(network(rest[0]), DIFFUSER, adam, **WAY)
        elif stage == "diffuser":
            net, value = network(rest[0]), network("mlp")
            algorithm = diffuser.make_diffuser(net, value, DIFFUSER, adam, **WAY, gives="actions")
            weights = {"diffuser_value": make("diffuser_value-mlp").state.params}
            frozen = (jax.tree.map(jnp.copy, weights),)
        elif stage in ddpm.SAMPLERS:
            method = ddpm.Ddpm(steps=20, sampler=stage, sample_steps=4)
            algorithm = ddpm.make_ddpm(network(rest[0]), NOISE, method, adam, **sizes)
        elif stage == "cd":
            net, method = network(rest[0]), consistency.Distillation(warm_start=False, nfe=2)
            algorithm = consistency.make_cd(net, net, NOISE, method, adam, **sizes)
            frozen = ({"teacher": algorithm.init(jax.random.key(5), {}).params},)
        elif stage == "ct":
            method = consistency.Training(s1=10, nfe=2)  # no curriculum: losses can be compared
            algorithm = consistency.make_ct(network(rest[0]), NOISE, method, adam, **sizes)
        elif stage in SINGLE:
            algorithm = single(stage, adam)
        elif stage.startswith("eda"):
            net = denoising_mlp.Bottleneck(hidden=16, blocks=1, embed_dim=8, dropout=0.1)
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
        params = state.params
        if algorithm.inference_params:
            limits = windows.identity(COND, SHAPE[1])
            params = algorithm.inference_params(params, state.frozen, limits)
        act = algorithm.act and jax.jit(algorithm.act)

        def update(state, batch, key):
            return algorithm.update(state, see(batch), key)

        return Case(act, jax.jit(update), state, params)

    return make


@pytest.fixture(scope="module")
def batch(draw, toy, steps):
    """`(name, key) -> batch` as that algorithm is given them."""
    drawn, single = (jax.jit(functools.partial(draw, data)) for data in (toy, steps))

    def make(name, key):
        if name in SINGLE:
            return single(key)
        found = drawn(key)
        if name == "inverse":
            return found._replace(x=found.x[:, :1], cond=jnp.tile(found.cond[:, :2], 2))
        if name in WAYS:
            states = jnp.repeat(found.cond[:, None], SHAPE[0], axis=1)
            return found._replace(x=jnp.concatenate([found.x, states], axis=-1))
        return found

    return make


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
    after, metrics = update(before, batch(name, jax.random.key(0)), jax.random.key(1))
    assert all(same(after.params, before.params))  # the first learning rate of the warm-up is 0
    after, metrics = update(after, batch(name, jax.random.key(0)), jax.random.key(2))
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
        example = batch(name, jax.random.key(0))
        return case(name).update(case(name).state, example, jax.random.key(seed))

    assert all(same(update(0), update(0)))
    draws = name not in DETERMINISTIC
    assert all(same(update(0), update(1))) != draws  # EDA's first loss is always the same


@pytest.mark.parametrize("name", ALL)
def test_loss_falls_on_a_toy(case, batch, name):
    update, state = case(name).update, case(name).state

    def loss(state):  # always of the same examples with the same noise, dropout's too
        key = jax.random.key
        return np.mean([update(state, batch(name, key(i)), key(i))[1]["loss"] for i in range(20)])

    before = loss(state)
    for i in range(150):
        key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        state, _ = update(state, batch(name, key_batch), key_update)
    assert loss(state) < before - 0.02 * abs(before)


@pytest.mark.parametrize("name", [*ACTING, *WAYS[:2]])
def test_action_depends_on_weights_condition_and_key_of_its_row_only(case, name):
    act, params = case(name).act, case(name).params
    keys = jax.random.split(jax.random.key(3), 5)
    cond = jnp.linspace(-1, 1, 5 * COND).reshape(5, COND)
    x = np.asarray(act(params, cond, keys))
    assert x.shape == (5, *shape(name))
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(act(params, cond, jax.random.clone(keys)), x)

    order = jnp.array([3, 1, 4, 0, 2])
    again = act(params, cond[order], jax.random.clone(keys)[order])
    np.testing.assert_allclose(again, x[order], atol=1e-5)

    def moved(others):
        rows = np.abs(others - x).max(axis=(1, 2)) > 1e-4
        some = name in ("dql", "ddim-unet")  # untrained, they lie on the bounds
        return rows.any() if some else rows.all()

    for others in (
        act(params, -cond - 0.1, jax.random.clone(keys)),
        act(jax.tree.map(lambda a: a + 0.1, params), cond, jax.random.clone(keys)),
    ):
        assert moved(others)
    others = act(params, cond, jax.random.split(jax.random.key(4), 5))
    assert not (others != x).any() if name in DETERMINISTIC else moved(others)


@pytest.mark.parametrize("name", DROPOUT)
def test_networks_drop_units_in_training_and_never_in_acting(case, batch, monkeypatch, name):
    apply, seen = nn.Module.apply, set()

    def noting(*args, train=False, **kwargs):
        seen.add(train)
        return apply(*args, **({"train": True} if train else {}), **kwargs)

    def look(program, *arguments):
        """Trace it once more, whoever has compiled it, and return the values of `train`."""
        seen.clear()
        jax.eval_shape(lambda *args: program.__wrapped__(*args), *arguments)
        return set(seen)

    act, update, state, params = case(name)
    monkeypatch.setattr(nn.Module, "apply", noting)
    assert True in look(update, state, batch(name, jax.random.key(0)), jax.random.key(1))
    if act:
        keys = jax.random.split(jax.random.key(2), 3)
        assert look(act, params, jnp.zeros((3, COND)), keys) == {False}


@pytest.mark.parametrize("name", SINGLE)
def test_critics_judge_each_action_by_itself(case, optimiser, name):
    judge = single(name, optimiser()).value
    cond = jnp.linspace(-1, 1, 5 * COND).reshape(5, COND)
    x = jnp.linspace(-1, 1, 5 * SHAPE[1]).reshape(5, *shape(name))
    params = case(name).state.ema
    worth = judge(params, x, cond)
    assert worth.shape == (5,)
    order = jnp.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(judge(params, x[order], cond[order]), worth[order], atol=1e-6)
    for others in (judge(params, -x - 0.1, cond), judge(params, x, -cond - 0.1)):
        assert (np.abs(others - worth) > 1e-4).all()


@pytest.mark.parametrize("name", BOUNDED)
def test_acts_within_the_range_of_actions(case, name):
    keys = jax.random.split(jax.random.key(3), 5)
    wild = jax.tree.map(lambda a: 20 * a, case(name).state.params)
    x = case(name).act(wild, jnp.ones((5, COND)), keys)
    assert np.abs(x).max() == pytest.approx(1, abs=1e-3)
    assert np.abs(x).max() <= 1


def test_return_model_does_not_act(case):
    assert case("reward").act is None
