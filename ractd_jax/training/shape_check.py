"""A method is looked at by shapes before it is trained: its functions must fit its record."""

from collections.abc import Callable
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


def check(config: Config, stage: str, algorithm: Algorithm, *, updates: bool = True) -> None:
    """Refuse a method whose functions do not fit what its record says.

    Nothing is computed: shapes alone are followed through `init`, `update`, `act` and `value`.

    Args:
        config: the configuration.
        stage: one of its stages.
        algorithm: what its method made.
        updates: follow `update` too, which takes as long as the rest together. Training does so for
            methods from elsewhere; those of this package are held to their records by its tests.

    Raises:
        UserError: it acts although its record says it does not, or the other way round; a function
            does not take what the record says that it reads; actions, values or metrics have
            another shape than they must.
    """
    method, context = registry.get(stage), registry.context(config, stage)
    _check_record(config, method, algorithm)
    key = jax.eval_shape(lambda: jax.random.key(0))
    frozen = restore.frozen_shapes(config, stage)
    state = _trace(method, "init", algorithm.init, key, *([frozen] if frozen else []))
    batch = example(method, context)
    if updates and algorithm.sample is None:
        _, metrics = _trace(method, "update", algorithm.update, state, batch, key)
        if "loss" not in metrics:
            raise _refuse(method, f"its metrics have no loss: {', '.join(metrics)}")
    if algorithm.act is not None:
        params = restore.template(algorithm, config.task, frozen)["params"]
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), ROWS))
        shape = _trace(method, "act", algorithm.act, params, batch.cond, keys).shape
        promised = batch.x.shape
        if method.reads is Reads.STATE_ACTION:  # of which it gives one half
            task = config.task
            dim = task.obs_dim if task.kind == "planner" else task.act_dim
            promised = (*promised[:-1], dim)
        if shape != promised:
            raise _refuse(
                method,
                f"it acts in shapes {shape[1:]}, but its record says that it reads "
                f"{method.reads.value}, of shapes {promised[1:]}",
            )
    if algorithm.value is not None:
        shape = _trace(method, "value", algorithm.value, state.params, batch.x, batch.cond).shape
        if shape != (ROWS,):
            raise _refuse(
                method, f"its values of {ROWS} examples have shape {shape}: ({ROWS},) is needed"
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


def _check_record(config: Config, method: Method, algorithm: Algorithm) -> None:
    """Refuse a record that says other than what its algorithm has and its section is."""
    for word, function in (("acts", algorithm.act), ("values", algorithm.value)):
        said = getattr(method, word)
        if (function is not None) != said:
            raise _refuse(method, f"its record says {word}={said}, its algorithm does not")
    steps = config.stages[method.name].data is not None
    if steps != (method.reads is Reads.TRANSITIONS):
        raise _refuse(
            method,
            "its section `data` says how it sees single steps, but its record says that it reads "
            f"{method.reads.value}",
        )


def _trace(method: Method, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the shapes of what a function of a method answers."""
    try:
        return jax.eval_shape(function, *arguments)
    except errors.UserError:
        raise
    except Exception as error:  # whatever the method's own code does
        line = " ".join(str(error).split())[:200]
        raise _refuse(
            method,
            f"its {name} does not take batches of {method.reads.value}, which its record says it "
            f"reads: {type(error).__name__}: {line}",
        ) from error


def _refuse(method: Method, text: str) -> errors.UserError:
    return errors.UserError(f"method {method.name!r}: {text}")
