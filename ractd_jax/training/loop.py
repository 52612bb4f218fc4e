"""The training loop: many updates a dispatch, everything on the device.

One compiled program serves a whole run. It draws its minibatches on the device, and its randomness
is the run's key folded with the update's number, so neither the size of a dispatch nor a stop and a
restart in between changes a single bit of the result.

On several devices each runs that program on its share of the batch, drawn with the device's index
folded into the key; gradients are averaged in `train_state.apply_gradients`, so all devices hold
the same state. Another number of devices draws other samples: to the same bits resumes only a run
that keeps its number.

Several seeds can share one program: with their states and keys stacked the loop trains them all, on
the same data and each with its own draws, as if each were alone.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ractd_jax import errors
from ractd_jax.train_state import TrainState
from ractd_jax.training import multihost
from ractd_jax.types import Algorithm

if TYPE_CHECKING:  # which does not take JAX's name for it
    from jaxlib._jax import Device
else:
    Device = jax.Device

AXIS = "devices"


class Progress(NamedTuple):
    """What one dispatch reports.

    Attributes:
        step: updates made so far.
        metrics: mean of every metric over the dispatch; of several seeds, each one's.
        finite: False if the loss of the last update (of any seed) was not a finite number.
    """

    step: int
    metrics: dict[str, float | list[float]]
    finite: bool


def devices_for(wanted: int, batch_size: int) -> list[Device]:
    """Return the devices to train on.

    Args:
        wanted: how many; 0 for all: of this machine or, of several processes, of every one.
        batch_size: examples of an update, all devices together.

    Raises:
        UserError: there are not so many, or they cannot share the batch evenly.
    """
    present = jax.devices()
    count = wanted or len(present)
    if multihost.several() and count != len(present):
        raise errors.UserError(
            f"training.devices = {wanted}: several processes train on all their {len(present)} (0)"
        )
    if not 0 < count <= len(present):
        raise errors.UserError(
            f"training.devices = {wanted}: this machine has {len(present)} (0 takes them all)"
        )
    if batch_size % count:
        raise errors.UserError(
            f"{count} devices cannot share batches of {batch_size} evenly: change "
            "optimiser.batch_size of the stage, or name a divisor with --config.training.devices"
        )
    return present[:count]


def make_loop(
    algorithm: Algorithm,
    sample: Callable,
    key: Key[Array, "*seeds"],
    devices: Sequence[Device] = (),
) -> Callable[..., Any]:
    """Compile `(state, dataset, n) -> (state, mean metrics, finite)`, n updates in one dispatch.

    The count is a traced number, hence a while loop rather than a scan: the last, shorter dispatch
    of a run runs the same program as the others. The loop stops at the first loss that is not
    finite. The state is donated: its buffers become those of the result.

    Args:
        algorithm: what to train.
        sample: `(dataset, key) -> batch`; of several devices, each one's share.
        key: the run's key; or one for each seed (`stack`), and the loop's state and mean metrics
            have as many rows.
        devices: to train on; the algorithm's optimiser must then have `axis=AXIS`. None or one:
            wherever the state lies.

    Raises:
        ValueError: several seeds on several devices.
    """
    many = len(devices) > 1
    if many and key.ndim:
        raise ValueError("several seeds train on one device")

    def update(key, state, dataset):
        key_step = jax.random.fold_in(key, state.step)
        if many:
            key_step = jax.random.fold_in(key_step, jax.lax.axis_index(AXIS))
        key_batch, key_update = jax.random.split(key_step)
        state, metrics = algorithm.update(state, sample(dataset, key_batch), key_update)
        return state, jax.lax.pmean(metrics, AXIS) if many else metrics

    @functools.partial(jax.jit, inline=True)  # so that it is traced once for both uses below
    def one(state, dataset):
        update_all = jax.vmap(update, (0, 0, None)) if key.ndim else update
        return update_all(key, state, dataset)

    def loop(state, dataset, n):
        def more(carry):
            i, _, _, finite = carry
            return (i < n) & finite

        def body(carry):
            i, state, sums, _ = carry
            state, metrics = one(state, dataset)
            sums = jax.tree.map(jnp.add, sums, metrics)
            return i + 1, state, sums, jnp.isfinite(metrics["loss"]).all()

        shapes = jax.eval_shape(one, state, dataset)[1]
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        i, state, sums, finite = jax.lax.while_loop(more, body, (0, state, zeros, True))
        return state, jax.tree.map(lambda total: total / i, sums), finite

    if many:
        # What jax.pmap did: it is in maintenance and built on shard_map itself. Without
        # check_vma=False, differentiating by replicated weights would already sum over devices,
        # and the mean in apply_gradients would come out too large by their number.
        everywhere = jax.P()
        loop = jax.shard_map(
            loop, mesh=_mesh(devices), in_specs=everywhere, out_specs=everywhere, check_vma=False
        )
    return jax.jit(loop, donate_argnums=0)


def _mesh(devices: Sequence[Device]) -> jax.sharding.Mesh:
    return jax.make_mesh(
        (len(devices),), (AXIS,), devices=devices, axis_types=(jax.sharding.AxisType.Auto,)
    )


def replicate(tree: Any, devices: Sequence[Device]) -> Any:
    """Return the tree with a copy of every array on each of the devices."""
    return jax.device_put(tree, jax.NamedSharding(_mesh(devices), jax.P()))


def one_copy(tree: Any) -> Any:
    """Return the first device's copy of every array: what is saved, whatever it was trained on."""
    return jax.tree.map(lambda a: a.addressable_data(0), tree)


def stack(trees: Sequence[Any]) -> Any:
    """Return the trees as one, every array with a row for each."""
    return jax.tree.map(lambda *a: jnp.stack(a), *trees)


def row(tree: Any, i: int) -> Any:
    """Return tree number i of a stack."""
    return jax.tree.map(lambda a: a[i], tree)


def fit(
    algorithm: Algorithm,
    state: TrainState,
    dataset: Any,
    sample: Callable,
    *,
    steps: int,
    updates_per_dispatch: int,
    key: Key[Array, "*seeds"],
    devices: Sequence[Device] = (),
) -> Iterator[tuple[TrainState, Progress]]:
    """Train until `state.step` is `steps`; yield `(state, Progress)` after every dispatch.

    A dispatch ends at multiples of `updates_per_dispatch`, whatever step the state starts from. The
    yielded state is donated to the next dispatch: copy or save it before asking for more.

    Args:
        algorithm: what to train.
        state: what it starts from, from any number of devices; of several seeds, a stack.
        dataset: what `sample` draws from.
        sample: see `make_loop`.
        steps: number of the last update.
        updates_per_dispatch: between two looks at the numbers.
        key: see `make_loop`.
        devices: see `make_loop`.
    """
    loop = make_loop(algorithm, sample, key, devices)
    if len(devices) > 1:
        state, dataset = replicate((state, dataset), devices)
    step = int(state.step.max())  # of several seeds, all are equal
    while step < steps:
        n = min(updates_per_dispatch - step % updates_per_dispatch, steps - step)
        state, metrics, finite = loop(state, dataset, n)
        step = int(state.step.max())
        yield state, Progress(step, {k: v.tolist() for k, v in metrics.items()}, bool(finite))
