"""The student's jump, update and sampler, against closed forms and the published procedure."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import COND, SHAPE

from ractd_jax import ctm, diffusion, edm, errors, networks, reward, tasks, train_state
from ractd_jax.config import Config, Section
from ractd_jax.method import Context, Made
from ractd_jax.types import Algorithm, Batch

NOISE = diffusion.Noise()
EDM = dataclasses.replace(NOISE, scaling="edm")
ZERO = NOISE.sigma_min


# ---- G -------------------------------------------------------------------------------------------


@pytest.fixture
def student_jump(tiny, weights):
    """G of a network with random weights."""
    net = tiny("small")
    params = weights(net, 2)

    def jump(x, t, s):
        return ctm.jump(net, params, NOISE, x, t, s, jnp.ones((len(x), COND)))

    return jump


def test_jump_of_no_length_is_exactly_the_identity(key, student_jump):
    t = diffusion.sigmas(NOISE, jnp.arange(80))
    x = jax.random.normal(key, (80, *SHAPE)) * diffusion.expand(t)
    np.testing.assert_array_equal(student_jump(x, t, t), x)


def test_jump_from_sigma_min_is_the_identity_wherever_it_leads(key, student_jump):
    # The boundary condition of the boundary scalings: g(x, sigma_min, s) = x.
    x = jax.random.normal(key, (3, *SHAPE))
    s = jnp.array([0.02, 0.01, 0.001])
    np.testing.assert_allclose(student_jump(x, jnp.full(3, ZERO), s), x, rtol=1e-6)


def test_jump_anywhere_else_is_not_the_identity(key, student_jump):
    x = jax.random.normal(key, (2, *SHAPE))
    jumped = student_jump(x, jnp.array([80.0, 1.0]), jnp.array([1.0, 0.9]))
    assert (np.abs(jumped - x) > 1e-3).all()


@pytest.mark.parametrize("noise", [NOISE, EDM])
def test_jump_composes_where_the_network_is_exact(key, gaussian, noise):
    t, u, s = jnp.array([80.0, 80.0, 3.0]), jnp.array([10.0, 0.5, 1.0]), jnp.array([0.02, 0.1, 0.9])
    x, cond = 5 * jax.random.normal(key, (3, *SHAPE)), jnp.zeros((3, COND))

    def jump(x, t, s):
        return ctm.jump(gaussian.net(noise), {}, noise, x, t, s, cond)

    np.testing.assert_allclose(jump(x, t, s), gaussian.jump(x, t, s), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(jump(jump(x, t, u), u, s), jump(x, t, s), rtol=2e-3, atol=1e-5)


# ---- an update -----------------------------------------------------------------------------------


class Pull:
    """The gradient that an update follows, and the loss it reports, of a student in a state."""

    def __init__(self, net, weights, adam, sizes, batch, **fields):
        def critic(params, x, cond, key=None):
            return params * jnp.sum(jnp.sin(x[:, 0] + cond[:, :2]), axis=-1)

        fields = {"dsm_weight": 0.2, "reward_weight": 0.5, "reward_clip": True} | fields
        student = ctm.Student(warm_start=False, **fields)
        algorithm = ctm.make_student(net, net, critic, NOISE, student, adam, **sizes)
        frozen = {"teacher": weights(net, 1), "reward": jnp.float32(1.0)}
        self.state = train_state.create(weights(net, 2, seed=1), adam, frozen)
        self.other = self.state.replace(ema=weights(net, 2, seed=2))  # with another average
        update = jax.jit(algorithm.update)
        self.batch = batch
        self.update = lambda state, batch=batch: update(state, batch, jax.random.key(0))
        self.b1 = adam.b1

    def loss(self, state):
        return float(self.update(state)[1]["loss"])

    def gradient(self, state):
        first_moment = optax.tree.get(self.update(state)[0].opt_state, "mu")
        return jax.tree.map(lambda m: m / (1 - self.b1), first_moment)


@pytest.fixture(scope="module")
def pull(tiny, weights, optimiser, sizes, toy):
    batch = Batch(*(a[:16] for a in toy))

    @functools.cache
    def make(**fields):
        return Pull(tiny("small"), weights, optimiser(b1=0.5), sizes, batch, **fields)

    return make


@pytest.mark.parametrize("reward_on", ["start", "dsm"])
def test_update_follows_the_gradient_of_the_live_weights_alone(pull, reward_on):
    # With an averaged target nothing but the first call of G holds the live weights, so what the
    # update follows must be the plain derivative of the loss, here taken by finite differences.
    case = pull(target="ema", reward_on=reward_on)
    gradient = case.gradient(case.other)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    length = float(optax.global_norm(gradient))
    step = 0.01 / length

    def moved(size):
        params = jax.tree.map(lambda p, g: p + size * g, case.other.params, gradient)
        return case.loss(case.other.replace(params=params))

    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(length**2, rel=0.02)
    assert case.loss(case.other) != case.loss(case.state)  # the average is what the target holds


def test_online_target_is_a_copy_that_the_gradient_does_not_reach(pull):
    # An average equal to the live weights is such a copy.
    online, average = (
        pull(target="online", reward_on="start"),
        pull(target="ema", reward_on="start"),
    )
    for a, b in zip(
        jax.tree.leaves(online.gradient(online.state)),
        jax.tree.leaves(average.gradient(average.state)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert online.loss(online.other) == online.loss(online.state)  # it never sees the average


@pytest.mark.parametrize("reward_on", ["start", "dsm"])
def test_loss_weighs_its_three_terms_and_rewards_the_prediction_it_is_told(pull, reward_on):
    case = pull(target="ema", reward_on=reward_on, ctm_weight=3.0)
    _, metrics = case.update(case.other)
    expected = 3 * metrics["ctm"] + 0.2 * metrics["dsm"] - 0.5 * metrics["return"]
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    # What starts from noise alone has not seen the examples.
    _, elsewhere = case.update(case.other, case.batch._replace(x=-case.batch.x))
    assert (elsewhere["return"] == metrics["return"]) == (reward_on == "start")


def test_balanced_update_scales_dsm_alone(pull):
    plain, balanced = pull(target="ema"), pull(target="ema", balance="gradient")
    dsm = pull(target="ema", ctm_weight=0.0, reward_weight=0.0)
    metrics = balanced.update(balanced.other)[1]
    rest = 1.0 * metrics["ctm"] - 0.5 * metrics["return"]
    scale = float((metrics["loss"] - rest) / (0.2 * metrics["dsm"]))
    assert scale > 0
    assert scale != pytest.approx(1, rel=0.1)
    gradients = [case.gradient(case.other) for case in (balanced, plain, dsm)]
    for a, b, d in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a - b, (scale - 1) * d, rtol=1e-2, atol=1e-4)


def test_critic_draws_anew_at_every_update(tiny, weights, optimiser, sizes, toy):
    def critic(params, x, cond, key):
        return jnp.full(len(x), jax.random.uniform(key))

    net, adam, batch = tiny("small"), optimiser(), Batch(*(a[:4] for a in toy))
    student = ctm.Student(reward_weight=1.0, warm_start=False)
    algorithm = ctm.make_student(net, net, critic, NOISE, student, adam, **sizes)
    frozen = {"teacher": weights(net, 1), "reward": {}}
    state, update = train_state.create(weights(net, 2), adam, frozen), jax.jit(algorithm.update)
    first, second = (update(state, batch, jax.random.key(i))[1]["return"] for i in (0, 1))
    assert first != second


def test_update_leaves_teacher_and_return_model_alone(pull):
    case = pull(target="online", reward_on="start")
    frozen = case.update(case.state)[0].frozen
    jax.tree.map(np.testing.assert_array_equal, frozen, case.state.frozen)


# Two calls of the teacher's Heun step, three of the target, one of the student for each loss.
@pytest.mark.parametrize(("target_dropout", "calls"), [(True, 7), (False, 2)])
def test_dropout_of_the_released_target_and_teacher_is_drawn_anew_at_every_call(
    tiny, weights, optimiser, sizes, toy, target_dropout, calls
):
    drawn = []

    class Noted:
        """The network, which notes its keys of dropout where it is switched on."""

        embed_dim = 8

        def apply(self, variables, x, times, cond, *, train=False, rngs=None):
            if train:
                key = jax.random.key_data(rngs["dropout"])
                jax.debug.callback(lambda k: drawn.append(tuple(map(int, k))), key)
            return tiny("small").apply(variables, x, times, cond)

    student = ctm.Student(target_dropout=target_dropout, reward_weight=0.0, warm_start=False)
    algorithm = ctm.make_student(Noted(), Noted(), None, NOISE, student, optimiser(), **sizes)
    frozen = {"teacher": weights(tiny("small"), 1)}
    state = train_state.create(weights(tiny("small"), 2), optimiser(), frozen)
    jax.jit(algorithm.update)(state, Batch(*(a[:4] for a in toy)), jax.random.key(0))
    jax.effects_barrier()
    assert len(set(drawn)) == calls


@pytest.mark.parametrize("critic_units", [True, False])
def test_a_critic_in_units_of_its_own_is_asked_for_both_sides_of_the_advantage(
    tiny, weights, optimiser, sizes, toy, critic_units
):
    """The value of a state then cancels, and the returns are not asked."""
    net, adam = tiny("small"), optimiser()
    batch = Batch(*(a[:16] for a in toy))
    student = ctm.Student(advantage=1.0, reward_weight=0.0, warm_start=False)

    def critic(params, x, cond, key=None):
        return params["of_states"] * cond[:, 0] + jnp.sum(x[:, 0], axis=-1)

    algorithm = ctm.make_student(
        net, net, critic, NOISE, student, adam, **sizes, critic_units=critic_units
    )

    def updated(of_states, returns):
        frozen = {"teacher": weights(net, 1), "reward": {"of_states": jnp.float32(of_states)}}
        state = train_state.create(weights(net, 2), adam, frozen)
        after, _ = jax.jit(algorithm.update)(
            state, batch._replace(returns=returns), jax.random.key(0)
        )
        return jax.flatten_util.ravel_pytree(optax.tree.get(after.opt_state, "mu"))[0]

    usual = updated(0.0, batch.returns)
    same = np.allclose(updated(3.0, batch.returns), usual, atol=1e-6)
    assert same == critic_units
    assert np.allclose(updated(0.0, -batch.returns), usual, atol=1e-6) == critic_units


def test_an_example_weighs_more_the_better_it_went_than_the_critic_expects(
    tiny, weights, optimiser, sizes, toy
):
    net, adam, batch = tiny("small"), optimiser(), Batch(*(a[:16] for a in toy))
    student = ctm.Student(advantage=1.0, reward_weight=0.0, reward_on="dsm", warm_start=False)

    def critic(params, x, cond, key):
        return x[:, 0, 0]

    algorithm = ctm.make_student(net, net, critic, NOISE, student, adam, **sizes)
    frozen = {"teacher": weights(net, 1), "reward": {}}
    state = train_state.create(weights(net, 2), adam, frozen)
    _, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(0))

    def model(x, t, s):
        return ctm.jump(net, state.params, NOISE, x, t, s, batch.cond)

    key_dsm = ctm.Keys(*jax.random.split(jax.random.key(0), 9)).dsm
    losses, x = ctm.dsm_loss(model, None, NOISE, student.distance, batch.x, key_dsm)
    expected = jnp.mean(losses * ctm.advantage_weights(batch.returns, x[:, 0, 0], 1.0))
    assert float(metrics["dsm"]) == pytest.approx(float(expected), rel=1e-4)


# ---- the critic cannot pull a student out of the range of the data -------------------------------


@pytest.fixture
def reach(gaussian, tiny, weights, optimiser):
    """Distil narrow data while a return without bound pulls; return G(x_T, T, 0)."""
    net, narrow, adam = tiny("small", hidden=32), gaussian._replace(std=0.25), optimiser(steps=400)
    shape, rows = (8, 2), 32

    def critic(params, x, cond, key=None):
        return 100 * jnp.sum(x[:, 0] + jnp.maximum(x[:, 0], 0) ** 2, axis=-1)

    def reach(**fields):
        student = ctm.Student(warm_start=False, **fields)
        sizes = {"shape": shape, "cond_dim": COND}
        algorithm = ctm.make_student(net, narrow.net(NOISE), critic, NOISE, student, adam, **sizes)
        cond = jnp.zeros((rows, COND))

        def body(i, state):
            key_x, key = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
            x = jnp.clip(narrow.std * jax.random.normal(key_x, (rows, *shape)), -1, 1)
            return algorithm.update(state, Batch(x, cond, critic({}, x, cond)), key)[0]

        state = train_state.create(weights(net, 2, 0, shape), adam, {"teacher": {}, "reward": {}})
        state = jax.jit(lambda state: jax.lax.fori_loop(0, adam.steps, body, state))(state)
        x_T = diffusion.initial(NOISE, jax.random.split(jax.random.key(1), rows), shape)
        t, s = jnp.full(rows, NOISE.sigma_max), jnp.full(rows, ZERO)
        return np.asarray(ctm.jump(net, state.params, NOISE, x_T, t, s, cond))

    return reach


@pytest.mark.parametrize(
    "fields",
    [
        {"reward_weight": 0.1, "reward_on": "dsm", "dsm_goal": "teacher"},
        {"reward_weight": 1.0, "reward_on": "start"},
    ],
)
def test_student_stays_in_the_range_of_the_data_where_clip_and_scale_hold_it(reach, fields):
    x = reach(distance="squared", reward_clip=True, reward_scale="gradient", **fields)
    assert np.abs(x).max() < 1.3
    assert x[:, 0].mean() > x[:, 1:].mean() + 0.04  # and yet the reward acts


def test_student_leaves_the_range_of_the_data_when_nothing_holds_the_reward(reach):
    careless = {"reward_weight": 1.0, "reward_clip": False, "reward_scale": "none"}
    x = reach(distance="squared", **careless)
    assert x[:, 0].mean() > 3
    assert np.abs(x[:, 1:]).max() < 1.3  # what the critic does not see stays


# ---- warm start ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fields"), [("unet", {"down_dims": (8,)}), ("mlp", {})])
def test_warm_started_student_says_what_its_teacher_says_whatever_s(
    key, tiny, weights, kind, fields
):
    net = tiny(kind, **fields)
    teacher = weights(net, 1, seed=1)
    student = ctm.warm_start(weights(net, 2, seed=2), teacher, net.embed_dim)
    x = jax.random.normal(key, (4, *SHAPE))
    t, cond = jnp.array([-900.0, 0.0, 100.0, 1000.0]), jnp.ones((4, COND))
    apply = jax.jit(lambda params, times: net.apply({"params": params}, x, times, cond))
    expected = apply(teacher, t[:, None])
    assert np.abs(expected).max() > 0.1
    for s in (jnp.full(4, -978.0), t, jnp.array([3.0, -70.0, 20.0, 500.0])):
        np.testing.assert_allclose(apply(student, jnp.stack([t, s], axis=-1)), expected, atol=1e-5)


@pytest.mark.parametrize("other", [{"hidden": 8}, {"blocks": 1}, {"embed_dim": 16}])
def test_warm_start_from_a_different_network_is_refused(tiny, weights, other):
    net, teacher = tiny("mlp"), tiny("mlp", **other)
    with pytest.raises(errors.UserError, match="need networks of the same kind"):
        ctm.warm_start(weights(net, 2), weights(teacher, 1), net.embed_dim)


def test_warm_start_is_not_for_a_network_that_reads_its_condition_elsewhere(tiny, weights):
    net = tiny("fourier")
    with pytest.raises(errors.UserError, match="unet or mlp"):
        ctm.warm_start(weights(net, 2), weights(net, 1), net.embed_dim)


def test_warm_start_copies_so_that_the_student_can_be_donated(tiny, weights):
    net = tiny("mlp")
    teacher = weights(net, 1)
    student = ctm.warm_start(weights(net, 2), teacher, net.embed_dim)
    buffers = [{a.unsafe_buffer_pointer() for a in jax.tree.leaves(p)} for p in (student, teacher)]
    assert not buffers[0] & buffers[1]


# ---- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nfe", "bins"), [(1, []), (2, [40]), (3, [27, 54]), (4, [20, 40, 60])])
def test_chain_has_the_published_bins(nfe, bins):
    assert ctm.chain(NOISE, nfe) == bins


@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_sampling_calls_the_model_nfe_times_at_the_levels_of_the_chain(key, nfe):
    seen = []

    def model(x, t, s):
        seen.append((float(np.std(x)), np.unique(t), np.unique(s)))
        return jnp.zeros_like(x)

    x = ctm.sample(model, NOISE, nfe, jax.random.split(key, 2000), SHAPE)
    assert x.shape == (2000, *SHAPE)
    levels = diffusion.sigmas(NOISE, jnp.array([0, *ctm.chain(NOISE, nfe)])).tolist()
    assert len(seen) == nfe
    for (std, t, s), level in zip(seen, levels, strict=True):
        np.testing.assert_allclose(t, [level], rtol=1e-5)
        np.testing.assert_allclose(s, [ZERO])
        assert std == pytest.approx(level, rel=0.03)  # noised again from an empty estimate


@pytest.mark.parametrize("nfe", [1, 3])
def test_sampling_the_exact_jump_draws_from_the_data(key, gaussian, nfe):
    noise = dataclasses.replace(NOISE, clip=False)
    x = ctm.sample(gaussian.jump, noise, nfe, jax.random.split(key, 4000), SHAPE)
    assert np.mean(x) == pytest.approx(0, abs=0.02)
    assert np.std(x) == pytest.approx(gaussian.std, rel=0.02)


@pytest.mark.parametrize("nfe", [1, 3])
def test_sampled_row_depends_on_its_own_key_only(key, gaussian, nfe):
    keys = jax.random.split(key, 6)
    x = ctm.sample(gaussian.jump, NOISE, nfe, keys, SHAPE)
    alone = ctm.sample(gaussian.jump, NOISE, nfe, jax.random.clone(keys)[4:5], SHAPE)
    np.testing.assert_allclose(x[4:5], alone, rtol=1e-6)
    assert len(np.unique(np.asarray(x)[:, 0, 0])) == 6


def test_samples_are_clipped_only_if_the_noise_says_so(key, gaussian):
    wide = gaussian._replace(std=5.0)
    for clip in (True, False):
        noise = dataclasses.replace(NOISE, clip=clip)
        x = ctm.sample(wide.jump, noise, 1, jax.random.split(jax.random.clone(key), 8), SHAPE)
        assert (np.abs(x).max() <= 1) is np.bool_(clip)


@pytest.mark.parametrize("nfe", [1, 3])
def test_the_stage_says_how_often_a_student_calls_its_network(key, gaussian, optimiser, sizes, nfe):
    seen = []
    net = gaussian.net(NOISE, lambda: seen.append("call"))
    student = ctm.Student(nfe=nfe, reward_weight=0.0)
    algorithm = ctm.make_student(net, net, None, NOISE, student, optimiser(), **sizes)
    algorithm.act({}, jnp.zeros((2, COND)), jax.random.split(key, 2))
    assert ctm.STUDENT.calls(student) == ctm.CTD.calls(student) == len(seen) == nfe


def test_more_calls_than_the_grid_has_levels_are_refused(tiny, optimiser, sizes):
    net, student = tiny("small"), ctm.Student(nfe=41, reward_weight=0.0)
    with pytest.raises(errors.FieldError, match="at most 40") as e:
        ctm.make_student(net, net, None, NOISE, student, optimiser(), **sizes)
    assert e.value.field == "nfe"


@pytest.mark.parametrize(
    ("field", "fields"),
    [("reward_weight", {}), ("advantage", {"reward_weight": 0.0, "advantage": 1.0})],
)
def test_reward_without_a_critic_is_refused(tiny, optimiser, sizes, field, fields):
    net = tiny("small")
    with pytest.raises(errors.FieldError, match="without a critic") as e:
        ctm.make_student(net, net, None, NOISE, ctm.Student(**fields), optimiser(), **sizes)
    assert e.value.field == field


# ---- the stage -----------------------------------------------------------------------------------


def context_of(stage, method, net, task="hopper-medium-replay-v2", needed=(), cond_dim=11):
    """What `make` is given; `needed` holds triples of a role, a context and an algorithm."""
    section = Section(method, net, train_state.Optimiser(steps=10))
    config = Config(tasks.get(task), stages={stage: section})
    made = {role: Made(context, algorithm) for role, context, algorithm in needed}
    return Context(stage, config, section, made, NOISE, 4, (4, 3), cond_dim)


def student_of(critic_stage, value, task="hopper-medium-replay-v2", cond_dim=22, **fields):
    """The context of a student that sees two observations of 11 numbers, its critic one."""
    net = networks.ResidualMLP(hidden=8, blocks=1, embed_dim=8)
    teacher = context_of("teacher", edm.Teacher(), net, cond_dim=cond_dim)
    critic = context_of(critic_stage, None, None)
    needed = [
        ("teacher", teacher, edm.make(teacher, train_state.Optimiser(steps=10))),
        ("reward", critic, Algorithm(None, None, value=value)),
    ]
    method = ctm.Student(**fields)
    return context_of("student", method, net, task, needed, cond_dim)


@pytest.mark.parametrize(
    ("critic", "task", "critic_units"),
    [
        ("reward", "hopper-medium-replay-v2", False),
        ("iql", "hopper-medium-replay-v2", True),
        ("reward", "maze2d-umaze-v1", True),
    ],
)
def test_a_return_model_of_actions_alone_has_the_units_of_the_returns(
    monkeypatch, critic, task, critic_units
):
    given, make_student = {}, ctm.make_student

    def noted(*args, **kwargs):
        given.update(kwargs)
        return make_student(*args, **kwargs)

    monkeypatch.setattr(ctm, "make_student", noted)
    context = student_of(critic, lambda params, x, cond, key=None: x[:, 0, 0], task, advantage=1.0)
    ctm.make(context, train_state.Optimiser(steps=10))
    assert given["critic_units"] == critic_units


def test_critic_of_a_student_sees_the_present_observation_and_draws():
    seen = {}

    def value(params, x, cond, key=None):
        seen.update(params=params, cond=cond, key=key)
        return x[:, 0, 0]

    critic = reward.critic_of(student_of("reward", value))
    x, cond, key = jnp.ones((2, 4, 3)), jnp.arange(44.0).reshape(2, 22), jax.random.key(3)
    np.testing.assert_array_equal(critic("weights", x, cond, key), [1, 1])
    np.testing.assert_array_equal(seen["cond"], cond[:, 11:])
    assert seen["params"] == "weights"
    assert seen["key"] is key


def test_a_model_without_values_is_no_critic():
    with pytest.raises(errors.UserError, match="'ddpm', which values nothing"):
        reward.critic_of(student_of("ddpm", None))


def test_what_a_student_needs_follows_from_its_weights(tiny):
    def needs(**fields):
        section = Section(ctm.Student(**fields), tiny("mlp"), train_state.Optimiser(steps=1))
        task = tasks.get("hopper-medium-replay-v2")
        return ctm.STUDENT.needs(Config(task, critic="iql", stages={"s": section}), "s")

    assert needs(reward_weight=0.0) == {"teacher": "teacher"}
    for fields in ({"reward_weight": 0.5}, {"reward_weight": 0.0, "advantage": 1.0}):
        assert needs(**fields) == {"teacher": "teacher", "reward": "iql"}


def test_warm_start_from_another_network_is_refused_where_the_user_wrote_it(key, weights):
    context = student_of("reward", lambda params, x, cond, key=None: x[:, 0, 0])
    algorithm = ctm.make(context, train_state.Optimiser(steps=10))
    wider = networks.ResidualMLP(hidden=16, blocks=1, embed_dim=8)
    frozen = {"teacher": weights(wider, 1, shape=(4, 3), cond_dim=22)}
    with pytest.raises(errors.FieldError, match=r"student\.method\.warm_start copies"):
        algorithm.init(key, frozen)
