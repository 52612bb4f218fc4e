"""Which cases the golden files `reference_*` hold: what our own PyTorch program computes."""

import jax
import jax.flatten_util
import jax.numpy as jnp
from helpers import COND, SHAPE

from ractd_jax import ctm, diffusion, networks

SMALLEST = {"hidden": 8, "blocks": 2, "embed_dim": 4, "dropout": 0.0}
REFERENCE = {"reference_mlp": SMALLEST, "reference_spectral": SMALLEST | {"frequencies": 3}}
NO_REWARD = {"reward_weight": 0.0, "warm_start": False}
METHODS = {
    "paper": (diffusion.Noise(), ctm.Student(**NO_REWARD)),
    "released": (
        diffusion.Noise(initial_std=1.0, clamp=False),
        ctm.Student(distance="released", target="ema", target_dropout=True, **NO_REWARD),
    ),
    "default": (diffusion.Noise(), ctm.Student(distance="squared", **NO_REWARD)),
    "guided": (
        diffusion.Noise(),
        ctm.Student(dsm_goal="teacher", max_jump=5, solver_steps=2, **NO_REWARD),
    ),
}
CASES = [*(("reference_mlp", preset) for preset in METHODS), ("reference_spectral", "default")]


def raveled(file, n_times):
    """Return all weights of a file's network as one vector, all zero, and what takes it apart."""
    example = jnp.zeros((1, *SHAPE)), jnp.zeros((1, n_times)), jnp.zeros((1, COND))
    net = networks.ResidualMLP(**REFERENCE[file])
    shapes = jax.eval_shape(net.init, jax.random.key(0), *example)["params"]
    return jax.flatten_util.ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape), shapes))
