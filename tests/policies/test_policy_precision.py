"""A policy acts in float32 or bfloat16, whichever it was trained in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_config, tiny_pipeline, train

import ractd_jax
from ractd_jax import errors
from ractd_jax.config import replace
from ractd_jax.methods import registry
from ractd_jax.training import restore

LOW = jnp.dtype("bfloat16")


def test_a_policy_acts_in_either(tmp_path):
    train(tiny_pipeline("hopper_mr", tmp_path), "teacher")
    run, obs = tmp_path / "run" / "teacher", np.zeros((5, 11))
    exact = ractd_jax.load_policy(run)
    near = ractd_jax.load_policy(run, precision="bfloat16")
    cpu = jax.default_backend() == "cpu"
    for weight in jax.tree.leaves(near._params):
        assert weight.dtype == (jnp.float32 if cpu and weight.ndim == 1 else LOW)
    assert {a.dtype for a in jax.tree.leaves(exact._params)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(near(obs), exact(obs), atol=0.05)
    with pytest.raises(errors.UserError, match="bfloat16, float32"):
        ractd_jax.load_policy(run, precision="float16")


def test_records_say_which_methods_compute_in_the_precision(tmp_path):
    config = replace(tiny_config("hopper_mr", tmp_path), training__precision="bfloat16")
    computes, said = set(), set()
    for stage in config.stages:
        algorithm, context = registry.make(config, stage), registry.context(config, stage)
        if algorithm.act is None:
            continue
        params = restore.stage_template(config, stage)["params"]
        cond = jax.ShapeDtypeStruct((2, context.cond_dim), jnp.float32)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
        if "bf16" in str(jax.make_jaxpr(algorithm.act)(params, cond, keys)):
            computes.add(stage)
        if registry.get(stage).heeds_precision:
            said.add(stage)
    assert computes == said
    assert {"teacher", "student"} <= said
