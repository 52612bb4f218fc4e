"""The schedule, the gradient through the chain and the critic's pull have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE, load

from ractd_jax import errors
from ractd_jax.config import Selection
from ractd_jax.methods import ddpm, diffusion_ql, registry, vp_schedule
from ractd_jax.nn import denoising_mlp, mlp
from ractd_jax.types import Transition

SIZES = {"shape": (1, SHAPE[1]), "cond_dim": COND}


def make(optimiser, hidden=(32, 32), **method):
    net = denoising_mlp.StepMLP(hidden, 8)
    q_net = mlp.MLP(hidden, 1, "mish", "")
    method = diffusion_ql.DiffusionQl(**method)
    return diffusion_ql.make_diffusion_ql(net, q_net, method, optimiser, **SIZES)


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_vp_schedule_is_the_integral_of_a_rising_beta(steps):
    a = np.asarray(vp_schedule.alpha_bars(steps, "vp"), np.float64)
    t = np.arange(1, steps + 1)
    kept = np.exp(-0.1 / steps - 0.5 * (10 - 0.1) * (2 * t - 1) / steps**2)
    np.testing.assert_allclose(a[1:] / a[:-1], kept, rtol=1e-5)
    assert a[0] == 1
    assert a[-1] == pytest.approx(np.exp(-(0.1 + 10) / 2), rel=1e-5)  # whatever the steps


def test_gradient_runs_through_all_steps_of_the_chain(key):
    """Where the predicted noise is w everywhere, every step is linear in w."""
    method = ddpm.Ddpm(5, "ddpm", 5, "vp")

    def total(w, keys):
        def predictor(x, t):
            return jnp.full_like(x, w)

        return jnp.sum(ddpm.sample(predictor, method, keys, (1, 1), clip=False))

    a, slope = np.asarray(vp_schedule.alpha_bars(5, "vp"), np.float64), 0.0
    for t in range(5, 0, -1):
        kept = a[t] / a[t - 1]
        x_0 = (slope - np.sqrt(1 - a[t])) / np.sqrt(a[t])
        slope = np.sqrt(a[t - 1]) * (1 - kept) * x_0 + np.sqrt(kept) * (1 - a[t - 1]) * slope
        slope /= 1 - a[t]
    gradients = jax.grad(total)(0.3, jax.random.split(key, 7))
    assert gradients == pytest.approx(7 * slope, rel=1e-4)


def test_q_loss_is_the_same_in_every_unit_of_reward_and_pairs_the_critics_both_ways(key):
    q = jnp.array([[1.0, 2.0, 3.0], [5.0, -5.0, 30.0]])
    keys = jax.random.split(key, 20)
    values = {float(diffusion_ql.q_loss(q, k)) for k in keys}
    assert sorted(values) == pytest.approx([-10 / 2, -2 / (40 / 3)])
    for k in keys:
        pull, scaled = (
            jax.grad(lambda q, k=k, unit=unit: diffusion_ql.q_loss(unit * q, jax.random.clone(k)))(
                q
            )
            for unit in (1.0, 1000.0)
        )
        np.testing.assert_allclose(pull, scaled, rtol=1e-5)
        assert np.any(pull, axis=1).sum() == 1  # the other only says how large critics are


def test_critic_loss_by_hand():
    batch = Transition(
        jnp.zeros((2, 1, 1)),
        jnp.zeros((2, 1)),
        jnp.ones(2),
        jnp.zeros((2, 1)),
        jnp.array([1.0, 0.0]),  # a terminal: nothing after it counts
    )
    q = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    q_next = jnp.array([[2.0, 9.0], [4.0, 9.0]])
    goals = [1 + 0.5 * 2, 1]
    expected = np.mean(np.sum((np.asarray(q) - goals) ** 2, axis=0))
    assert diffusion_ql.critic_loss(q, q_next, 0.5, batch) == pytest.approx(expected)
    pull = jax.grad(lambda q_next: diffusion_ql.critic_loss(q, q_next, 0.5, batch))(q_next)
    assert not np.any(pull)


def test_update_looks_one_step_ahead_by_the_averages_of_critic_and_policy(
    key, optimiser, half_over
):
    """The averaged policy acts on the bounds, with s's signs; Q is 0 and Q'(s, a) s_2 + 2 a_0."""
    algorithm = make(optimiser(), (), steps=1)
    state = jax.jit(algorithm.init)(key)
    live, target = (jax.tree.map(jnp.zeros_like, p) for p in (state.params, state.ema))
    last = target["policy"]["mlp"]["output"]["linear"]  # sees the action, the step and s
    last["kernel"] = last["kernel"].at[-COND:].set(-1e4 * jnp.eye(COND, 2))
    target["q"]["output"]["linear"]["kernel"] = jnp.float32([[[0], [0], [1], [2], [0]]] * 2)
    state = state.replace(params=live, ema=target)
    _, metrics = jax.jit(algorithm.update)(state, half_over, jax.random.key(1))
    value = half_over.next_cond[:, 2] + 2 * jnp.sign(half_over.next_cond[:, 0])
    expected = jnp.mean((half_over.rewards + 0.99 * half_over.masks * value) ** 2)
    assert metrics["q_loss"] == pytest.approx(2 * float(expected), rel=1e-5)  # of two critics


def test_policys_loss_moves_the_policy_alone(key, optimiser, steps):
    batch = jax.tree.map(lambda a: a[:32], steps)
    key_init, key_update = jax.random.split(key)
    after = {}
    for eta in (0.0, 1.0):
        algorithm = make(optimiser(warmup=0), (8,), steps=2, eta=eta)
        state = jax.jit(algorithm.init)(jax.random.clone(key_init))
        after[eta] = jax.jit(algorithm.update)(state, batch, jax.random.clone(key_update))[0].params
    for name in ("q", "policy"):
        pairs = zip(*(jax.tree.leaves(after[eta][name]) for eta in after), strict=True)
        same = all(np.allclose(a, b, atol=1e-7) for a, b in pairs)
        assert same == (name == "q")


def test_policy_finds_the_better_mode_of_the_data(key, optimiser, steps, draw):
    algorithm = make(optimiser(steps=600, ema=0.99, ema_power=0.0))

    def body(i, state):
        key_batch, key_update = jax.random.split(jax.random.fold_in(key, i))
        return algorithm.update(state, draw(steps, key_batch), key_update)[0]

    state = jax.jit(lambda s: jax.lax.fori_loop(0, 600, body, s))(
        jax.jit(algorithm.init)(jax.random.key(1))
    )
    keys = jax.random.split(jax.random.key(2), 200)
    action = jax.jit(algorithm.act)(state.ema, steps.cond[:200], keys)[:, 0]
    assert (action[:, 0] > 0.3).mean() > 0.9  # the reward is its first number
    assert 0.2 < (action[:, 1] > 0).mean() < 0.8  # of the second it says nothing


def test_gradients_of_each_network_are_shortened_by_themselves(key, optimiser, steps):
    """Adam forgets lengths, so its first moment is looked at."""
    batch = jax.tree.map(lambda a: a[:32], steps._replace(rewards=100 * steps.rewards))
    algorithm = make(optimiser(warmup=0, clip=0.1, b1=0.5), (8,), steps=1)
    state = jax.jit(algorithm.init)(key)
    state = jax.jit(algorithm.update)(state, batch, jax.random.key(1))[0]
    moments = state.opt_state[0].mu
    for name in ("q", "policy"):
        length = np.sqrt(sum(np.sum(m**2) for m in jax.tree.leaves(moments[name])))
        assert length == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_acts_with_five_calls_and_fifty_candidates_among_which_its_own_critic_chooses(preset):
    config = registry.configure(load("hopper_mr", f"dql,preset={preset}")[1])
    assert registry.calls(config, "dql") == 5
    chosen = Selection(critic="dql", candidates=50, inverse_temperature=1.0)
    assert registry.selection(config, "dql") == chosen


@pytest.mark.parametrize(("name", "length"), [("m", 9.0), ("mr", 4.0), ("me", 5.0)])
def test_gradients_are_as_long_as_published(name, length):
    assert load(f"hopper_{name}")[1]["dql"]["optimiser"]["clip"] == length


def test_impossible_settings_are_refused():
    with pytest.raises(errors.FieldError, match="Did you mean 'cosine'"):
        diffusion_ql.DiffusionQl(schedule="cosin")
    for field, value in (("steps", 0), ("eta", -1.0), ("discount", 1.0)):
        with pytest.raises(errors.FieldError, match=rf"^{field} is {value}"):
            diffusion_ql.DiffusionQl(**{field: value})
    with pytest.raises(errors.FieldError, match=r"^embed_dim is 5"):
        diffusion_ql.Layers(embed_dim=5)
