"""Weights of the published PyTorch code as parameters of `networks`.

The published modules and ours hold the same numbers in other layouts: a linear weight is
transposed, a convolution's (out, in, width) becomes (width, in, out), and so does a transposed
convolution's (in, out, width).
"""

import re
from collections.abc import Mapping

import numpy as np

from ractd_jax.errors import UserError
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


def params_from_torch(weights: Mapping[str, np.ndarray]) -> tuple[str, dict, Params]:
    """Translate a published state dict.

    Args:
        weights: published names, without the prefix "model.", to arrays.

    Returns:
        What it is ("unet" or "reward"), the arguments of the network in `networks` that its shapes
        imply, and the parameters for that network.

    Raises:
        UserError: the names are those of no published network.
    """
    unet = "final_conv.1.weight" in weights
    if not unet and "final_linear.weight" not in weights:
        raise UserError(
            "these weights belong to no published network: neither final_conv.1.weight (teacher, "
            "student) nor final_linear.weight (return model) is among them"
        )
    params: dict = {}
    for name, weight in weights.items():
        path = name
        for pattern, replacement in _UNET if unet else _RETURN:
            path = re.sub(pattern, replacement, path)
        path, array = _leaf(path, np.asarray(weight))
        *parents, leaf = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = np.ascontiguousarray(array)
    if not unet:
        levels = sorted(k for k in params if re.fullmatch(r"level\d_block0_dense0", k))
        return "reward", {"dims": [len(params[k]["linear"]["bias"]) for k in levels]}, params
    blocks = sorted(k for k in params if re.fullmatch(r"down\d_block0", k))
    network = {
        "down_dims": [len(params[k]["block0"]["conv"]["bias"]) for k in blocks],
        "embed_dim": len(params["condition"]["dense1"]["linear"]["bias"]),
        "width": params["final_block"]["conv"]["kernel"].shape[0],
    }
    return "unet", network, params
