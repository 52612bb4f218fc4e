"""Weights of the published PyTorch code as parameters of `networks`, and its normalizer.

The published modules and those in JAX hold the same numbers in other layouts: a linear weight is
transposed, a convolution's (out, in, width) becomes (width, in, out), and so does a transposed
convolution's (in, out, width).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ractd_jax.data import normalization
from ractd_jax.errors import UserError
from ractd_jax.torch_import import pickle_reader
from ractd_jax.types import Params

# Published module name -> path in our parameters; \1 and \2 are level and block.
_UNET = [
    (r"diffusion_step_encoder\.1\.", "condition/dense0/linear/"),
    (r"diffusion_step_encoder\.3\.", "condition/dense1/linear/"),
    (r"(down|up)_modules\.(\d)\.2\.conv\.", r"\1\2_sample/"),
    (r"(down|up)_modules\.(\d)\.(\d)\.", r"\1\2_block\3/"),
    (r"mid_modules\.(\d)\.", r"mid_block\1/"),
    (r"final_conv\.0\.block\.0\.", "final_block/conv/"),
    (r"final_conv\.0\.block\.1\.", "final_block/norm/"),
    (r"final_conv\.1\.", "final_conv/"),
    (r"blocks\.(\d)\.block\.0\.", r"block\1/conv/"),
    (r"blocks\.(\d)\.block\.1\.", r"block\1/norm/"),
    (r"cond_encoder\.1\.", "film/linear/"),
    (r"residual_conv\.", "shortcut/"),
]
_RETURN = [
    (r"final_linear\.", "output/linear/"),
    (r"blocks\.(\d)\.(\d)\.blocks\.0\.", r"level\1_block\2_dense0/linear/"),
    (r"blocks\.(\d)\.(\d)\.blocks\.2\.", r"level\1_block\2_dense1/linear/"),
    (r"blocks\.(\d)\.(\d)\.residual_linear\.", r"level\1_block\2_shortcut/linear/"),
]


def _leaf(path: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """Return our leaf name and layout of one published array."""
    if path.endswith("norm/weight"):
        return path.replace("weight", "scale"), weight
    if weight.ndim == 1:
        return path, weight
    path = path.removesuffix("weight") + "kernel"
    if weight.ndim == 2:
        return path, weight.T
    is_transposed = path.startswith("up") and path.endswith("_sample/kernel")
    return path, weight.transpose(2, 0, 1) if is_transposed else weight.transpose(2, 1, 0)


def kind_of(weights: Mapping[str, Any]) -> str:
    """Return "teacher", "student" or "reward" by names and shapes alone.

    Only the layers that read the condition tell a student from a teacher: they have columns for
    the embeddings of two times, not of one, and then for the observation. As nothing says where one
    ends, the embedding is taken to be at least as wide as the observation (published: 128 and 256
    against at most 60).

    Args:
        weights: published names, without the prefix "model.", to anything with a shape.

    Raises:
        UserError: the names are those of no published network.
    """
    if "final_linear.weight" in weights:
        return "reward"
    film, embedding = "mid_modules.0.cond_encoder.1.weight", "diffusion_step_encoder.3.bias"
    if {"final_conv.1.weight", film, embedding} <= weights.keys():
        columns, width = ((0, *weights[name].shape)[-1] for name in (film, embedding))
        return "student" if columns > 2 * width else "teacher"
    hint = ""
    if "final_block.0.weight" in weights:
        hint = "; they look like the convolutional return model, which is not supported"
    raise UserError(
        "these weights belong to no published network: neither final_conv.1.weight (teacher, "
        f"student) nor final_linear.weight (return model) is among them{hint}"
    )


def _tree(kind: str, weights: Mapping[str, np.ndarray]) -> Params:
    """Return the weights under our names and in our layouts."""
    params: dict = {}
    for name, weight in weights.items():
        path = name
        for pattern, replacement in _RETURN if kind == "reward" else _UNET:
            path = re.sub(pattern, replacement, path)
        path, array = _leaf(path, np.asarray(weight))
        if "." in path:
            raise ValueError(f"{name} is no weight of it")
        *parents, leaf = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = np.ascontiguousarray(array, np.float32)
    return params


def params_from_torch(weights: Mapping[str, np.ndarray]) -> tuple[str, dict, Params]:
    """Translate a published state dict.

    Args:
        weights: published names, without the prefix "model.", to arrays.

    Returns:
        What it is (see `kind_of`); the arguments of the network in `networks` that its shapes
        imply (`ConditionalUnet1D`, or `ReturnMLP` for a return model); and the parameters for that
        network.

    Raises:
        UserError: the names or shapes are those of no published network.
    """
    kind = kind_of(weights)
    try:
        params = _tree(kind, weights)
        if kind == "reward":
            levels = sorted(k for k in params if re.fullmatch(r"level\d_block0_dense0", k))
            return kind, {"dims": [len(params[k]["linear"]["bias"]) for k in levels]}, params
        blocks = sorted(k for k in params if re.fullmatch(r"down\d_block0", k))
        network = {
            "down_dims": [len(params[k]["block0"]["conv"]["bias"]) for k in blocks],
            "embed_dim": len(params["condition"]["dense1"]["linear"]["bias"]),
            "width": params["final_block"]["conv"]["kernel"].shape[0],
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"these weights are not those of a published {kind}: {error}") from error
    return kind, network, params


# ---- what a checkpoint holds -------------------------------------------------------------------


def parts_of(state: Mapping[str, Any]) -> dict[str, dict[str, pickle_reader.Tensor]]:
    """Return the weights of each network in a published policy's state dict, by `kind_of`.

    A student's file also holds the teacher and the return model that it was distilled from.

    Args:
        state: names with the prefix "model.", or bare names of one network.
    """

    def under(prefix: str) -> dict[str, pickle_reader.Tensor]:
        tensors = {str(k): v for k, v in state.items() if isinstance(v, pickle_reader.Tensor)}
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    main = under("model.") or under("")
    parts = {kind_of(main): main}
    if "student" in parts:
        parts |= {name: under(f"{name}.") for name in ("teacher", "reward") if under(f"{name}.")}
    return parts


def normalizer_of(
    file: pickle_reader.TorchFile, state: Mapping[str, Any]
) -> normalization.Normalizer | None:
    """Return the normalizer in a published policy's state dict, or None if there is none."""

    def arrays(field: str) -> tuple[np.ndarray, np.ndarray]:
        names = (f"normalizer.params_dict.{field}.{part}" for part in ("scale", "offset"))
        scale, offset = (file.array(state[name]).astype(np.float32) for name in names)
        return scale, offset

    try:
        observations, actions = arrays("observations"), arrays("actions")
        scale, offset = (array.reshape(()) for array in arrays("rewards"))
    except (AttributeError, KeyError, ValueError):  # no such tensors, or no number
        return None
    return normalization.Normalizer(
        normalization.affine(*observations),
        normalization.affine(*actions),
        normalization.affine(scale, offset),
    )


def state_dicts(content: Any) -> dict[str, dict]:
    """Return the state dicts of a checkpoint by name: "model", and perhaps "ema_model"."""
    states = content.get("state_dicts", {"model": content}) if isinstance(content, dict) else None
    if not isinstance(states, dict) or not isinstance(states.get("model"), dict):
        raise UserError("it holds neither state_dicts with a model nor the weights of one")
    return {k: v for k, v in states.items() if isinstance(v, dict)}
