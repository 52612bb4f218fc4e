"""Time per decision: student, teacher and DDPM, from observations to actions, at several batches.

A decision is what a rollout asks for: observations in NumPy, normalise, sample, un-normalise,
actions in NumPy (which waits for the device). Weights are random, for speed does not depend on
them; nothing here says how good an action is.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ractd_jax import config as configuration
from ractd_jax.bench import floor, versus
from ractd_jax.config import Config
from ractd_jax.data import normalization
from ractd_jax.methods import registry
from ractd_jax.policies.policy import Policy
from ractd_jax.types import Algorithm, Params


class Contender(NamedTuple):
    """A stage, how it samples (`Method.sampling_fields`), and its `training.precision`."""

    name: str
    stage: str
    sampling: dict[str, Any]
    precision: str = "float32"


TEACHER = "EDM, Heun, 80 bins"
STUDENT = "student, NFE 1"
LOW = "student, NFE 1, bfloat16"
CONTENDERS = (
    *(Contender(f"student, NFE {n}", "student", {"nfe": n}) for n in (1, 2, 3, 4)),
    Contender(LOW, "student", {"nfe": 1}, "bfloat16"),
    Contender("DDIM 15", "ddpm", {"sampler": "ddim", "sample_steps": 15}),
    Contender("DDPM 15", "ddpm", {"sampler": "ddpm", "sample_steps": 15}),
    Contender("DDPM 100", "ddpm", {"sampler": "ddpm", "sample_steps": 100}),
    Contender(TEACHER, "teacher", {"solver": "heun", "sample_bins": 80}),
)


def as_contender(config: Config, contender: Contender) -> Config:
    """Return a configuration whose stage samples so, and can be started without any other."""
    stage = contender.stage
    fields = dict(contender.sampling)
    if stage in ("student", "ctd"):
        fields["warm_start"] = False
    changed = {f"{stage}__method__{name}": value for name, value in fields.items()}
    return configuration.replace(config, training__precision=contender.precision, **changed)


def random_weights(algorithm: Algorithm, stage: str, seed: int = 0) -> Params:
    """Return first weights; the rest of the training state is never made."""
    frozen = ({},) if stage in ("student", "ctd") else ()
    return jax.jit(lambda key: algorithm.init(key, *frozen).params)(jax.random.key(seed))


def measure(
    config: Config,
    rates: Mapping[str, float],
    *,
    seconds: float,
    max_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Yield an entry for each contender and batch of `config.bench.batches`.

    Args:
        config: the configuration.
        rates: of matrix products, by precision, in operations per second.
        seconds: of repeating each measurement.
        max_seconds: that the five decisions of a measurement may take at least; one that would
            take longer is skipped, its times are None.
    """
    task = config.task
    weights: dict[str, Params] = {}  # by stage
    speed: dict[tuple[str, str], float] = {}  # by stage and precision
    torch_networks: dict[tuple[str, str], Any] = {}
    compare = versus.reference() is not None
    for contender in CONTENDERS:
        name, stage, _, precision = contender
        changed = as_contender(config, contender)
        algorithm = registry.make(changed, stage)
        assert algorithm.act is not None
        held = stage, precision
        if stage not in weights:  # one network in memory at a time
            weights = {stage: random_weights(algorithm, stage)}
        if compare and held not in torch_networks:
            torch_networks = {held: versus.network(changed, stage, weights[stage])}
        params = jax.tree.map(lambda a, dtype=precision: a.astype(dtype), weights[stage])
        if held not in speed:
            speed[held] = floor.bandwidth(floor.size(params))
        calls, slower = registry.calls(changed, stage), 1.0
        torch_actor = versus.actor(changed, stage, torch_networks[held]) if compare else None
        normalizer = normalization.identity(task.obs_dim, task.act_dim)
        history = registry.history(changed, stage)
        actor = Policy(algorithm, params, normalizer, task, history=history)
        for batch in config.bench.batches:
            cond = jnp.zeros((batch, history * task.obs_dim))
            shapes = cond, jax.random.split(jax.random.key(0), batch)
            operations = floor.operations(algorithm.act, params, *shapes)
            read = calls * floor.size(params)
            least = max(read / speed[held], operations / rates[precision])
            entry = {
                "policy": name,
                "stage": stage,
                "batch": batch,
                "nfe": calls,
                "bytes": read,
                "operations": operations,
                "bandwidth": speed[held],
                "floor_ms": 1000 * least,
            }
            if 5 * slower * least > max_seconds:
                yield entry | dict.fromkeys(TIMES)
                continue
            entry |= decisions(actor, batch, seconds)
            if torch_actor:
                entry |= against(
                    actor, torch_actor, batch, seconds=seconds, max_seconds=max_seconds
                )
            slower = max(entry["median_ms"] / entry["floor_ms"], 1.0)
            yield entry | {"floor_ratio": entry["median_ms"] / entry["floor_ms"]}


def against(
    actor: Policy,
    torch_actor: Callable[[np.ndarray], np.ndarray],
    batch: int,
    *,
    seconds: float,
    max_seconds: float,
) -> dict[str, Any]:
    """Time decisions in PyTorch and in JAX in turns, see `versus.turns`."""
    obs, seeds = np.zeros((batch, actor.task.obs_dim), np.float32), np.arange(batch)
    timed = versus.turns(
        lambda: actor.act(obs, seeds, 3),
        lambda: torch_actor(obs),
        seconds=seconds,
        max_seconds=max_seconds,
    )
    ((torch, ratio),) = timed or [(None, None)]
    return {"torch_ms": torch and 1000 * torch, "torch_over_jax": ratio}


TIMES = ("median_ms", "p95_ms", "p99_ms", "compile_s", "repeats", "floor_ratio")


def decisions(actor: Policy, batch: int, seconds: float) -> dict[str, Any]:
    """Time decisions of one policy; compiling is what the first takes longer than the median."""
    obs, seeds = np.zeros((batch, actor.task.obs_dim), np.float32), np.arange(batch)
    begun = time.perf_counter()
    actor.act(obs, seeds, 0)
    first = time.perf_counter() - begun
    actor.act(obs, seeds, 1)  # the first call after compiling is not yet typical
    times = floor.timed(lambda: actor.act(obs, seeds, 2), seconds)
    median = float(np.median(times))
    return {
        "median_ms": 1000 * median,
        "p95_ms": 1000 * float(np.percentile(times, 95)),
        "p99_ms": 1000 * float(np.percentile(times, 99)),
        "compile_s": max(first - median, 0.0),
        "repeats": len(times),
    }
