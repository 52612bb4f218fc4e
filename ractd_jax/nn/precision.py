"""Denoising networks that compute in bfloat16."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import errors
from ractd_jax.nn.layers import Cond, Noisy, Times
from ractd_jax.types import PRECISIONS, Network, Params


def cast_weights(params: Params, dtype: str) -> Params:
    """Return weights in the type in which a network that computes in `dtype` reads them.

    Args:
        params: weights, in float32.
        dtype: one of `types.PRECISIONS`.

    Returns:
        The weights in `dtype`; on a CPU kernels alone, and vectors in float32.

    Example:
        >>> weights = cast_weights({"kernel": jnp.ones((2, 3))}, "bfloat16")
        >>> weights["kernel"].dtype
        dtype(bfloat16)
    """
    cpu = jax.default_backend() == "cpu"
    return jax.tree.map(lambda a: a.astype(jnp.float32 if cpu and a.ndim < 2 else dtype), params)


@dataclasses.dataclass(frozen=True)
class InPrecision:
    """A denoising network that computes in another type; everything outside it is float32.

    First weights, gradients and the optimiser's own weights stay float32, and so do noise levels
    and the sines of their embedding. Weights that are of the type already are taken as they are. On
    a CPU only matrix products take numbers of the type, and give float32: everything else is as
    fast in float32.

    Attributes:
        net: the network.
        dtype: "bfloat16".
    """

    net: Network
    dtype: str

    @property
    def embed_dim(self) -> int:
        """Size of the embedding of one noise level."""
        return cast(Any, self.net).embed_dim

    def init(self, key: Any, x: Noisy, times: Times, cond: Cond) -> Any:
        """Return {"params": the first weights}, in float32."""
        return self.net.init(key, x, times, cond)

    def apply(
        self, variables: Any, x: Noisy, times: Times, cond: Cond, **kwargs: Any
    ) -> Float[Array, "batch ..."]:
        """Return F(x, times, cond) in float32.

        Args:
            variables: {"params": weights}.
            x: noisy trajectories.
            times: c_noise of the noise levels.
            cond: conditions.
            **kwargs: of the network, `train` and `rngs`.
        """
        variables = cast_weights(variables, self.dtype)
        if jax.default_backend() != "cpu":
            x, cond = x.astype(self.dtype), cond.astype(self.dtype)
        return self.net.apply(variables, x, times, cond, **kwargs).astype(jnp.float32)


def in_precision(net: Network, precision: str) -> Network:
    """Return a denoising network that computes in a precision.

    Args:
        net: the network.
        precision: one of `types.PRECISIONS`.

    Returns:
        The network itself for "float32", else the network in `InPrecision`.

    Raises:
        FieldError: there is no such precision.

    Example:
        >>> from ractd_jax import networks
        >>> in_precision(networks.ResidualMLP(hidden=64), "bfloat16").dtype
        'bfloat16'
    """
    errors.choose_field("precision", precision, PRECISIONS)
    return net if precision == "float32" else InPrecision(net, precision)
