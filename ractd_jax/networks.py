"""The networks: conditional 1-D U-Net, residual-MLP denoiser, return model.

Every denoising network has the same face, F(x, times, cond):

    x      (batch, horizon, dim)   the noisy trajectory, already scaled by c_in
    times  (batch, n_times)        c_noise of the noise level t; a student also gets that of s
    cond   (batch, cond)           the observation(s) the trajectory is conditioned on

so the number of columns of `times` is all that tells a teacher from a student (RACTD, App. A).
With `layers` and `action_networks` this is the only file that knows Flax.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from ractd_jax.nn.layers import (
    Cond,
    Condition,
    Conv1d,
    ConvBlock,
    Dense,
    Film,
    FilmResidualBlock,
    Noisy,
    Times,
    mish,
)

# ---- denoising networks ----------------------------------------------------------------------


class ConditionalUnet1D(nn.Module):
    """The published network: a U-Net along the horizon (Chi et al., 2023; RACTD Tables 6 and 7).

    Attributes:
        down_dims: channels of each resolution; the horizon must divide by 2^(levels - 1).
        embed_dim: size of the embedding of one noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation.
        dropout: dropout in the down and up blocks.
        mid_dropout: dropout in the two middle blocks. The published code never passes its setting
            to them, so that they run at 0.2 in teacher and student alike.
    """

    down_dims: Sequence[int]
    embed_dim: int = 128
    width: int = 5
    groups: int = 8
    dropout: float = 0.0
    mid_dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        dim, dims = x.shape[-1], tuple(self.down_dims)
        c = Condition(self.embed_dim, name="condition")(times, cond)

        def residual(h, features, name, dropout):
            block = FilmResidualBlock(features, self.width, self.groups, dropout, name=name)
            return block(h, c, train=train)

        skips = []
        for i, features in enumerate(dims):
            x = residual(x, features, f"down{i}_block0", self.dropout)
            x = residual(x, features, f"down{i}_block1", self.dropout)
            skips.append(x)
            if i < len(dims) - 1:
                x = Conv1d(features, 3, stride=2, name=f"down{i}_sample")(x)
        for j in range(2):
            x = residual(x, dims[-1], f"mid_block{j}", self.mid_dropout)
        for i, features in enumerate(reversed(dims[:-1])):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = residual(x, features, f"up{i}_block0", self.dropout)
            x = residual(x, features, f"up{i}_block1", self.dropout)
            x = Conv1d(features, 4, transpose=True, name=f"up{i}_sample")(x)
        x = ConvBlock(dims[0], self.width, self.groups, name="final_block")(x)
        return Conv1d(dim, 1, name="final_conv")(x)


class ValueUnet1D(nn.Module):
    """The first half of a U-Net, and two linear layers: one number for a noisy plan.

    Diffuser's value (Janner et al. 2022), with the blocks of `ConditionalUnet1D`.

    Attributes:
        down_dims: channels of each resolution; each halves the horizon, as do two more blocks.
        embed_dim: size of the embedding of the noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation.
    """

    down_dims: Sequence[int]
    embed_dim: int = 32
    width: int = 5
    groups: int = 8

    @nn.compact
    def __call__(
        self, x: Noisy, times: Times, cond: Cond, *, train: bool = False
    ) -> Float[Array, " batch"]:
        """Return V(x, times, cond)."""
        c = Condition(self.embed_dim, name="condition")(times, cond)
        last = self.down_dims[-1]
        levels = [(features, 2) for features in self.down_dims] + [(last // 2, 1), (last // 4, 1)]
        for i, (features, blocks) in enumerate(levels):
            for j in range(blocks):
                groups = min(self.groups, features)
                block = FilmResidualBlock(features, self.width, groups, 0.0, name=f"{i}_block{j}")
                x = block(x, c, train=train)
            x = Conv1d(features, 3, stride=2, name=f"{i}_sample")(x)
        x = jnp.concatenate([x.reshape(len(x), -1), c], axis=-1)
        x = mish(Dense(x.shape[-1] // 2, name="dense")(x))
        return Dense(1, name="output")(x)[..., 0]


class ResidualMLP(nn.Module):
    """A residual MLP over the flattened trajectory, for small machines.

    A long plan has more numbers than the hidden layers have units, so what they give cannot hold
    the noise that F has to take off each of them. But plans are smooth: seen by the frequencies of
    their cosine transform, an orthogonal map that leaves white noise white, they fill the lowest
    few, which the hidden layers see; elsewhere one factor a frequency and noise level, on a path
    around them, takes the noise off. That is `frequencies`, for plans.

    Attributes:
        hidden: width of the residual stream.
        blocks: number of residual blocks, each FiLM-conditioned.
        embed_dim: size of the embedding of one noise level.
        dropout: dropout inside the blocks.
        frequencies: how many, of a cosine transform along the horizon, the hidden layers see (all
            if there are not as many); 0: no transform, and no path around.
    """

    hidden: int = 256
    blocks: int = 3
    embed_dim: int = 32
    dropout: float = 0.0
    frequencies: int = 0

    @nn.compact
    def __call__(self, x: Noisy, times: Times, cond: Cond, *, train: bool = False) -> Noisy:
        """Return F(x, times, cond); `train` switches dropout on (needs the rng "dropout")."""
        batch, horizon, dim = x.shape
        c = Condition(self.embed_dim, name="condition")(times, cond)
        seen = min(self.frequencies, horizon) or horizon
        if self.frequencies:
            transform = jnp.asarray(_cosines(horizon), x.dtype)
            x = jnp.einsum("kh,bhd->bkd", transform, x)
        h = x[:, :seen].reshape(batch, seen * dim)
        h = mish(Dense(self.hidden, name="input")(jnp.concatenate([h, cond], axis=-1)))
        for i in range(self.blocks):
            scale, shift = Film(self.hidden, name=f"block{i}_film")(c)
            r = nn.LayerNorm(name=f"block{i}_norm")(h) * (1 + scale) + shift
            r = mish(Dense(self.hidden, name=f"block{i}_dense0")(r))
            r = nn.Dropout(self.dropout, deterministic=not train)(r)
            h = h + Dense(self.hidden, name=f"block{i}_dense1")(r)
        out = Dense(seen * dim, name="output")(mish(h)).reshape(batch, seen, dim)
        if self.frequencies:
            around = Dense(horizon * dim, name="around")(mish(c)).reshape(batch, horizon, dim)
            out = around * x + jnp.pad(out, ((0, 0), (0, horizon - seen), (0, 0)))
            return jnp.einsum("kh,bkd->bhd", transform, out)
        return out


def _cosines(n: int) -> Float[np.ndarray, "{n} {n}"]:
    """Return the orthogonal matrix of the cosine transform (type II): frequency x step.

    A matrix in the place of `jax.scipy.fft.dct`: for plans of some hundred steps a product takes as
    long on a CPU, and accelerators compute it in bfloat16 too.
    """
    return scipy.fft.dct(np.eye(n), axis=0, norm="ortho")


PRECISIONS = ("float32", "bfloat16")


def rounded(params: Any, dtype: str) -> Any:
    """Return weights as a network computing in `dtype` takes them: a CPU rounds kernels alone."""
    cpu = jax.default_backend() == "cpu"
    return jax.tree.map(lambda a: a.astype(jnp.float32 if cpu and a.ndim < 2 else dtype), params)


@dataclasses.dataclass(frozen=True)
class InPrecision:
    """A denoising network that computes in another type of number; all around it is float32.

    First weights, gradients and the optimiser's own weights stay float32, and so do noise levels
    and the embedding's sines. Weights that come in that type already are taken as they are. On a
    CPU only products take numbers of that type, and give float32: all else is as fast in it.

    Attributes:
        net: the network.
        dtype: "bfloat16".
    """

    net: nn.Module
    dtype: str

    @property
    def embed_dim(self) -> int:
        return self.net.embed_dim

    def init(self, *args, **kwargs) -> Any:
        """Return first weights, in float32."""
        return self.net.init(*args, **kwargs)

    def apply(self, variables, x, times, cond, **kwargs) -> Float[Array, "batch ..."]:
        """Return F(x, times, cond) in float32."""
        variables = rounded(variables, self.dtype)
        if jax.default_backend() != "cpu":
            x, cond = x.astype(self.dtype), cond.astype(self.dtype)
        return self.net.apply(variables, x, times, cond, **kwargs).astype(jnp.float32)


# ---- return model ----------------------------------------------------------------------------


class ReturnMLP(nn.Module):
    """The return model R(x): residual blocks of two linear layers (RACTD Table 8).

    Attributes:
        dims: width of each level; a level is two residual blocks.
        layer_norm: normalise the hidden units, which tames what the model says far from its data
            (the shortcuts stay linear, so it is no bound; not in the published model).
    """

    dims: Sequence[int] = (64, 128, 256)
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, " batch"]:
        """Return the predicted (normalised) return-to-go of each row."""
        for i, features in enumerate(self.dims):
            for j in range(2):
                h = Dense(features, name=f"level{i}_block{j}_dense0")(x)
                if self.layer_norm:
                    h = nn.LayerNorm(name=f"level{i}_block{j}_norm")(h)
                h = Dense(features, name=f"level{i}_block{j}_dense1")(mish(h))
                if x.shape[-1] != features:
                    x = Dense(features, name=f"level{i}_block{j}_shortcut")(x)
                x = h + x
        return Dense(1, name="output")(x)[..., 0]


# ---- inverse dynamics ------------------------------------------------------------------------


class InverseMLP(nn.Module):
    """I(s, change): a linear map plus a small MLP.

    Away from walls the map is linear but for the clipping of speeds, so the linear path alone is
    nearly right and the hidden layers learn the rest.

    Attributes:
        act_dim: size of an action.
        hidden: width of each hidden layer.
    """

    act_dim: int
    hidden: Sequence[int] = (64, 64)

    @nn.compact
    def __call__(
        self, state: Float[Array, "batch dim"], change: Float[Array, "batch dim"]
    ) -> Float[Array, "batch act"]:
        x = jnp.concatenate([state, change], axis=-1)
        linear = Dense(self.act_dim, name="linear")(x)
        for i, features in enumerate(self.hidden):
            x = mish(Dense(features, name=f"dense{i}")(x))
        return linear + Dense(self.act_dim, name="output")(x)
