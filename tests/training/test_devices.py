"""Eight devices make the update that one device would make of all their samples.

The devices are virtual and must be asked for before JAX starts, so the last test runs this file
once more, in a process that has them; there the others run.
"""

import functools
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from run_helpers import tiny_pipeline, train

from ractd_jax import ctm, diffusion, edm, errors, reward, train_state
from ractd_jax.methods import ddpm
from ractd_jax.training import loop
from ractd_jax.types import Algorithm

COUNT = 8
NOISE = diffusion.Noise()
many = pytest.mark.skipif(jax.device_count() < COUNT, reason="runs within the last test")
KEY = 5


@pytest.fixture(scope="module")
def make(tiny, optimiser, sizes, weights):
    """`(method, axis) -> (algorithm, state)`, the state a little way into its training."""

    def make(method, axis=""):
        adam = optimiser(warmup=0, axis=axis)
        net, teacher_net, return_net = tiny("small"), tiny("small"), tiny("return")
        model = reward.ReturnModel(members=2)

        def value(params, x, cond, key=None):
            return reward.value(return_net, params, model, x, cond)

        return_algorithm = reward.make_return_model(return_net, model, adam, **sizes)
        frozen = None
        if method == "reward":
            algorithm = return_algorithm
            params = algorithm.init(jax.random.key(0)).params
        elif method == "teacher":
            algorithm = edm.make_teacher(net, NOISE, edm.Teacher(), adam, **sizes)
            params = weights(net, 1)
        elif method == "ddpm":
            algorithm = ddpm.make_ddpm(net, NOISE, ddpm.Ddpm(), adam, **sizes)
            params = weights(net, 1)
        else:
            student = ctm.Student(reward_weight=0.1, warm_start=False)
            algorithm = ctm.make_student(net, teacher_net, value, NOISE, student, adam, **sizes)
            params = weights(net, 2)
            frozen = {
                "teacher": weights(teacher_net, 1, seed=1),
                "reward": return_algorithm.init(jax.random.key(1)).params,
            }
        state = train_state.create(params, adam, frozen)
        # Adam's first step is the sign of the gradient, which would blow rounding up.
        adam_state, *rest = state.opt_state
        warm = adam_state._replace(nu=jax.tree.map(lambda a: a + 1e-2, adam_state.nu))
        return algorithm, state.replace(opt_state=(warm, *rest))

    return make


def gradients(state, optimiser):
    """Return the gradients of the one update made so far, which Adam's first moment holds."""
    return jax.tree.map(lambda m: m / (1 - optimiser.b1), state.opt_state[0].mu)


def assert_close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


@many
@pytest.mark.parametrize("method", ["reward", "teacher", "ddpm", "student"])
def test_update_is_that_of_one_device_with_the_mean_gradient(make, toy, draw, optimiser, method):
    algorithm, state = make(method)
    update = jax.jit(lambda s, k: algorithm.update(s, draw(toy, k[0]), k[1]))
    alone, losses = [], []
    for device in range(COUNT):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(KEY), 0), device)
        after, metrics = update(state, jax.random.split(key))
        alone.append(gradients(after, optimiser()))
        losses.append(metrics["loss"])
    mean = jax.tree.map(lambda *g: sum(g) / COUNT, *alone)
    expected = train_state.apply_gradients(state, mean, optimiser(warmup=0))

    algorithm, state = make(method, loop.AXIS)
    updates = loop.make_loop(algorithm, draw, jax.random.key(KEY), jax.devices())
    state, data = loop.replicate((state, toy), jax.devices())
    after_all, metrics, finite = updates(state, data, 1)
    assert finite
    assert_close(metrics["loss"], np.mean(losses), rtol=1e-4)
    for leaf in jax.tree.leaves(after_all):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == COUNT
        assert all(np.array_equal(copies[0], copy) for copy in copies[1:])
    after_all = loop.one_copy(after_all)
    assert_close(gradients(after_all, optimiser()), mean, rtol=2e-3, atol=2e-5)
    for part in ("params", "ema"):
        assert_close(getattr(after_all, part), getattr(expected, part), rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected.params, make(method)[1].params)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert int(after_all.step) == 1


@many
def test_shares_of_a_batch_add_up_to_the_batch(make, toy, optimiser):
    """The return model draws nothing, so eight shares are simply one batch of eight times 32."""

    def share(dataset, key):
        first = 32 * jax.lax.axis_index(loop.AXIS)
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, 32), dataset)

    algorithm, state = make("reward")
    batch = jax.tree.map(lambda a: a[: 32 * COUNT], toy)
    expected, _ = jax.jit(algorithm.update)(state, batch, jax.random.key(0))
    algorithm, state = make("reward", loop.AXIS)
    updates = loop.make_loop(algorithm, share, jax.random.key(KEY), jax.devices())
    after_all, _, _ = updates(*loop.replicate((state, toy), jax.devices()), 1)
    after_all = loop.one_copy(after_all)
    assert_close(gradients(after_all, optimiser()), gradients(expected, optimiser()), atol=1e-6)
    assert_close(after_all.params, expected.params, atol=1e-6)


@many
def test_nan_on_one_device_stops_all(make, toy, draw):
    algorithm, state = make("reward", loop.AXIS)

    def update(state, batch, key):
        state, metrics = algorithm.update(state, batch, key)
        bad = (jax.lax.axis_index(loop.AXIS) == 3) & (state.step == 2)
        return state, {"loss": jnp.where(bad, jnp.nan, metrics["loss"])}

    broken = Algorithm(algorithm.init, update, None)
    updates = loop.make_loop(broken, draw, jax.random.key(KEY), jax.devices())
    state, _, finite = updates(*loop.replicate((state, toy), jax.devices()), 5)
    assert not finite
    assert int(state.step) == 2


@many
@pytest.mark.parametrize(("first", "then"), [(8, 1), (1, 8), (8, 4)])
def test_a_run_continues_on_another_number_of_devices(tmp_path, first, then):
    section = {"optimiser": {"steps": 4, "batch_size": 16}}
    run = tmp_path / "run" / "reward"

    def job(devices):
        training = {"save_every": 2, "devices": devices}
        return tiny_pipeline("hopper_mr", tmp_path, reward=section, training=training)

    train(job(first), "reward")
    (run / "finished").unlink()  # as if it had been stopped after two updates
    shutil.rmtree(run / "checkpoints" / "4")
    train(job(then), "reward", resume=True)
    assert (run / "finished").exists()
    assert (run / "checkpoints" / "4").exists()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


@many
@pytest.mark.parametrize(("wanted", "batch", "count"), [(0, 64, 8), (1, 7, 1), (2, 64, 2)])
def test_devices_are_all_or_as_many_as_wanted(wanted, batch, count):
    assert loop.devices_for(wanted, batch) == jax.devices()[:count]


@pytest.mark.parametrize(
    ("wanted", "batch", "says"),
    [(10**6, 64, "this machine has"), (-1, 64, "this machine has")]
    + [(0, 63, "8 devices cannot share batches of 63")] * (jax.device_count() == COUNT),
)
def test_devices_that_cannot_be_had_are_refused(wanted, batch, says):
    with pytest.raises(errors.UserError, match=says):
        loop.devices_for(wanted, batch)


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() > 1, reason="these are the devices")
def test_on_eight_virtual_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={COUNT}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "passed, 1 deselected" in done.stdout, done.stdout  # this test alone
