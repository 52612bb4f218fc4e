"""The value that guides Diffuser: the first half of a U-Net."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors
from ractd_jax.nn import shapes
from ractd_jax.nn.activations import mish
from ractd_jax.nn.blocks import Condition, FilmResidualBlock
from ractd_jax.nn.layers import Cond, Conv1d, Dense, Noisy, Times


def _levels(down_dims: Sequence[int]) -> list[tuple[int, int]]:
    """Return channels and blocks of each level."""
    last = down_dims[-1]
    return [(features, 2) for features in down_dims] + [(last // 2, 1), (last // 4, 1)]


class ValueUnet1D(nn.Module):
    """The first half of a U-Net, and two linear layers: one number for a noisy plan.

    Source: Janner et al. 2022, arXiv:2205.09991, with the blocks of `networks.ConditionalUnet1D`.

    Attributes:
        down_dims: channels of each resolution; each halves the horizon, as do two more blocks with
            a half and a quarter of the last one's channels.
        embed_dim: size of the embedding of the noise level.
        width: kernel width of the convolutions.
        groups: groups of the group normalisation, as far as there are channels.

    Example:
        >>> import jax
        >>> net = ValueUnet1D(down_dims=(8, 16), embed_dim=8, groups=1)
        >>> inputs = jnp.zeros((2, 8, 3)), jnp.zeros((2, 1)), jnp.zeros((2, 5))
        >>> value, params = jax.eval_shape(net.init_with_output, jax.random.key(0), *inputs)
        >>> value.shape
        (2,)
    """

    down_dims: Sequence[int] = (32, 64, 128, 256)
    embed_dim: int = 32
    width: int = 5
    groups: int = 8

    def __post_init__(self):
        shapes.check_fields(self)
        shapes.check_width(self.width)
        if self.down_dims[-1] < 4:
            raise errors.FieldError(
                "down_dims",
                f"{{field}} ends in {self.down_dims[-1]}, of which two more levels have a half and "
                "a quarter: at least 4",
            )
        for features, _ in _levels(self.down_dims):
            shapes.check_groups((features,), min(self.groups, features))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Noisy, times: Times, cond: Cond, *, train: bool = False
    ) -> Float[Array, " batch"]:
        """Return V(x, times, cond); `train` changes nothing, as there is no dropout."""
        c = Condition(self.embed_dim, name="condition")(times, cond)
        for i, (features, blocks) in enumerate(_levels(self.down_dims)):
            groups = min(self.groups, features)
            for j in range(blocks):
                block = FilmResidualBlock(features, self.width, groups, 0.0, name=f"{i}_block{j}")
                x = block(x, c, train=train)
            x = Conv1d(features, 3, stride=2, name=f"{i}_sample")(x)
        x = jnp.concatenate([x.reshape(len(x), -1), c], axis=-1)
        x = mish(Dense(x.shape[-1] // 2, name="dense")(x))
        return Dense(1, name="output")(x)[..., 0]
