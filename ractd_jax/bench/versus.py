"""Ours against PyTorch: same weights, same batch, same threads, taking turns.

`benchmarks.torch_reference` is the other program. It is part of the repository, not of the
package, and needs torch (the extra `torch`): without either there is nothing to compare with.
"""

import dataclasses
import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ractd_jax import config as configuration
from ractd_jax import diffusion
from ractd_jax.bench import floor, train
from ractd_jax.config import Config
from ractd_jax.data import normalization, windows
from ractd_jax.methods import registry
from ractd_jax.training import loop
from ractd_jax.types import Params

ROUNDS = 5
SHARE = 10  # updates in JAX for one in PyTorch, whose time does not depend on their number
STAGE = "ctd"  # the student's update without a reward, whose small network is not the question


def reference() -> types.ModuleType | None:
    """Return the module `benchmarks.torch_reference`, or None where it or torch is missing.

    Its threads become those of this process. A module rather than an import: nothing in this file
    may need torch.
    """
    if not all(importlib.util.find_spec(name) for name in ("torch", "benchmarks")):
        return None
    return _reference()


def _reference() -> types.ModuleType:
    import torch

    from benchmarks import torch_reference

    if sys.platform == "linux":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch_reference


def turns(
    base: Callable[[], Any],
    *rivals: Callable[[], Any],
    seconds: float,
    max_seconds: float,
    rounds: int = ROUNDS,
) -> list[tuple[float, float]] | None:
    """Time several calls in turns.

    Args:
        base: call to compare with; like the rivals it must wait for its result.
        *rivals: the other calls.
        seconds: of all rounds together.
        max_seconds: that all of it may take: there are fewer rounds where they would not fit, and
            None is returned where not even two would.
        rounds: of taking turns, at most.

    Returns:
        Of each rival: (median time of a call in seconds, median over the rounds of its time
        divided by that of `base`).
    """
    first = 0.0
    for call in (base, *rivals):
        call()  # whatever happens at a first call
        begun = time.perf_counter()
        call()
        first += time.perf_counter() - begun
    rounds = min(rounds, int(max_seconds / (2 * first)))
    if rounds < 2:
        return None
    slot = seconds / rounds / (1 + len(rivals))
    medians = []
    for _ in range(rounds):
        row = []
        for call in (base, *rivals):
            call()  # the one before has left its threads spinning and its data in the caches
            row.append(float(np.median(floor.timed(call, slot, least=1))))
        medians.append(row)
    times = np.asarray(medians)
    seconds_of = np.median(times[:, 1:], axis=0)
    ratios = np.median(times[:, 1:] / times[:, :1], axis=0)
    return [(float(time), float(ratio)) for time, ratio in zip(seconds_of, ratios, strict=True)]


def _device() -> Any:
    import torch

    gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def network(config: Config, stage: str, params: Params) -> Any:
    """Return a stage's denoising network in PyTorch, with our weights, ready to act."""
    context = registry.context(config, stage)
    n_times = 2 if stage in ("student", "ctd") else 1
    section = registry.plain(config)[stage]["network"]
    net = _reference().network(
        section, context.shape, context.cond_dim, n_times, params, config.training.precision
    )
    return net.eval().to(_device())


def actor(config: Config, stage: str, net: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return `observations -> actions`, both in NumPy, as `Policy.act` works it out.

    Args:
        config: the configuration, with the sampling fields that are wanted.
        stage: of an acting model.
        net: from `network`; its weights are cast in place to what it computes in.
    """
    import torch

    for weight in net.parameters():
        weight.data = weight.data.to(getattr(torch, config.training.precision))
    program, noise, method = _reference(), config.noise, config.stages[stage].method
    shape, history = registry.context(config, stage).shape, registry.history(config, stage)
    task = config.task
    normalizer = normalization.identity(task.obs_dim, task.act_dim)
    # The affine maps and the clip of a decision belong to it.
    o, a = (
        [torch.from_numpy(np.array(part)).to(_device()) for part in field]
        for field in normalizer[:2]
    )
    low, high = (torch.from_numpy(x).to(_device()) for x in task.action_limits())
    if stage == "ddpm":
        sample, std = program.make_sample_ddpm(method, noise), 1.0
    elif stage == "teacher":
        grid = dataclasses.replace(noise, bins=method.sample_bins)
        levels = diffusion.sigmas(grid, jnp.arange(grid.bins))
        levels, std = torch.from_numpy(np.array(levels)).to(_device()), noise.initial_std

        def sample(net, x, cond):
            return program.sample_teacher(net, noise, levels, method.solver, x, cond)
    else:
        std = noise.initial_std

        def sample(net, x, cond):
            return program.sample_student(net, noise, method.nfe, x, cond)

    @torch.inference_mode()
    def act(obs):
        cond = (torch.from_numpy(obs).to(_device()) * o[0] + o[1]).repeat(1, history)
        x = sample(net, std * torch.randn(len(cond), *shape, device=cond.device), cond)
        return ((x[:, 0] - a[1]) / a[0]).clamp(low, high).cpu().numpy()

    return act


def updates(config: Config, *, seconds: float, max_seconds: float) -> dict[str, Any]:
    """Time the student's update (CTM + DSM) here, in PyTorch, and with the published loop.

    In JAX it is the loop that trains, with as many updates a dispatch
    (`training.updates_per_dispatch`), because each dispatch allocates its memory anew. PyTorch does
    one update for every `SHARE` in JAX. Each side draws its own minibatches from the same rows. The
    published loop always computes in float32, as its code does. At paper size on a CPU it is left
    out, because the memory is too small: in float32 it differs only in how times are drawn, and
    that costs the same for every network.
    """
    import torch

    program = _reference()
    config = configuration.replace(config, **{f"{STAGE}__method__warm_start": False})
    settings, horizon = config.stages[STAGE].optimiser, config.data.horizon
    batch, noise, student = settings.batch_size, config.noise, config.stages[STAGE].method
    algorithm, rows = registry.make(config, STAGE), train.random_rows(config.task, horizon)
    frozen = {"teacher": registry.make(config, "teacher").init(jax.random.key(0)).params}
    state = jax.jit(algorithm.init)(jax.random.key(1), frozen)

    large = config.size == "paper" and jax.default_backend() == "cpu"
    published = configuration.replace(config, training__precision="float32")
    loops = []
    for per_sample, form in ((False, config), (True, published))[: 1 if large else 2]:
        teacher = network(form, "teacher", frozen["teacher"])
        net = network(form, STAGE, state.params)
        loops.append(
            program.make_update(
                net, teacher, noise, student, configuration.plain(settings), per_sample=per_sample
            )
        )
    fields = rows.actions, rows.observations
    actions, observations = (torch.from_numpy(np.array(a)).to(_device()) for a in fields)
    offsets, history = torch.arange(horizon, device=_device()), registry.history(config, STAGE)
    back = torch.arange(history - 1, -1, -1, device=_device())

    n = config.training.updates_per_dispatch
    m = max(n // SHARE, 1)

    def in_torch(update):
        def run():
            for _ in range(m):
                first = torch.randint(len(rows.starts), (batch,), device=_device())
                seen = observations[(first[:, None] - back).clamp(min=0)].flatten(1)
                loss = update(actions[first[:, None] + offsets], seen)
            loss.item()  # waits

        return run

    def sample(rows, key):
        return windows.sample_windows(rows, key, batch_size=batch, horizon=horizon, history=history)

    updates = loop.make_loop(algorithm, sample, jax.random.key(2))

    def in_jax():
        nonlocal state
        state, _, _ = updates(state, rows, n)
        int(state.step)

    timed = turns(in_jax, *map(in_torch, loops), seconds=3 * seconds, max_seconds=max_seconds)
    entry = {"stage": STAGE, "batch": batch, "updates_a_turn": n, "torch_updates_a_turn": m}
    if timed is None:
        return entry | dict.fromkeys(RATIOS)
    results = [*timed, *[(None, None)] * (2 - len(timed))]
    ratios = [ratio and ratio * n / m for _, ratio in results]
    per_second = [t and m / t for t, _ in results]
    return entry | dict(zip(RATIOS, (*ratios, *per_second), strict=True))


RATIOS = ("torch_over_jax", "published_over_jax", "torch_per_s", "published_per_s")
