"""A policy acts in float32 or bfloat16, whichever it was trained in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_experiment

import ractd_jax
from ractd_jax import errors

LOW = jnp.dtype("bfloat16")


def test_a_policy_acts_in_either(tmp_path):
    tiny_experiment("hopper_mr", tmp_path).ensure("teacher")
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
