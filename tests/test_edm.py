"""Where the data is Gaussian the teacher's denoiser, loss and ODE have closed forms."""

import collections
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE

from ractd_jax import diffusion, edm, errors, tasks, train_state
from ractd_jax.config import Config, Section
from ractd_jax.types import Batch

NOISE = diffusion.Noise()
EDM = dataclasses.replace(NOISE, scaling="edm", clip=False)
TASK = tasks.get("hopper-medium-replay-v2")


def grid(steps, rows, noise=NOISE):
    levels = diffusion.sigmas(dataclasses.replace(noise, bins=steps + 1), jnp.arange(steps + 1))
    return jnp.broadcast_to(levels[:, None], (steps + 1, rows))


# ---- denoiser ------------------------------------------------------------------------------------


def test_denoiser_is_the_identity_at_sigma_min(key, tiny, weights):
    net = tiny("small")
    x = jax.random.normal(key, (3, *SHAPE))
    t = jnp.full(3, NOISE.sigma_min)
    out = edm.denoise(net, weights(net, 1), NOISE, x, t, jnp.zeros((3, COND)))
    np.testing.assert_array_equal(out, x)


def test_denoiser_of_a_silent_network_is_exact_on_gaussian_data(key, tiny, weights, gaussian):
    # EDM's c_skip x is E[x_0 | x_t] for data of standard deviation sigma_data.
    net = tiny("small")
    silent = jax.tree.map(jnp.zeros_like, weights(net, 1))
    x, t = jax.random.normal(key, (3, *SHAPE)), jnp.array([0.02, 1.0, 80.0])
    out = edm.denoise(net, silent, EDM, x, t, jnp.zeros((3, COND)))
    np.testing.assert_allclose(out, gaussian.denoise(x, t), rtol=1e-5)


# ---- loss ----------------------------------------------------------------------------------------


SQUARED = edm.Teacher(distance="squared")


def mean_loss(gaussian, levels, factor):
    key_x, key_loss = jax.random.split(jax.random.key(0))
    x_0 = gaussian.std * jax.random.normal(key_x, (20_000, *SHAPE))

    def denoiser(x, t):
        return factor * gaussian.denoise(x, t)

    return np.mean(
        edm.loss(denoiser, NOISE, dataclasses.replace(SQUARED, levels=levels), x_0, key_loss)[0]
    )


@pytest.mark.parametrize("levels", diffusion.LEVELS)
def test_loss_is_one_at_the_exact_denoiser_and_larger_elsewhere(gaussian, levels):
    # w(t) = (t^2 + sd^2) / (t sd)^2 is one over the posterior variance sd^2 t^2 / (sd^2 + t^2).
    exact = mean_loss(gaussian, levels, 1.0)
    assert exact == pytest.approx(1.0, abs=0.01)
    for factor in (0.8, 0.95, 1.05, 1.2):
        assert mean_loss(gaussian, levels, factor) > exact


def test_teacher_learns_at_the_levels_it_is_told(key, gaussian):
    seen = {}
    for levels in diffusion.LEVELS:

        def denoiser(x, t, levels=levels):
            seen[levels] = np.asarray(t)
            return gaussian.denoise(x, t)

        x_0 = jnp.zeros((2000, *SHAPE))
        edm.loss(denoiser, NOISE, edm.Teacher(levels=levels), x_0, jax.random.clone(key))[0]
    assert np.mean(seen["log_normal"] > 10) < 0.01
    assert np.mean(seen["mixed"] > 10) > 0.2


def test_loss_of_a_row_depends_on_its_row_only(key, gaussian):
    x_0 = jax.random.normal(key, (4, *SHAPE))
    before, after = (
        edm.loss(gaussian.denoise, NOISE, edm.Teacher(), x, jax.random.key(1))[0]
        for x in (x_0, x_0.at[0].add(1.0))
    )
    assert before.shape == (4,)
    np.testing.assert_array_equal(before[1:], after[1:])


def test_gradient_of_the_loss_reaches_every_weight(key, tiny, weights, toy):
    net = tiny("small")

    def loss_fn(params):
        def denoiser(x, t):
            return edm.denoise(net, params, NOISE, x, t, toy.cond[:32])

        return edm.loss(denoiser, NOISE, edm.Teacher(), toy.x[:32], key)[0].mean()

    gradient = jax.jit(jax.grad(loss_fn))(weights(net, 1))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


# ---- reward --------------------------------------------------------------------------------------


@pytest.fixture
def rewarded(tiny, weights, optimiser, sizes, toy):
    """`(critic, key) -> metrics` of one update of a reward-aware teacher, of reward weight 0.5."""
    net, adam, batch = tiny("small"), optimiser(), Batch(*(a[:16] for a in toy))
    method = edm.Teacher(reward_weight=0.5, reward_scale="none")

    def update(critic, key):
        algorithm = edm.make_teacher(net, NOISE, method, adam, **sizes, critic=critic)
        state = train_state.create(weights(net, 1), adam, {"reward": {}})
        return jax.jit(algorithm.update)(state, batch, key)[1]

    return update


def test_reward_of_what_a_teacher_denoises_lowers_its_loss(rewarded, key):
    metrics = rewarded(lambda params, x, cond, key: 3 + jnp.sum(x[:, 0], axis=-1), key)
    expected = metrics["edm"] - 0.5 * metrics["return"]
    assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert metrics["return"] > 1


def test_critic_of_a_teacher_draws_anew_at_every_update(rewarded):
    def critic(params, x, cond, key):
        return jnp.full(len(x), jax.random.uniform(key))

    first, second = (rewarded(critic, jax.random.key(i))["return"] for i in (0, 1))
    assert first != second


# ---- solvers -------------------------------------------------------------------------------------


def error_of(solver, steps, gaussian):
    x, t, s = jnp.full((1, *SHAPE), 80.0), jnp.array([80.0]), jnp.array([0.02])
    solved = edm.solve(gaussian.denoise, x, grid(steps, 1), solver)
    return np.abs(solved - gaussian.jump(x, t, s)).max()


@pytest.mark.parametrize(("solver", "factor"), [("euler", 2.0), ("heun", 4.0)])
def test_error_falls_with_the_order_of_the_solver(gaussian, solver, factor):
    coarse, middle, fine = (error_of(solver, steps, gaussian) for steps in (40, 80, 160))
    assert coarse / middle == pytest.approx(factor, rel=0.15)
    assert middle / fine == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize("solver", edm.SOLVERS)
def test_solution_is_the_closed_form_for_every_row(gaussian, solver):
    # Rows run from levels of their own to levels of their own.
    t, s = jnp.array([80.0, 3.0, 0.5]), jnp.array([0.02, 1.0, 0.4])
    fractions = jnp.linspace(0, 1, 1001)[:, None]
    levels = t[None] ** (1 - fractions) * s[None] ** fractions
    x = jnp.linspace(-3, 3, 3 * np.prod(SHAPE)).reshape(3, *SHAPE)
    solved = edm.solve(gaussian.denoise, x, levels, solver)
    np.testing.assert_allclose(solved, gaussian.jump(x, t, s), rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("solver", edm.SOLVERS)
def test_step_of_no_length_is_the_identity(key, gaussian, solver):
    x, t = 10 * jax.random.normal(key, (3, *SHAPE)), jnp.array([0.02, 1.0, 80.0])
    u = t.at[1].set(0.5)
    stepped = edm.SOLVERS[solver].step(gaussian.denoise, x, t, u)
    np.testing.assert_array_equal(stepped[::2], x[::2])
    assert (stepped[1] != x[1]).all()


@pytest.mark.parametrize("solver", edm.SOLVERS)
def test_scan_equals_a_python_loop(key, gaussian, solver):
    x, levels = 80 * jax.random.normal(key, (2, *SHAPE)), grid(7, 2)
    looped = x
    for t, u in itertools.pairwise(levels):
        looped = edm.SOLVERS[solver].step(gaussian.denoise, looped, t, u)
    solved = jax.jit(lambda x: edm.solve(gaussian.denoise, x, levels, solver))(x)
    np.testing.assert_allclose(solved, looped, rtol=1e-5)


def test_solver_runs_under_jit_and_vmap(gaussian):
    levels = grid(5, 2)
    x = jnp.linspace(-80, 80, 3 * 2 * np.prod(SHAPE)).reshape(3, 2, *SHAPE)
    many = jax.jit(jax.vmap(lambda x: edm.solve(gaussian.denoise, x, levels)))(x)
    for single, row in zip(x, many, strict=True):
        np.testing.assert_allclose(edm.solve(gaussian.denoise, single, levels), row, rtol=1e-5)


# ---- acting --------------------------------------------------------------------------------------


def teacher_on(gaussian, optimiser, sizes, noise, on_call=lambda: None, **fields):
    net = gaussian.net(noise, on_call)
    return edm.make_teacher(net, noise, edm.Teacher(**fields), optimiser(), **sizes)


@pytest.mark.parametrize("noise", [EDM, dataclasses.replace(EDM, scaling="boundary")])
def test_teacher_acts_by_following_the_ode_from_x_T(key, gaussian, optimiser, sizes, noise):  # noqa: N802
    # The network makes the denoiser exact with either scaling (but at sigma_min itself).
    algorithm = teacher_on(gaussian, optimiser, sizes, noise)
    keys, cond = jax.random.split(key, 5), jnp.zeros((5, COND))
    x_T = diffusion.initial(noise, jax.random.clone(keys), SHAPE)
    x_0 = jax.jit(algorithm.act)({}, cond, keys)
    assert x_0.shape == (5, *SHAPE)
    exact = gaussian.jump(x_T, jnp.full(5, 80.0), jnp.full(5, 0.02))
    np.testing.assert_allclose(x_0, exact, rtol=0.02)


@pytest.mark.parametrize("solver", edm.SOLVERS)
def test_a_solver_calls_the_denoiser_as_often_as_its_record_says(gaussian, solver):
    calls = []

    def denoiser(x, t):
        calls.append(t)
        return gaussian.denoise(x, t)

    x, t, u = jnp.ones((2, *SHAPE)), jnp.array([80.0, 1.0]), jnp.array([1.0, 0.5])
    edm.SOLVERS[solver].step(denoiser, x, t, u)
    assert len(calls) == edm.SOLVERS[solver].calls


def calls_of_act(key, gaussian, optimiser, sizes, **fields):
    """How often a teacher calls its network for one decision, counted while it acts."""
    seen = collections.Counter()

    def on_call():
        jax.debug.callback(lambda: seen.update(["call"]))

    algorithm = teacher_on(gaussian, optimiser, sizes, EDM, on_call, **fields)
    jax.jit(algorithm.act)({}, jnp.zeros((2, COND)), jax.random.split(key, 2)).block_until_ready()
    jax.effects_barrier()
    return seen["call"]


@pytest.mark.parametrize("sample_bins", [2, 6])
@pytest.mark.parametrize("solver", edm.SOLVERS)
def test_the_stage_says_how_often_a_teacher_calls_its_network(
    key, gaussian, optimiser, sizes, solver, sample_bins
):
    fields = {"solver": solver, "sample_bins": sample_bins}
    said = edm.TEACHER.calls(edm.Teacher(**fields))
    assert said == calls_of_act(key, gaussian, optimiser, sizes, **fields)


def test_the_published_teacher_calls_its_network_158_times(key, gaussian, optimiser, sizes):
    assert edm.TEACHER.calls(edm.Teacher()) == 158
    assert calls_of_act(key, gaussian, optimiser, sizes) == 158


def test_clip_bounds_the_denoised_estimate(key, gaussian, optimiser, sizes):
    # With data ten times wider than the box, clipped estimates must keep actions near it.
    wide = gaussian._replace(std=10.0)
    actions = {}
    for clip in (True, False):
        noise = dataclasses.replace(EDM, clip=clip)
        algorithm = teacher_on(wide, optimiser, sizes, noise, sample_bins=20)
        keys = jax.random.split(jax.random.clone(key), 8)
        actions[clip] = np.abs(algorithm.act({}, jnp.zeros((8, COND)), keys)).max()
    assert actions[True] < 1.1
    assert actions[False] > 5


def test_teacher_trains_with_dropout_and_acts_without(key, optimiser, sizes, toy):
    seen = set()

    class Net:
        def apply(self, variables, x, times, cond, *, train=False, rngs=None):
            seen.add((train, *(rngs or ())))
            return variables["params"]["a"] * x

    algorithm = edm.make_teacher(Net(), NOISE, edm.Teacher(sample_bins=3), optimiser(), **sizes)
    state = train_state.create({"a": jnp.float32(0.5)}, optimiser())
    key_update, key_act = jax.random.split(key)
    jax.jit(algorithm.update)(state, Batch(*(a[:8] for a in toy)), key_update)
    assert seen == {(True, "dropout")}
    seen.clear()
    jax.jit(algorithm.act)(state.params, toy.cond[:8], jax.random.split(key_act, 8))
    assert seen == {(False,)}


# ---- dropout -------------------------------------------------------------------------------------


def test_each_named_call_drops_units_of_its_own_whatever_the_order():
    x, t = jnp.ones((1, *SHAPE)), jnp.ones(1)

    def model(x, t, key):
        return jax.random.normal(key, x.shape)

    def drawn(names, seed=0):
        keyed = diffusion.WithDropout(model, jax.random.key(seed))
        return {n: np.asarray(diffusion.named(keyed, n)(x, t) if n else keyed(x, t)) for n in names}

    one_way, other_way = drawn(["", "a", "b"]), drawn(["b", "", "a"])
    for name, values in one_way.items():
        np.testing.assert_array_equal(values, other_way[name])
    assert len({values.tobytes() for values in one_way.values()}) == 3
    assert (drawn(["a"], seed=1)["a"] != one_way["a"]).all()


def test_a_model_without_dropout_has_no_named_calls(gaussian):
    assert diffusion.named(gaussian.denoise, "corrector") == gaussian.denoise


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "word"),
    [("solver", "huen"), ("distance", "hubr"), ("levels", "mix"), ("reward_scale", "gradint")],
)
def test_unknown_option_is_refused_with_a_hint(field, word):
    with pytest.raises(errors.FieldError, match=r"Did you mean '(heun|huber|mixed|gradient)'") as e:
        edm.Teacher(**{field: word})
    assert e.value.field == field


@pytest.mark.parametrize(("field", "value"), [("sample_bins", 1), ("reward_weight", -0.1)])
def test_number_out_of_range_is_refused_by_its_name(field, value):
    with pytest.raises(errors.FieldError) as e:
        edm.Teacher(**{field: value})
    assert e.value.field == field


def test_reward_without_a_critic_is_refused(tiny, optimiser, sizes):
    teacher = edm.Teacher(reward_weight=0.5)
    with pytest.raises(errors.FieldError, match="without a critic"):
        edm.make_teacher(tiny("small"), NOISE, teacher, optimiser(), **sizes)


def test_teacher_needs_a_critic_only_where_the_reward_has_a_weight(tiny):
    def needs(weight):
        method = edm.Teacher(reward_weight=weight)
        section = Section(method, tiny("mlp"), train_state.Optimiser(steps=1))
        return edm.TEACHER.needs(Config(TASK, critic="iql", stages={"t": section}), "t")

    assert needs(0.0) == {}
    assert needs(0.5) == {"reward": "iql"}
