"""A method is looked at by shapes before it is trained: its functions must fit its record."""

from typing import Any

import jax
import jax.numpy as jnp

from ractd_jax import errors
from ractd_jax.config import Config
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import registry
from ractd_jax.training import restore
from ractd_jax.types import Algorithm, Batch, Transition

ROWS = 3  # of the example: no other size is likely to be 3 by chance alone


def check(config: Config, stage: str, algorithm: Algorithm) -> None:
    """Refuse a method whose functions do not fit what its record says.

    Nothing is computed: shapes alone are followed through `init`, `update` and `act`.

    Args:
        config: the configuration.
        stage: one of its stages.
        algorithm: what its method made.

    Raises:
        UserError: it acts although it says it does not, or the other way round; its update does not
            take the batches that it says it reads; its actions have another shape than those.
    """
    method, context = registry.get(stage), registry.context(config, stage)
    text = f"method {stage!r}: "
    if (algorithm.act is not None) != method.acts:
        raise errors.UserError(f"{text}its record says acts={method.acts}, its algorithm does not")
    if (algorithm.value is not None) != method.values:
        raise errors.UserError(
            f"{text}its record says values={method.values}, its algorithm does not"
        )
    if (config.stages[stage].data is not None) != (method.reads is Reads.TRANSITIONS):
        raise errors.UserError(
            f"{text}its section `data` says how it sees single steps, but its record says that it "
            f"reads {method.reads.value}"
        )
    key = jax.eval_shape(lambda: jax.random.key(0))
    frozen = restore.frozen_shapes(config, stage)
    state = jax.eval_shape(algorithm.init, key, *([frozen] if frozen else []))
    batch = example(method, context)
    if algorithm.sample is None:
        _update(text, method, algorithm, state, batch, key)
    if algorithm.act is not None:
        params = restore.template(algorithm, config.task, frozen)["params"]
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), ROWS))
        shape = jax.eval_shape(algorithm.act, params, batch.cond, keys).shape
        promised = batch.x.shape
        if method.reads is Reads.STATE_ACTION:  # of which it gives one half
            task = config.task
            dim = task.obs_dim if task.kind == "planner" else task.act_dim
            promised = (*promised[:-1], dim)
        if shape != promised:
            raise errors.UserError(
                f"{text}it acts in shapes {shape[1:]}, but its record says that it reads "
                f"{method.reads.value}, of shapes {promised[1:]}"
            )


def example(method: Method, context: Context) -> Any:
    """Return the shapes of a batch that a method says it reads."""

    def array(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((ROWS, *shape), jnp.float32)

    shape = context.shape
    if method.reads is Reads.RETURNS:
        shape = (1, shape[1])
    if method.reads is Reads.STATE_ACTION:
        task = context.task
        shape = (context.horizon, task.act_dim + task.obs_dim)
    x, cond = array(*shape), array(context.cond_dim)
    if method.reads is Reads.TRANSITIONS:
        return Transition(x, cond, array(), cond, array())
    return Batch(x, cond, array())


def _update(
    text: str, method: Method, algorithm: Algorithm, state: Any, batch: Any, key: Any
) -> None:
    try:
        _, metrics = jax.eval_shape(algorithm.update, state, batch, key)
    except (AttributeError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise errors.UserError(
            f"{text}its update does not take batches of {method.reads.value}, which its record "
            f"says it reads: {line}"
        ) from error
    if "loss" not in metrics:
        raise errors.UserError(f"{text}its metrics have no loss: {', '.join(metrics)}")
