"""Shared by all tests: a strict JAX, tiny networks, and data whose right answers are known."""

import os
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE

from ractd_jax import diffusion, networks, train_state
from ractd_jax.types import Batch, Transition

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # of tests' own processes
jax.config.update("jax_enable_compilation_cache", False)  # tests compile what they test
# A program cut into parts that are compiled side by side takes more time in all.
FAST = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # XLA aborts at flags it has never heard of
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST}"
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_numpy_rank_promotion", "raise")  # (batch,) + (batch, 1) is always a mistake
jax.config.update("jax_debug_key_reuse", True)  # so is drawing twice from one key
# Nearly all the time of these tests is compiling. This and FAST divide it by three; `optimised`
# switches this one back.
jax.config.update("jax_disable_most_optimizations", True)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # of tests' own processes


class Small(nn.Module):
    """A denoising network that compiles in a blink: one hidden layer."""

    hidden: int = 16

    @nn.compact
    def __call__(self, x, times, cond, *, train=False):
        rows = len(x)
        h = jnp.concatenate([x.reshape(rows, -1), times / 500, cond], axis=-1)
        h = nn.Dense(self.hidden, name="hidden")(h)
        return nn.Dense(x[0].size, name="output")(nn.tanh(h)).reshape(x.shape)


@pytest.fixture(scope="module")
def optimised():
    """Compile as users do."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def sizes():
    """The arguments that every `make_*` takes."""
    return {"shape": SHAPE, "cond_dim": COND}


@pytest.fixture(scope="session")
def toy():
    """1,000 windows: actions follow the condition, returns grow with the first action."""
    rng = np.random.default_rng(0)
    cond = rng.uniform(-1, 1, (1000, COND))
    x = 0.5 * cond[:, None, : SHAPE[1]] + 0.2 * rng.normal(size=(1000, *SHAPE))
    x = np.clip(x, -1, 1)
    return Batch(*(jnp.asarray(a, jnp.float32) for a in (x, cond, x[:, 0].mean(axis=1))))


@pytest.fixture(scope="session")
def steps():
    """1,000 single steps: actions near -0.6 or 0.6, whatever is seen; the reward is the first.

    Every episode ends at once, so an action is worth what it earns.
    """
    rng = np.random.default_rng(0)
    cond = rng.uniform(-1, 1, (1000, COND))
    x = rng.choice([-0.6, 0.6], (1000, 1, SHAPE[1])) + 0.1 * rng.normal(size=(1000, 1, SHAPE[1]))
    arrays = x, cond, x[:, 0, 0], cond, np.zeros(1000)
    return Transition(*(jnp.asarray(a, jnp.float32) for a in arrays))


@pytest.fixture(scope="session")
def half_over(steps):
    """32 of these steps, which lead somewhere else; after every other one the episode is over."""
    batch = jax.tree.map(lambda a: a[:32], steps)
    return batch._replace(next_cond=steps.cond[32:64], masks=jnp.arange(32.0) % 2)


@pytest.fixture(scope="session")
def draw():
    """`(dataset, key) -> batch` of 32 windows, or steps."""

    def draw(dataset, key):
        index = jax.random.randint(key, (32,), 0, len(dataset.x))
        return jax.tree.map(lambda a: a[index], dataset)

    return draw


@pytest.fixture(scope="session")
def optimiser():
    """Optimiser for short runs, with any field replaced."""

    def make(**fields):
        fields = {"steps": 300, "batch_size": 32, "learning_rate": 3e-3, "warmup": 5} | fields
        return train_state.Optimiser(**fields)

    return make


@pytest.fixture(scope="session")
def tiny():
    """A network of each kind, as small as it gets, with any field replaced."""
    kinds = {
        "small": (Small, {}),
        "unet": (networks.ConditionalUnet1D, {"down_dims": (8, 16), "embed_dim": 8}),
        "value_unet": (
            networks.ValueUnet1D,
            {"down_dims": (16, 16), "embed_dim": 8, "groups": 1},
        ),
        "mlp": (networks.ResidualMLP, {"hidden": 16, "blocks": 2, "embed_dim": 8}),
        "spectral": (
            networks.ResidualMLP,
            {"hidden": 16, "blocks": 2, "embed_dim": 8, "frequencies": 3},
        ),
        "fourier": (networks.FourierMLP, {"hidden": 16, "blocks": 2, "embed_dim": 8}),
        "return": (networks.ReturnMLP, {"dims": (16, 16)}),
    }

    def make(kind, **fields):
        network, defaults = kinds[kind]
        return network(**defaults | fields)

    return make


@pytest.fixture(scope="session")
def weights():
    """Random weights of a denoising network, quicker than its own first weights compile."""

    def make(net, n_times, seed=0, shape=SHAPE, cond_dim=COND):
        example = jnp.zeros((1, *shape)), jnp.zeros((1, n_times)), jnp.zeros((1, cond_dim))
        shapes = jax.eval_shape(net.init, jax.random.key(0), *example)["params"]
        rng = np.random.default_rng(seed)

        def leaf(s):
            size = np.sqrt(s.shape[-1] / s.size) if len(s.shape) > 1 else 0.5
            return jnp.asarray(rng.normal(size=s.shape) * size, jnp.float32)

        return jax.tree.map(leaf, shapes)

    return make


class Gaussian(NamedTuple):
    """Data x_0 ~ N(0, std^2): everything that is learnt has a closed form."""

    std: float = 0.5

    def denoise(self, x, t):
        """E[x_0 | x_t = x]."""
        t = diffusion.expand(t)
        return self.std**2 / (self.std**2 + t**2) * x

    def jump(self, x, t, s):
        """Where the probability-flow ODE leads from x at level t to level s."""
        t, s = diffusion.expand(t), diffusion.expand(s)
        return jnp.sqrt((self.std**2 + s**2) / (self.std**2 + t**2)) * x

    def net(self, noise, on_call=lambda: None):
        """A network that makes `edm.denoise` or, given two times, `ctm.jump` exact."""

        class Net:
            def apply(_, variables, scaled, times, cond, **kwargs):  # noqa: N805
                on_call()
                t, *s = (jnp.exp(c / 250) for c in times.T)
                c_skip, c_out, c_in = map(diffusion.expand, diffusion.scalings(noise, t))
                x = scaled / c_in
                if not s:
                    answer = self.denoise(x, t)
                else:  # G = s/t x + (1 - s/t) g
                    ratio = diffusion.expand(s[0] / t)
                    safe = jnp.where(ratio < 0.999999, 1 - ratio, 1.0)
                    answer = (self.jump(x, t, s[0]) - ratio * x) / safe
                safe = jnp.where(c_out > 1e-6, c_out, 1.0)
                return jnp.where(c_out > 1e-6, (answer - c_skip * x) / safe, 0.0)

        return Net()


@pytest.fixture(scope="session")
def gaussian():
    return Gaussian()
