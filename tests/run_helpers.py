"""Runs that several test modules make and look into: small ones, and what they leave behind."""

import json
import sys

import jax
from helpers import ROOT, load, write_episodes

from ractd_jax import stages, tasks
from ractd_jax.policies import policy
from ractd_jax.training import checkpoints, pipeline

TINY = [
    "--config.teacher.network.hidden=16",
    "--config.ctd.network.hidden=16",
    "--config.student.network.hidden=16",
    "--config.teacher.method.sample_bins=4",
    "--config.teacher.optimiser.steps=30",
    "--config.ctd.optimiser.steps=30",
    "--config.student.optimiser.steps=30",
    "--config.reward.optimiser.steps=30",
    "--config.training.updates_per_dispatch=5",
    "--config.training.save_every=10",
    "--config.eval.episodes=2",
]


def tiny_experiment(name, path, **sections):
    """Return an experiment on made-up data, with networks and plans that compile in a blink.

    `sections` update those of the configuration.
    """
    _, config = load(name, f"all,size=demo,source={path / 'data.hdf5'}")
    write_episodes(tasks.get(config["task"]), path / "data.hdf5")
    config["data"]["horizon"] = min(config["data"]["horizon"], 16)
    config["reward"]["network"]["dims"] = [8]
    config["training"]["updates_per_dispatch"] = 2
    for stage in stages.of(config):
        config[stage]["optimiser"].update(steps=2, batch_size=8, warmup=0)
        network = config[stage]["network"]
        if network.get("kind") in ("mlp", "fourier"):
            network.update(hidden=8, blocks=1)
        elif network.get("kind") in ("unet", "value_unet"):
            network.update(down_dims=[8, 8], embed_dim=8)
        elif stage == "eda_behavior":
            network.update(hidden=8, blocks=1)
        elif stage == "eda":
            config[stage]["method"].update(states=8, proposals=2, nfe=2)
        elif "hidden" in network and stage != "inverse":
            network["hidden"] = [8]
    for section, fields in sections.items():
        config[section].update(fields)
    return pipeline.Experiment(config, str(path / "run"))


def command(data, stage, workdir, *flags):
    config = f"--config={ROOT}/configs/hopper_mr.py:{stage},size=demo,source={data}"
    return [sys.executable, str(ROOT / "main.py"), config, f"--workdir={workdir}", *TINY, *flags]


def curve(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def saved(run):
    """Return the acting weights and the normaliser of a run."""
    meta = checkpoints.read_json(run / checkpoints.CONFIG)
    job = pipeline.Experiment(meta["config"], str(run.parent))
    return job._saved(meta["stage"])


def saved_arrays(run_dir):
    """Return every array in the newest checkpoint of a teacher."""
    config = checkpoints.read_json(run_dir / checkpoints.CONFIG)["config"]
    task = tasks.get(config["task"])
    algorithm = stages.make(config, task, "teacher")
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    store = checkpoints.Checkpoints(run_dir)
    step = store.latest()
    items = [
        store.restore(step, "policy", policy.template(algorithm, task)),
        store.restore(step, "state", state),
    ]
    store.close()
    return jax.tree.leaves(items)
