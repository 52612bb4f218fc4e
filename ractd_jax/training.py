"""The training loop: many updates a dispatch, everything on the device.

One compiled program serves a whole run. It draws its minibatches on the device, and its randomness
is the run's key folded with the update's number, so neither the size of a dispatch nor a stop and a
restart in between changes a single bit of the result.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ractd_jax.train_state import TrainState
from ractd_jax.types import Algorithm


class Progress(NamedTuple):
    """What one dispatch reports.

    Attributes:
        step: updates made so far.
        metrics: mean of every metric over the dispatch.
        finite: False if the loss of the last update was not a finite number.
    """

    step: int
    metrics: dict[str, float]
    finite: bool


def make_loop(algorithm: Algorithm, sample: Callable, key: PRNGKeyArray) -> Callable:
    """Compile `(state, dataset, n) -> (state, mean metrics, finite)`, n updates in one dispatch.

    The count is a traced number, hence a while loop rather than a scan: the last, shorter dispatch
    of a run runs the same program as the others. The loop stops at the first loss that is not
    finite. The state is donated: its buffers become those of the result.

    Args:
        algorithm: what to train.
        sample: `(dataset, key) -> batch`.
        key: the run's key.
    """

    def one(state, dataset):
        key_batch, key_update = jax.random.split(jax.random.fold_in(key, state.step))
        return algorithm.update(state, sample(dataset, key_batch), key_update)

    def loop(state, dataset, n):
        def more(carry):
            i, _, _, finite = carry
            return (i < n) & finite

        def body(carry):
            i, state, sums, _ = carry
            state, metrics = one(state, dataset)
            sums = jax.tree.map(jnp.add, sums, metrics)
            return i + 1, state, sums, jnp.isfinite(metrics["loss"])

        shapes = jax.eval_shape(one, state, dataset)[1]
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        i, state, sums, finite = jax.lax.while_loop(more, body, (0, state, zeros, True))
        return state, jax.tree.map(lambda total: total / i, sums), finite

    return jax.jit(loop, donate_argnums=0)


def fit(
    algorithm: Algorithm,
    state: TrainState,
    dataset,
    sample: Callable,
    *,
    steps: int,
    updates_per_dispatch: int,
    key: PRNGKeyArray,
):
    """Train until `state.step` is `steps`; yield `(state, Progress)` after every dispatch.

    A dispatch ends at multiples of `updates_per_dispatch`, whatever step the state starts from. The
    yielded state is donated to the next dispatch: copy or save it before asking for more.
    """
    loop = make_loop(algorithm, sample, key)
    step = int(state.step)
    while step < steps:
        n = min(updates_per_dispatch - step % updates_per_dispatch, steps - step)
        state, metrics, finite = loop(state, dataset, n)
        step = int(state.step)
        yield state, Progress(step, {k: float(v) for k, v in metrics.items()}, bool(finite))
