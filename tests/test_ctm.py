"""The student's jump, losses and sampler, against closed forms and the published procedure."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import COND, SHAPE, load

from ractd_jax import ctm, diffusion, edm, errors, reward, stages, tasks, train_state
from ractd_jax.types import Batch

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


# ---- L_CTM ---------------------------------------------------------------------------------------


def exact_ctm_loss(gaussian, factor=1.0, **fields):
    student = ctm.Student(distance="squared", **fields)
    key_x, key_loss = jax.random.split(jax.random.key(0))
    x_0 = gaussian.std * jax.random.normal(key_x, (2000, *SHAPE))

    def model(x, t, s):
        return factor * gaussian.jump(x, t, s)

    return np.mean(
        ctm.ctm_loss(model, gaussian.jump, gaussian.denoise, NOISE, student, x_0, key_loss)
    )


def test_ctm_loss_of_the_exact_jump_vanishes_as_the_solver_is_refined(gaussian):
    coarse, fine = (exact_ctm_loss(gaussian, max_jump=20, solver_steps=n) for n in (2, 4))
    assert coarse > 10 * fine  # Heun: error / 4, squared error / 16
    shortest = exact_ctm_loss(gaussian, max_jump=1)
    assert fine > 10 * shortest
    assert shortest < 1e-6
    assert exact_ctm_loss(gaussian, max_jump=1, solver="euler") > 10 * shortest


def test_ctm_loss_of_another_jump_does_not_vanish(gaussian):
    assert exact_ctm_loss(gaussian, factor=1.1) > 1e-4


def published_triple_probabilities(max_jump, bins=80):
    """Enumerate P(t, u, s) of the released code, which draws one number after the other."""
    p = np.zeros((bins, bins + 1, bins + 1))
    for t in range(bins):
        for s in range(t, bins + 1):
            for u in range(t, s + 1):
                p[t, min(u, t + max_jump), s] += 1 / bins / (bins + 1 - t) / (s - t + 1)
    return p


@pytest.mark.parametrize("max_jump", [1, 4])
def test_triples_are_distributed_as_published(key, max_jump):
    n = 400_000
    expected = published_triple_probabilities(max_jump)
    assert expected.sum() == pytest.approx(1)
    drawn = [np.asarray(a) for a in ctm.triples(NOISE, key, n, max_jump)]
    counts = np.zeros(expected.shape)
    np.add.at(counts, tuple(drawn), 1)
    assert not counts[expected == 0].any()

    # Pearson's statistic over the cells that expect at least 5; its mean is their number.
    big = n * expected >= 5
    statistic = ((counts - n * expected)[big] ** 2 / (n * expected)[big]).sum()
    cells = big.sum()
    assert cells > 2000
    assert abs(statistic - cells) < 5 * np.sqrt(2 * cells)
    rest = n * expected[~big].sum()
    assert abs(counts[~big].sum() - rest) < 5 * np.sqrt(rest)


def test_triples_meet_as_often_as_published(key):
    expected = published_triple_probabilities(1)
    t, u, s = (np.asarray(a) for a in ctm.triples(NOISE, key, 400_000, 1))
    bin_ = np.arange(80)
    assert expected[bin_, bin_].sum() == pytest.approx(0.1526, abs=5e-5)
    assert expected[bin_, :, bin_].sum() == pytest.approx(0.0497, abs=5e-5)
    assert np.mean(u == t) == pytest.approx(0.1526, abs=0.003)
    assert np.mean(s == t) == pytest.approx(0.0497, abs=0.002)


# ---- L_DSM ---------------------------------------------------------------------------------------


def test_dsm_loss_is_one_at_the_exact_denoiser_and_larger_elsewhere(gaussian):
    key_x, key_loss = jax.random.split(jax.random.key(0))
    x_0 = gaussian.std * jax.random.normal(key_x, (20_000, *SHAPE))

    def mean_loss(factor):
        def model(x, t, s):
            np.testing.assert_array_equal(s, np.full(len(x_0), np.float32(ZERO)))
            return factor * gaussian.denoise(x, t)

        key = jax.random.clone(key_loss)
        losses, prediction = ctm.dsm_loss(model, None, NOISE, "squared", x_0, key)
        assert prediction.shape == x_0.shape
        return np.mean(losses)

    assert mean_loss(1.0) == pytest.approx(1.0, abs=0.01)
    assert mean_loss(0.9) > mean_loss(1.0) < mean_loss(1.1)


def test_dsm_on_the_teacher_has_the_minimum_of_dsm_on_data_without_its_chance(gaussian):
    x_0 = gaussian.std * jax.random.normal(jax.random.key(0), (256, *SHAPE))

    def gradient(factor, teacher, key):
        def mean_loss(factor):
            def model(x, t, s):
                return factor * gaussian.denoise(x, t)

            return jnp.mean(ctm.dsm_loss(model, teacher, NOISE, "squared", x_0, key)[0])

        return float(jax.grad(mean_loss)(factor))

    keys = [jax.random.key(i) for i in range(20)]
    # At the exact denoiser: no gradient at all, where the data leave one of either sign.
    assert all(gradient(1.0, gaussian.denoise, jax.random.clone(k)) == 0 for k in keys)
    data = np.array([gradient(1.0, None, jax.random.clone(k)) for k in keys])
    assert data.std() > 0
    assert abs(data.mean()) < 4 * data.std() / np.sqrt(len(data))
    # Elsewhere: the same gradient on average.
    on_data = np.array([gradient(0.9, None, jax.random.clone(k)) for k in keys])
    on_teacher = np.array([gradient(0.9, gaussian.denoise, jax.random.clone(k)) for k in keys])
    difference = on_data - on_teacher
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(keys))


# ---- which weights the losses pull ---------------------------------------------------------------


def test_ctm_loss_reaches_the_model_and_not_the_teacher(key, tiny, weights, toy):
    net, x_0, cond = tiny("small"), toy.x[:16], toy.cond[:16]
    student = ctm.Student()

    def loss_fn(student_weights, teacher_weights):
        def model(x, t, s):
            return ctm.jump(net, student_weights, NOISE, x, t, s, cond)

        def target(x, t, s):
            return ctm.jump(net, weights(net, 2, seed=2), NOISE, x, t, s, cond)

        def teacher(x, t):
            return edm.denoise(net, teacher_weights, NOISE, x, t, cond)

        return ctm.ctm_loss(model, target, teacher, NOISE, student, x_0, key).mean()

    mine, teachers = jax.jit(jax.grad(loss_fn, argnums=(0, 1)))(weights(net, 2), weights(net, 1))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(mine))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teachers))


class Pull:
    """The gradient that an update follows, and the loss it reports, of a student in a state."""

    def __init__(self, net, weights, adam, sizes, batch, **fields):
        def judge(params, x, cond, key=None):
            return params * jnp.sum(jnp.sin(x[:, 0] + cond[:, :2]), axis=-1)

        student = ctm.Student(
            dsm_weight=0.2, reward_weight=0.5, reward_scale="none", warm_start=False, **fields
        )
        algorithm = ctm.make_student(net, net, judge, NOISE, student, adam, **sizes)
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


def test_judge_draws_anew_at_every_update(tiny, weights, optimiser, sizes, toy):
    def judge(params, x, cond, key):
        return jnp.full(len(x), jax.random.uniform(key))

    net, adam, batch = tiny("small"), optimiser(), Batch(*(a[:4] for a in toy))
    student = ctm.Student(reward_weight=1.0, reward_scale="none", warm_start=False)
    algorithm = ctm.make_student(net, net, judge, NOISE, student, adam, **sizes)
    frozen = {"teacher": weights(net, 1), "reward": {}}
    state, update = train_state.create(weights(net, 2), adam, frozen), jax.jit(algorithm.update)
    first, second = (update(state, batch, jax.random.key(i))[1]["return"] for i in (0, 1))
    assert first != second


def test_key_of_the_judge_draws_the_members_that_judge():
    _, config = load("hopper_mr", "student,size=demo")
    config["reward"]["method"] |= {"members": 4, "drawn": 1}
    config["reward"]["network"] |= {"dims": [8], "layer_norm": False}
    task = tasks.get(config["task"])
    params = stages.make(config, task, "reward").init(jax.random.key(0)).params
    judge = jax.jit(stages._judge(config, task, "student"))
    x, cond = jnp.zeros((1, config["data"]["horizon"], task.act_dim)), jnp.ones((1, task.obs_dim))
    assert len({float(judge(params, x, cond, jax.random.key(i))[0]) for i in range(8)}) > 1


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

    student = ctm.Student(target_dropout=target_dropout, warm_start=False)
    algorithm = ctm.make_student(Noted(), Noted(), None, NOISE, student, optimiser(), **sizes)
    frozen = {"teacher": weights(tiny("small"), 1)}
    state = train_state.create(weights(tiny("small"), 2), optimiser(), frozen)
    jax.jit(algorithm.update)(state, Batch(*(a[:4] for a in toy)), jax.random.key(0))
    jax.effects_barrier()
    assert len(set(drawn)) == calls


# ---- advantage weights ---------------------------------------------------------------------------


def test_weights_are_exponentials_of_the_standardised_advantage_with_mean_one():
    returns, values = jnp.array([1.0, 4.0, 2.0]), jnp.array([0.0, 1.0, 3.0])
    advantage = np.array([1.0, 3.0, -1.0])
    expected = np.exp(0.5 * (advantage - advantage.mean()) / advantage.std())
    weights = ctm.advantage_weights(returns, values, 0.5)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)


def test_no_example_weighs_more_than_twenty_times_the_usual():
    returns = jnp.zeros(1000).at[0].set(1.0)  # 31 standard deviations above the others
    weights = ctm.advantage_weights(returns, jnp.zeros(1000), 1.0)
    assert float(weights[0] / weights[1]) == pytest.approx(20 / np.exp(-1 / 999**0.5), rel=1e-3)


@pytest.mark.parametrize("own_units", [True, False])
def test_a_judge_in_its_own_units_is_asked_for_both_sides_of_the_advantage(
    tiny, weights, optimiser, sizes, toy, own_units
):
    """What a state is worth to the judge then cancels, and the returns are not asked."""
    net, adam = tiny("small"), optimiser()
    batch = Batch(*(a[:16] for a in toy))
    student = ctm.Student(advantage=1.0, reward_weight=0.0, warm_start=False)

    def judge(params, x, cond, key=None):
        return params["of_states"] * cond[:, 0] + jnp.sum(x[:, 0], axis=-1)

    algorithm = ctm.make_student(
        net, net, judge, NOISE, student, adam, **sizes, own_units=own_units
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
    assert same == own_units
    assert np.allclose(updated(0.0, -batch.returns), usual, atol=1e-6) == own_units


def test_an_example_weighs_more_the_better_it_went_than_the_judge_expects(
    tiny, weights, optimiser, sizes, toy
):
    net, adam, batch = tiny("small"), optimiser(), Batch(*(a[:16] for a in toy))
    student = ctm.Student(advantage=1.0, reward_on="dsm", reward_clip=False, warm_start=False)

    def judge(params, x, cond, key):
        return x[:, 0, 0]

    algorithm = ctm.make_student(net, net, judge, NOISE, student, adam, **sizes)
    frozen = {"teacher": weights(net, 1), "reward": {}}
    state = train_state.create(weights(net, 2), adam, frozen)
    _, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(0))

    def model(x, t, s):
        return ctm.jump(net, state.params, NOISE, x, t, s, batch.cond)

    key_dsm = jax.random.split(jax.random.key(0), 9)[1]  # as in `ctm.make_student`
    losses, x = ctm.dsm_loss(model, None, NOISE, student.distance, batch.x, key_dsm)
    expected = jnp.mean(losses * ctm.advantage_weights(batch.returns, x[:, 0, 0], 1.0))
    assert float(metrics["dsm"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(
    ("file", "kind", "own_units"),
    [
        ("hopper_mr", "returns", False),
        ("hopper_mr", "iql", True),
        ("maze2d_umaze", "returns", True),
    ],
)
def test_return_model_of_actions_alone_judges_in_the_units_of_the_returns(
    monkeypatch, file, kind, own_units
):
    _, config = load(file, "student,size=demo")
    config["reward"]["kind"], config["student"]["method"]["advantage"] = kind, 1.0
    seen, make = {}, ctm.make_student
    monkeypatch.setattr(ctm, "make_student", lambda *a, **kw: seen.update(kw) or make(*a, **kw))
    stages.make(config, tasks.get(config["task"]), "student")
    assert seen["own_units"] == own_units


# ---- L_R -----------------------------------------------------------------------------------------


def judge(x):
    """A return that looks at the first action, and matters more in some rows than in others."""
    rows = jnp.arange(1.0, len(x) + 1)
    return rows * jnp.sum(x[:, 0] + 0.1 * x[:, 0] ** 2, axis=-1)


def reward_gradient(x, judge=judge, **fields):
    student = ctm.Student(**fields)
    return np.asarray(
        jax.grad(
            lambda x: reward.maximise(
                judge, x, clip=student.reward_clip, scale=student.reward_scale
            )[0]
        )(x)
    )


@pytest.fixture
def actions():
    return jnp.linspace(-0.9, 0.9, 6 * int(np.prod(SHAPE))).reshape(6, *SHAPE)


@pytest.mark.parametrize("scale", ["none", "gradient"])
def test_clipped_reward_has_no_gradient_outside_the_range_of_the_data(actions, scale):
    outside = actions.at[1, 0, 0].set(1.5).at[2, 0, 1].set(-1.5)
    gradient = reward_gradient(outside, reward_clip=True, reward_scale=scale)
    assert gradient[1, 0, 0] == 0
    assert gradient[2, 0, 1] == 0
    assert (gradient[:, 0] != 0).sum() == gradient[:, 0].size - 2  # all other first actions
    unclipped = reward_gradient(outside, reward_clip=False, reward_scale=scale)
    assert (unclipped[:, 0] != 0).all()


@pytest.mark.parametrize("scale", ["none", "gradient"])
def test_reward_climbs_and_pulls_what_the_return_model_sees_alone(actions, scale):
    gradient = reward_gradient(actions, reward_scale=scale)
    assert (gradient[:, 0] < 0).all()
    assert not gradient[:, 1:].any()


def test_unscaled_reward_loss_is_minus_the_mean_return(actions):
    student = ctm.Student(reward_scale="none")
    loss, returns = reward.maximise(
        judge, actions, clip=student.reward_clip, scale=student.reward_scale
    )
    np.testing.assert_allclose(returns, judge(actions), rtol=1e-6)
    assert float(loss) == pytest.approx(-float(np.mean(judge(actions))), rel=1e-6)
    expected = jax.grad(lambda x: -jnp.mean(judge(x)))(actions)
    np.testing.assert_allclose(reward_gradient(actions, reward_scale="none"), expected, rtol=1e-6)


def test_gradient_scale_makes_the_weight_independent_of_the_unit_of_the_return(actions):
    pulls = [
        reward_gradient(actions, lambda x, unit=unit: unit * judge(x), reward_scale="gradient")
        for unit in (0.01, 1.0, 1000.0)
    ]
    for pull in pulls[1:]:
        np.testing.assert_allclose(pull, pulls[0], rtol=1e-3, atol=1e-6)
    # What is reported keeps its unit.
    returns = reward.maximise(judge, actions, clip=True, scale="gradient")[1]
    np.testing.assert_allclose(returns, judge(actions), rtol=1e-5)


def test_gradient_scale_makes_the_mean_length_of_the_pull_one(actions):
    pull = -len(actions) * reward_gradient(actions, reward_scale="gradient")
    slope = -len(actions) * reward_gradient(actions, reward_scale="none")
    lengths = np.sqrt((pull**2).sum(axis=(1, 2)))
    assert lengths.mean() == pytest.approx(1, rel=1e-4)
    ratio = pull[:, 0] / slope[:, 0]  # one number for the batch: directions and proportions stay
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-4)


# ---- the return model cannot pull a student out of the range of the data -------------------------


@pytest.fixture
def reach(gaussian, tiny, weights, optimiser):
    """Distil narrow data while a return without bound pulls; return G(x_T, T, 0)."""
    net, narrow, adam = tiny("small", hidden=32), gaussian._replace(std=0.25), optimiser(steps=400)
    shape, rows = (8, 2), 32

    def judge(params, x, cond, key=None):
        return 100 * jnp.sum(x[:, 0] + jnp.maximum(x[:, 0], 0) ** 2, axis=-1)

    def reach(**fields):
        student = ctm.Student(warm_start=False, **fields)
        sizes = {"shape": shape, "cond_dim": COND}
        algorithm = ctm.make_student(net, narrow.net(NOISE), judge, NOISE, student, adam, **sizes)
        cond = jnp.zeros((rows, COND))

        def body(i, state):
            key_x, key = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
            x = jnp.clip(narrow.std * jax.random.normal(key_x, (rows, *shape)), -1, 1)
            return algorithm.update(state, Batch(x, cond, judge({}, x, cond)), key)[0]

        state = train_state.create(weights(net, 2, 0, shape), adam, {"teacher": {}, "reward": {}})
        state = jax.jit(lambda state: jax.lax.fori_loop(0, adam.steps, body, state))(state)
        x_T = diffusion.initial(NOISE, jax.random.split(jax.random.key(1), rows), shape)
        t, s = jnp.full(rows, NOISE.sigma_max), jnp.full(rows, ZERO)
        return np.asarray(ctm.jump(net, state.params, NOISE, x_T, t, s, cond))

    return reach


@pytest.mark.parametrize(
    "fields",
    [
        {"reward_weight": 0.1, "reward_on": "dsm", "dsm_goal": "teacher", "distance": "squared"},
        {"reward_weight": 1.0, "reward_on": "start", "distance": "squared"},
    ],
)
def test_student_stays_in_the_range_of_the_data_by_default(reach, fields):
    x = reach(**fields)
    assert np.abs(x).max() < 1.3
    assert x[:, 0].mean() > x[:, 1:].mean() + 0.04  # and yet the reward acts


def test_student_leaves_the_range_of_the_data_when_nothing_holds_the_reward(reach):
    careless = {"reward_weight": 1.0, "reward_clip": False, "reward_scale": "none"}
    x = reach(distance="squared", **careless)
    assert x[:, 0].mean() > 3
    assert np.abs(x[:, 1:]).max() < 1.3  # what the return model does not see stays


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


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("distance", "huberr"),
        ("reward_on", "stat"),
        ("reward_scale", "gradients"),
        ("solver", "huen"),
        ("target", "onlin"),
    ],
)
def test_unknown_option_is_refused_with_a_hint(field, word):
    with pytest.raises(errors.UserError, match="Did you mean"):
        ctm.Student(**{field: word})


@pytest.mark.parametrize("field", ["nfe", "solver_steps", "max_jump"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(errors.UserError, match="start at 1"):
        ctm.Student(**{field: 0})
