"""Denoising networks of single actions, as the methods RACTD is compared with have published them.

They are called as all denoising networks (see `networks`): F(x, times, cond), x (batch, 1, dim).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors
from ractd_jax.nn import shapes
from ractd_jax.nn.activations import mish
from ractd_jax.nn.embeddings import fourier, sinusoidal
from ractd_jax.nn.layers import Cond, Dense, Noisy, Times
from ractd_jax.nn.mlp import MLP


class StepMLP(nn.Module):
    """Diffusion-QL's denoising network: an MLP over action, embedded step and observation.

    Source: Wang et al. 2023, arXiv:2208.06193.

    Attributes:
        hidden: width of each hidden layer; () for a linear map.
        embed_dim: size of the embedding of a step.
        activation: see `activations.ACTIVATIONS`.
    """

    hidden: Sequence[int] = (256, 256, 256)
    embed_dim: int = 16
    activation: str = "mish"

    def __post_init__(self):
        shapes.check_fields(self, may_be_empty=("hidden",))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond) -> Noisy:
        """Return F(x, times, cond)."""
        e = Dense(2 * self.embed_dim, name="embed0")(sinusoidal(times[:, 0], self.embed_dim))
        e = Dense(self.embed_dim, name="embed1")(mish(e))
        h = jnp.concatenate([x[:, 0], e, cond], axis=-1)
        return MLP(self.hidden, x.shape[-1], self.activation, "", name="mlp")(h)[:, None]


class FourierMLP(nn.Module):
    """IDQL's denoising network: a residual MLP that sees the noise level through Fourier features.

    About 1.6 M weights at its defaults.

    Source: Hansen-Estruch et al. 2023, arXiv:2304.10573, with CleanDiffuser's time embedding, whose
    frequencies are drawn once and never trained.

    Attributes:
        hidden: width of the residual stream; its blocks are four times as wide inside.
        blocks: number of residual blocks.
        embed_dim: size of the embedding of one noise level.
        scale: standard deviation of the frequencies.
        dropout: dropout at the entry of each block.

    Example:
        >>> import jax
        >>> net = FourierMLP(hidden=16, blocks=1, embed_dim=8)
        >>> inputs = jnp.ones((2, 1, 3)), jnp.zeros((2, 1)), jnp.ones((2, 5))
        >>> net.apply(net.init(jax.random.key(0), *inputs), *inputs).shape
        (2, 1, 3)
    """

    hidden: int = 256
    blocks: int = 3
    embed_dim: int = 64
    scale: float = 16.0
    dropout: float = 0.1

    def __post_init__(self):
        shapes.check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        batch, horizon, dim = x.shape
        # `times` are 250 ln t; this network was published with ln(t) / 4.
        # Its sines are float32 whatever the network computes in.
        e = fourier(times / 1000, self.embed_dim, self.scale).astype(cond.dtype)
        e = mish(Dense(2 * self.embed_dim, name="time0")(e))
        e = Dense(self.embed_dim, name="time1")(e).reshape(batch, -1)
        h = jnp.concatenate([x.reshape(batch, horizon * dim), e, cond], axis=-1)
        h = Dense(self.hidden, name="input")(h)
        for i in range(self.blocks):
            r = nn.Dropout(self.dropout, deterministic=not train)(h)
            r = nn.LayerNorm(epsilon=1e-5, name=f"block{i}_norm")(r)
            r = mish(Dense(4 * self.hidden, name=f"block{i}_dense0")(r))
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        return Dense(horizon * dim, name="output")(h).reshape(batch, horizon, dim)


class Bottleneck(nn.Module):
    """EDA's bottleneck network: a scalar f(x, t | s), of which only the slope in x is trained.

    Inputs are embedded side by side and pass residual blocks of two layers. The last layer has as
    many outputs as x has numbers; they are summed, without a bias, which nothing would train.
    Everything is smooth in x.

    Source: Chen et al. 2024, arXiv:2407.09024, and its published code.

    Attributes:
        hidden: width; an eighth of it is the time's, half of it the trajectory's.
        blocks: number of residual blocks.
        widening: how many times as wide each block is inside.
        embed_dim: size of the embedding of the time.
        scale: standard deviation of its frequencies.
        dropout: dropout at the entry of each block.

    Example:
        >>> import jax
        >>> net = Bottleneck(hidden=16, blocks=1, embed_dim=8)
        >>> inputs = jnp.ones((2, 1, 3)), jnp.zeros((2, 1)), jnp.ones((2, 5))
        >>> net.apply(net.init(jax.random.key(0), *inputs), *inputs).shape
        (2,)
    """

    hidden: int = 256
    blocks: int = 3
    widening: int = 4
    embed_dim: int = 32
    scale: float = 30.0
    dropout: float = 0.1

    def __post_init__(self):
        shapes.check_fields(self)
        errors.at_least("hidden", self.hidden, 8)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Noisy, times: Times, cond: Cond, *, train: bool = False
    ) -> Float[Array, " batch"]:
        """Return f(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        x = x.reshape(x.shape[0], -1)
        eighth = self.hidden // 8
        t = fourier(times[:, 0], self.embed_dim, self.scale)
        t = nn.silu(Dense(self.embed_dim, name="embedding")(t))
        parts = [
            Dense(4 * eighth, name="x")(x),
            Dense(eighth, name="time")(t),
            Dense(3 * eighth, name="cond")(cond),
        ]
        h = Dense(self.hidden, name="input")(jnp.concatenate(parts, axis=-1))
        for i in range(self.blocks):
            r = nn.Dropout(self.dropout, deterministic=not train)(h)
            r = nn.LayerNorm(name=f"block{i}_norm")(r)
            r = nn.silu(Dense(self.widening * self.hidden, name=f"block{i}_dense0")(r))
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        return jnp.sum(Dense(x.shape[-1], bias=False, name="output")(nn.silu(h)), axis=-1)
