"""Runs that several test modules make and look into: small ones, and what they leave behind."""

import json
import sys

import jax
from helpers import ROOT, load, write_episodes

from ractd_jax import tasks
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, opening, restore, run_dir
from ractd_jax.training.trainer import Trainer

TINY = [
    *(f"--config.{stage}.network.hidden=16" for stage in ("teacher", "ctd", "student")),
    *(f"--config.{stage}.network.blocks=1" for stage in ("teacher", "ctd", "student")),
    "--config.reward.network.dims=(8,)",
    "--config.teacher.method.sample_bins=4",
    "--config.teacher.optimiser.steps=30",
    "--config.ctd.optimiser.steps=30",
    "--config.student.optimiser.steps=30",
    "--config.reward.optimiser.steps=30",
    "--config.training.updates_per_dispatch=5",
    "--config.training.save_every=10",
    "--config.eval.episodes=2",
]
# Fields of networks that make them as small as they get, where a network has them.
SMALLEST = {"hidden": 8, "blocks": 1, "embed_dim": 8, "down_dims": [8, 8], "dims": [8]}


def tiny_config(name, path, **sections):
    """Return a configuration of made-up data, with networks and plans that compile in a blink.

    Args:
        name: of the file in `configs/`.
        path: folder of the data.
        **sections: fields that update sections, as `reward={"weights": "ema"}`, and others that
            replace what is there, as `critic="iql"`; of nested sections all fields stay that are
            not named.
    """
    _, values = load(name, f"all,size=demo,source={path / 'data.hdf5'}")
    write_episodes(tasks.get(values["task"]["name"]), path / "data.hdf5")
    values["data"]["horizon"] = min(values["data"]["horizon"], 16)
    values["training"]["updates_per_dispatch"] = 2
    for stage in registry.records():
        if stage in values:
            shrink(values[stage])
    update(values, sections)
    return registry.configure(values)


def shrink(section):
    """Make the section of a stage as small as it gets, and its training two updates."""
    section["optimiser"] |= {"steps": 2, "batch_size": 8, "warmup": 0}
    network = section["network"]
    for field in SMALLEST.keys() & network.keys():
        several = isinstance(network[field], list) and field == "hidden"
        network[field] = [SMALLEST[field]] if several else SMALLEST[field]
    if "states" in section["method"]:  # of EDA
        section["method"] |= {"states": 8, "proposals": 2, "nfe": 2}
    if "eta" in section["method"]:  # of Diffusion-QL, whose updates go through all its steps
        section["method"]["steps"] = 2


def update(values, changes):
    """Set fields of nested dicts, whatever is not named stays."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            update(values[name], value)
        else:
            values[name] = value


def tiny_pipeline(name, path, **sections):
    """Return the pipeline of a `tiny_config`; its runs lie in `path / "run"`."""
    return opening.open_pipeline(tiny_config(name, path, **sections), path / "run")


def train(pipeline, stage, **options):
    """Train a stage of a pipeline, and before it what it needs; options are those of `Trainer`."""
    Trainer([pipeline], **options).ensure(stage)


def command(data, stage, workdir, *flags):
    """Return the command line that trains, or evaluates, a tiny hopper-medium-replay."""
    config = f"--config={ROOT}/configs/hopper_mr.py:{stage},size=demo,source={data}"
    return [sys.executable, str(ROOT / "main.py"), config, f"--workdir={workdir}", *TINY, *flags]


def curve(run):
    """Return the records that a run has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def saved(run):
    """Return the acting weights and the normalizer of a run."""
    config, stage = run_dir.read(run)
    return restore.restore_stage(config, run.parent, stage)


def saved_arrays(run):
    """Return every array in the newest checkpoint of a stage that needs no other."""
    config, stage = run_dir.read(run)
    algorithm = registry.make(config, stage)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    store = checkpoints.Checkpoints(run)
    step = store.latest()
    items = [
        store.restore(step, "policy", restore.template(algorithm, config.task)),
        store.restore(step, "state", state),
    ]
    store.close()
    return jax.tree.leaves(items)
