"""Checks of the sizes and words that describe a network.

Each raises an `errors.FieldError` that names the field as the network's dataclass does; whoever
reads a configuration adds the section (`FieldError.within`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ractd_jax import errors
from ractd_jax.nn.activations import ACTIVATIONS

SIZES = (  # fields that are a size, or a size for each layer
    "act_dim",
    "blocks",
    "dim",
    "dims",
    "down_dims",
    "embed_dim",
    "groups",
    "hidden",
    "out",
    "widening",
    "width",
)
SHARES = ("dropout", "mid_dropout")
WORDS = {"activation": tuple(ACTIVATIONS), "layer_norm": ("", "before", "after")}


def check_fields(net: Any, may_be_empty: Sequence[str] = ()) -> None:
    """Check every field of a network that has a meaning by its name alone.

    Args:
        net: a network, or another dataclass with fields that are called as a network's.
        may_be_empty: fields with a size for each layer that may have no layer.

    Raises:
        FieldError: a field that cannot work.

    Example:
        >>> @dataclasses.dataclass
        ... class Hidden:
        ...     hidden: tuple[int, ...] = (256, 256)
        ...     activation: str = "mish"
        >>> check_fields(Hidden((256, 0)))
        Traceback (most recent call last):
        ractd_jax.errors.FieldError: hidden is 0: at least 1
    """
    fields: dict[str, Any] = {
        field.name: getattr(net, field.name, None) for field in dataclasses.fields(net)
    }
    for name in SIZES:
        if name in fields:
            _check_sizes(name, fields[name], name in may_be_empty)
    for name in SHARES:
        if name in fields:
            errors.between(name, fields[name], 0, 1)
    for name, options in WORDS.items():
        if isinstance(fields.get(name), str):  # the return model's layer_norm is yes or no
            errors.choose_field(name, fields[name], options)
    if "frequencies" in fields:
        errors.at_least("frequencies", fields["frequencies"], 0)
    if "scale" in fields:
        errors.above("scale", fields["scale"], 0)
    if "embed_dim" in fields:
        # One random frequency is enough; those of `sinusoidal` run from 1 to 1/10000.
        check_embedding(fields["embed_dim"], least=2 if "scale" in fields else 4)


def _check_sizes(name: str, value: Any, may_be_empty: bool) -> None:
    sizes = value if isinstance(value, Sequence) else (value,)
    if not sizes and not may_be_empty:
        raise errors.FieldError(name, "{field} is empty: at least 1 size")
    for size in sizes:
        errors.at_least(name, size, 1)


def check_embedding(embed_dim: int, least: int) -> None:
    """Check the size of an embedding of sines and cosines.

    Args:
        embed_dim: the size.
        least: the smallest that works.

    Raises:
        FieldError: it is odd, or below `least`.
    """
    if embed_dim % 2 or embed_dim < least:
        raise errors.FieldError(
            "embed_dim",
            f"{{field}} is {embed_dim}: even, half sines, half cosines, and at least {least}",
        )


def check_width(width: int) -> None:
    """Check the width of a kernel.

    Raises:
        FieldError: it is even, so that the kernel has no middle.
    """
    if width % 2 == 0:
        raise errors.FieldError("width", f"{{field}} is {width}: odd, as kernels are")


def check_groups(channels: Sequence[int], groups: int) -> None:
    """Check that the channels of every level make groups of equal size.

    Args:
        channels: of each level.
        groups: groups of the group normalisation.

    Raises:
        FieldError: they do not.

    Example:
        >>> check_groups((256, 500), 8)
        Traceback (most recent call last):
        ractd_jax.errors.FieldError: down_dims: 500 channels do not make 8 equal groups; \
change them or groups
    """
    for width in channels:
        if width < 1 or width % groups:
            raise errors.FieldError(
                "down_dims",
                f"{{field}}: {width} channels do not make {groups} equal groups; change them or "
                "groups",
            )


def check_horizon(levels: int, horizon: int) -> None:
    """Check that a U-Net can halve the horizon between its levels.

    Args:
        levels: of the U-Net.
        horizon: steps of a trajectory.

    Raises:
        FieldError: it cannot; the message names the nearest horizons that work.

    Example:
        >>> check_horizon(3, 18)
        Traceback (most recent call last):
        ractd_jax.errors.FieldError: down_dims has 3 levels, which halve 18 steps 2 times: this \
needs a multiple of 4: 16 or 20, or fewer down_dims
    """
    parts = 2 ** (levels - 1)
    if horizon % parts:
        nearest = (horizon - horizon % parts, horizon + -horizon % parts)
        raise errors.FieldError(
            "down_dims",
            f"{{field}} has {levels} levels, which halve {horizon} steps {levels - 1} times: this "
            f"needs a multiple of {parts}: {' or '.join(str(h) for h in nearest if h)}, or fewer "
            "down_dims",
        )
