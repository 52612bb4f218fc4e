"""A configuration and published weights, made to fit: sizes taken over, everything else compared.

The weights say how large their networks are. What they say of observations and actions has to be
the task's, and nothing may be missing in them.
"""

import shlex
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ractd_jax import config as configuration
from ractd_jax import errors, networks
from ractd_jax.config import Config
from ractd_jax.errors import UserError
from ractd_jax.methods import registry
from ractd_jax.types import Params

_BAD_FIT = "the weights do not fit the network that they imply: "


# ---- sizes ---------------------------------------------------------------------------------------


def with_sizes(
    config: Config, kind: str, network: Mapping[str, Any]
) -> tuple[Config, tuple[str, ...]]:
    """Give a configuration the sizes of the weights.

    Student and teacher get the same, as the warm start wants.

    Args:
        config: the configuration.
        kind: of the weights, see `weights.kind_of`.
        network: fields of its network, see `weights.params_from_torch`.

    Returns:
        The configuration, and the flags of the command line that would have changed it so.

    Raises:
        UserError: the configuration's networks or horizon are not for such weights.
    """
    sizes = {name: _immutable(value) for name, value in network.items()}
    if kind == "reward":
        changes = [("reward", "method", {"members": 1})]
        changes += [("reward", "network", sizes | {"layer_norm": False})]
    else:
        _check_horizon(len(sizes["down_dims"]), config.data.horizon)
        changes = [(stage, "network", sizes) for stage in ("teacher", "ctd", "student")]
    flags: list[str] = []
    for stage, part, fields in changes:
        config, set_now = _with_fields(config, stage, part, fields)
        flags += set_now
    return config, tuple(flags)


def _with_fields(
    config: Config, stage: str, part: str, fields: Mapping[str, Any]
) -> tuple[Config, list[str]]:
    """Set fields of a part of a stage; return the flags of those that were otherwise before."""
    old = getattr(config.stages[stage], part)
    if part == "network" and not isinstance(old, (networks.ConditionalUnet1D, networks.ReturnMLP)):
        raise UserError(
            f"size={config.size} is not a U-Net, published weights are: leave size= out"
        )
    changed = {name: value for name, value in fields.items() if getattr(old, name) != value}
    try:
        new = configuration.replace(old, **changed)
    except errors.FieldError as error:
        raise error.within(f"{stage}.{part}") from None
    flags = []
    for name, value in changed.items():
        text = repr(value).replace(" ", "")
        flags.append(shlex.quote(f"--config.{stage}.{part}.{name}={text}"))
    return configuration.replace(config, **{f"{stage}__{part}": new}), flags


def _check_horizon(levels: int, horizon: int) -> None:
    if horizon % 2 ** (levels - 1):
        raise UserError(
            f"a U-Net of {levels} levels needs a horizon that 2^{levels - 1} divides, not "
            f"{horizon}: set --config.data.horizon to the one it was trained with"
        )


def _immutable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ---- comparisons ---------------------------------------------------------------------------------


def check_task(config: Config, kind: str, network: Mapping[str, Any], params: Params) -> None:
    """Refuse weights for observations and actions of other sizes than the task's.

    Args:
        config: the configuration.
        kind: of the weights.
        network: fields of its network.
        params: the weights.

    Raises:
        UserError: they are for another task.
    """
    task = config.task
    if kind == "reward":
        is_planner = task.kind == "planner"  # whose return model sees a state alone
        have = {"inputs": _weight(params, "level0_block0_dense0/linear/kernel").shape[0]}
        want = {"inputs": task.obs_dim if is_planner else task.obs_dim + task.act_dim}
    else:
        columns = _weight(params, "mid_block0/film/linear/kernel").shape[0]
        embeddings = network["embed_dim"] * (2 if kind == "student" else 1)
        output = len(_weight(params, "final_conv/bias"))
        have = {"condition": columns - embeddings, "output": output}
        context = registry.context(config, kind)
        want = {"condition": context.cond_dim, "output": context.shape[1]}
    if have != want:
        in_file, of_task = (", ".join(f"{k} {v}" for k, v in d.items()) for d in (have, want))
        raise UserError(
            f"these weights are for another task: {in_file}, where {task.name} has {of_task}; "
            "give the --config of theirs"
        )


def _weight(params: Params, path: str) -> np.ndarray:
    """Return the weight at a path, or say that there is none."""
    for name in path.split("/"):
        if not isinstance(params, dict) or name not in params:
            raise UserError(f"{_BAD_FIT}{path} is missing in the file")
        params = params[name]
    return params


def check_complete(have: Params, want: Params) -> None:
    """Refuse weights that are not exactly those of the network, or not finite.

    Args:
        have: arrays.
        want: the same tree of shapes.

    Raises:
        UserError: a weight is missing, left over, of another shape, NaN or infinite.

    Example:
        >>> check_complete({"w": np.ones(3)}, {"w": jax.ShapeDtypeStruct((3,), np.float32)})
    """
    arrays, shapes = _leaves(have), _leaves(want)
    for path in sorted(arrays.keys() | shapes.keys()):
        in_file, in_network = (
            tuple(tree[path].shape) if path in tree else "missing" for tree in (arrays, shapes)
        )
        if in_file != in_network:
            raise UserError(
                f"{_BAD_FIT}{path} is {in_file} in the file and {in_network} in the network"
            )
        if not np.isfinite(arrays[path]).all():
            raise UserError(f"the weights hold NaN or infinity in {path}")


def _leaves(tree: Params) -> dict[str, Any]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths}
