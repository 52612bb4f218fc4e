"""The first weights of a student: its teacher's, with nothing said yet about the second time."""

import re

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ractd_jax import errors
from ractd_jax.types import Params


def warm_start(student_params: Params, teacher_params: Params, embed_dim: int) -> Params:
    """Copy the teacher's weights into a student; the second time gets zero weights.

    Every layer that reads the condition ("film", "skip_gain") has rows for [embedding of t,
    observation]; the student's has rows for [embedding of t, embedding of s, observation].

    Args:
        student_params: first weights of the student, which are replaced.
        teacher_params: trained weights.
        embed_dim: size of the embedding of one time.

    Raises:
        FieldError: the two networks are not alike.

    Example:
        >>> teacher = {"film": jnp.ones((3, 2))}  # two numbers of t, one observation
        >>> student = {"film": jnp.ones((5, 2))}
        >>> warm_start(student, teacher, embed_dim=2)["film"][:, 0].tolist()
        [1.0, 1.0, 0.0, 0.0, 1.0]
    """

    def copy(path, student: Array, teacher: Array) -> Array:
        if student.shape == teacher.shape:
            return jnp.copy(teacher)  # not the frozen teacher's own buffer, which lives on
        conditioned = re.search("film|skip_gain", jax.tree_util.keystr(path))
        wider = (teacher.shape[0] + embed_dim, *teacher.shape[1:])
        if not conditioned or student.ndim != 2 or student.shape != wider:
            raise unlike
        zeros = jnp.zeros((embed_dim, student.shape[1]), student.dtype)
        return jnp.concatenate([teacher[:embed_dim], zeros, teacher[embed_dim:]])

    unlike = errors.FieldError(
        "warm_start",
        "{field} copies the teacher's weights, so both need networks of the same kind (unet or "
        "mlp) and size: give this stage the teacher's network, or set {field}=False",
    )
    if jax.tree.structure(student_params) != jax.tree.structure(teacher_params):
        raise unlike
    return jax.tree.map_with_path(copy, student_params, teacher_params)
