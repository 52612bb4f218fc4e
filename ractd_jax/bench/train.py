"""Updates per second: many updates a dispatch against one, on windows of random rows.

What is learnt from random rows is worthless; how fast is not.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ractd_jax import config as configuration
from ractd_jax.bench import floor
from ractd_jax.config import Config
from ractd_jax.data import windows
from ractd_jax.methods import registry
from ractd_jax.nn.cpu import conv1d
from ractd_jax.tasks import TaskSpec
from ractd_jax.training import loop

ROWS = 20_000  # of the made-up dataset
ROUNDS = 3  # fused and stepwise take turns


def random_rows(task: TaskSpec, horizon: int, seed: int = 0) -> windows.Dataset:
    """Return a training set of uniform noise in [-1, 1]."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> Array:
        return jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)

    return windows.Dataset(
        observations=noise(ROWS, task.obs_dim),
        actions=noise(ROWS, task.act_dim),
        returns=noise(ROWS),
        starts=jnp.arange(ROWS - horizon, dtype=jnp.int32),
        segment_ends=jnp.full(ROWS, ROWS - 1, jnp.int32),
        episode_starts=jnp.zeros(ROWS, jnp.int32),
        rest=jnp.zeros(task.act_dim + task.obs_dim),
    )


def measure(
    config: Config, rates: Mapping[str, float], max_seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield an entry for teacher, reward and student; arguments as in `act.measure`.

    A dispatch has `training.updates_per_dispatch` updates, fewer where all would take too long.

    `operations` are those that the networks are defined by, every tap of every convolution, and
    their share of the product rate is what the table shows; `operations_done` those of the program.
    """
    for stage in ("reward", "teacher", "student"):
        # Far from the end of the schedule.
        longer = configuration.replace(config, **{f"{stage}__optimiser__steps": 10**6})
        precision = "float32" if stage == "reward" else config.training.precision
        yield _stage(longer, stage, rates[precision], max_seconds)


def _stage(config: Config, stage: str, rate: float, max_seconds: float) -> dict[str, Any]:
    task, algorithm = config.task, registry.make(config, stage)
    horizon = registry.horizon(config, stage)
    batch = config.stages[stage].optimiser.batch_size
    history = registry.history(config, stage)
    rows = random_rows(task, horizon)

    def start(key):
        needs = registry.needs(config, stage)
        key, *keys = jax.random.split(key, 1 + len(needs))
        pairs = zip(needs, keys, strict=True)
        frozen = {role: registry.make(config, needs[role]).init(key).params for role, key in pairs}
        return algorithm.init(key, frozen) if frozen else algorithm.init(key)

    def sample(rows, key):
        return windows.sample_windows(rows, key, batch_size=batch, horizon=horizon, history=history)

    def update(state, rows, key):
        key_batch, key_update = jax.random.split(key)
        return algorithm.update(state, sample(rows, key_batch), key_update)

    shapes = jax.eval_shape(start, jax.random.key(0))  # nothing is made that may be skipped
    # As the networks define them: the program may get by with fewer (`winograd`).
    done = floor.operations(update, shapes, rows, jax.random.key(0))
    with conv1d.xla_convolutions():
        operations = floor.operations(update, shapes, rows, jax.random.key(0))
    entry = {"stage": stage, "batch": batch, "operations": operations, "operations_done": done}
    if 5 * operations / rate > max_seconds:
        return entry | dict.fromkeys(RATES)
    state = jax.jit(start)(jax.random.key(0))
    updates = loop.make_loop(algorithm, sample, jax.random.key(0))

    def run(state, n):
        begun = time.perf_counter()
        state, _, _ = updates(state, rows, n)
        int(state.step)  # waits, as `training.loop.fit` does after every dispatch
        return state, time.perf_counter() - begun

    state, first = run(state, 1)
    state, one = run(state, 1)
    n = int(np.clip(max_seconds / (2 * ROUNDS * one), 1, config.training.updates_per_dispatch))
    fused, stepwise = [], []
    for _ in range(ROUNDS):
        state, took = run(state, n)
        fused.append(n / took)
        begun = time.perf_counter()
        for _ in range(n):
            state, _ = run(state, 1)
        stepwise.append(n / (time.perf_counter() - begun))
    per_second = float(np.median(fused))
    return entry | {
        "fused_per_s": per_second,
        "stepwise_per_s": float(np.median(stepwise)),
        "fused_over_stepwise": float(np.median(np.divide(fused, stepwise))),
        "updates_fused": n,
        "compile_s": max(first - one, 0.0),
        "share_of_product_rate": per_second * operations / rate,
    }


RATES = (
    "fused_per_s",
    "stepwise_per_s",
    "fused_over_stepwise",
    "updates_fused",
    "compile_s",
    "share_of_product_rate",
)
