"""Checkpoints of the published PyTorch code as finished stage folders of ours.

`import_checkpoint` reads a teacher, a return model or a student, without torch and without running
anything in the file (`pickle_reader`), and writes the folder that training the same stage here
would have written, less what only a resume needs. It then acts (`load_policy`), is evaluated and is
distilled from.

What does not depend on the weights comes from a configuration. The network's sizes come from the
shapes of the weights (`fit`), the normalizer from the file or, where it holds none, from the
configuration's data. `__main__` is the same on the command line.
"""

import os
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ractd_jax import tasks
from ractd_jax.cli import configs
from ractd_jax.cli.fields import set_fields
from ractd_jax.config import Config
from ractd_jax.data.normalization import Normalizer
from ractd_jax.errors import UserError, choose
from ractd_jax.methods import registry
from ractd_jax.torch_import import fit, pickle_reader, weights
from ractd_jax.torch_import.pickle_reader import TorchFile
from ractd_jax.torch_import.weights import params_from_torch
from ractd_jax.training import checkpoints, config_checks, examples, opening, restore, run_dir
from ractd_jax.training.pipeline import Pipeline
from ractd_jax.types import Params


class Published(NamedTuple):
    """One model of a published file.

    Attributes:
        kind: "teacher", "student" or "reward".
        network: fields of its network.
        params: its weights, under our names.
        average: they are the averaged ones, not the live ones.
        normalizer: the file's; None where it holds none.
    """

    kind: str
    network: dict[str, Any]
    params: Params
    average: bool
    normalizer: Normalizer | None


def import_checkpoint(
    path: pathlib.Path,
    *,
    config: Config | None = None,
    name: str = "",
    given: Sequence[str] = (),
    stage: str | None = None,
    out: pathlib.Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> pathlib.Path:
    """Write a stage folder from a published checkpoint.

    Args:
        path: the checkpoint.
        config: the configuration it belongs to; None for that of the task the file names.
        name: how the command line calls `config`, for the next command that is printed.
        given: flags that set fields of `config`, for the same.
        stage: which of the file's models, and what it becomes here; None for the file's own (a
            student without return model is `ctd`).
        out: folder to write; None for the one where `main.py` looks for it.
        overwrite: replace a run in that folder.
        say: prints a line.

    Returns:
        The folder.

    Raises:
        UserError: the file is refused, does not fit the task, or the folder holds a run.

    Example:
        run = import_checkpoint(pathlib.Path("teacher.ckpt"))
        policy = ractd_jax.load_policy(run)
    """
    with TorchFile(path) as file:
        states, parts = _contents(file)
        stage, kind = _choose(path, parts, stage)
        named = sorted(file.strings() & tasks.TASKS.keys())
        if config is None:
            name, config = configuration(named, stage, given)
        pipeline = opening.open_pipeline(config)
        run = out or pipeline.run(stage)
        _check_folder(run, overwrite)
        if named and pipeline.task.name not in named:
            say(f"note: the file names {', '.join(named)}, the configuration is {config.task.name}")
        model = _read(file, states, kind, average=config.stages[stage].weights == "ema")

    fit.check_task(pipeline.config, kind, model.network, model.params)
    config, sizes = fit.with_sizes(pipeline.config, kind, model.network)
    config_checks.check(config)
    item, source = _item(pipeline, config, stage, model)
    fit.check_complete(item, restore.stage_template(config, stage))
    which = "averaged" if model.average else "live"
    imported = {"file": path.name, "weights": which, "normalizer": source}
    _write(run, config, stage, item, imported)

    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    dims = "-".join(map(str, model.network.get("down_dims") or model.network["dims"]))
    say(f"{path.name}: {stage} of {config.task.name}, {dims}, {count:,} weights ({which})")
    say(f"normalizer: {source}")
    say(f"wrote {run}")
    if run.name != stage:
        say(f"main.py will look for it in a folder called {stage}")
    workdir = f"--workdir={shlex.quote(str(run.parent))}"
    if stage in ("teacher", "reward"):
        flags = [*map(shlex.quote, given), *([workdir] if out else []), *sizes]
        say(f"next: python main.py {' '.join([_student(name), *flags])}")
    else:
        say(f"next: python main.py eval {workdir}")
    return run


# ---- what a file holds ---------------------------------------------------------------------------


def _contents(
    file: TorchFile,
) -> tuple[dict[str, dict], dict[str, dict[str, pickle_reader.Tensor]]]:
    """Return the state dicts of a file, and the weights of each of its models by kind."""
    try:
        states = weights.state_dicts(file.content)
        return states, weights.parts_of(states["model"])
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None


def _choose(path: pathlib.Path, parts: Mapping[str, Any], stage: str | None) -> tuple[str, str]:
    """Return the stage that a file becomes, and the kind of the model that it is made of."""
    main = next(iter(parts))
    stage = stage or ("ctd" if main == "student" and "reward" not in parts else main)
    stages = [m.name for m in registry.records().values() if m.trained_by_all]
    kind = "student" if choose("stage", stage, stages) == "ctd" else stage
    if kind not in parts:
        raise UserError(
            f"{path} holds a {' and a '.join(parts)}, no {stage}; write :{main} after the "
            "configuration"
        )
    return stage, kind


def _read(file: TorchFile, states: dict[str, dict], kind: str, *, average: bool) -> Published:
    """Read one model; its averaged weights where they are wanted and there."""
    parts = weights.parts_of(states["model"])
    # Of the models that a student was distilled from a file holds one set of weights alone.
    average = average and kind == next(iter(parts)) and "ema_model" in states
    if average:
        parts = weights.parts_of(states["ema_model"])
    arrays = {name: file.array(tensor) for name, tensor in parts[kind].items()}
    kind, network, params = params_from_torch(arrays)
    normalizer = weights.normalizer_of(file, states["model"])
    return Published(kind, network, params, average, normalizer)


# ---- where it belongs ----------------------------------------------------------------------------


def configuration(
    named: Sequence[str], stage: str, given: Sequence[str] = ()
) -> tuple[str, Config]:
    """Return the configuration of the task that a file names, and its word on the command line.

    Args:
        named: tasks that are named in the file.
        stage: what the file becomes.
        given: flags that set fields of it.

    Raises:
        UserError: the file names none or several, or there is no configuration for it.
    """
    if len(named) == 1:
        for name in configs.names():
            if name == "suite":
                continue
            fields = configs.load(name, f"{stage},preset=released")
            if fields.to_dict()["task"]["name"] == named[0]:
                set_fields(fields, [flag.lstrip("-").removeprefix("config.") for flag in given])
                path = os.path.relpath(configs.folder() / f"{name}.py")
                word = f"{path}:{stage},preset=released"
                return word, registry.configure(fields.to_dict())
    what = f"names {' and '.join(named)}" if named else "does not name its task"
    raise UserError(
        f"the file {what}: say which configuration it belongs to, for example "
        f"--config=configs/hopper_mr.py:{stage},preset=released"
    )


def _check_folder(run: pathlib.Path, overwrite: bool) -> None:
    """Refuse a folder with a run, unless it may be overwritten, or with what is not ours."""
    if checkpoints.run_status(run):
        if not overwrite:
            raise UserError(
                f"{run} holds a run: --overwrite replaces it, --out=DIR writes elsewhere"
            )
    elif (run / "checkpoints").exists():  # perhaps those of the released code
        raise UserError(f"{run} has checkpoints that are not ours: --out=DIR writes elsewhere")


# ---- what is written -----------------------------------------------------------------------------


def _item(
    pipeline: Pipeline, config: Config, stage: str, model: Published
) -> tuple[dict[str, Any], str]:
    """Return the weights and the normalizer that are saved, and where the latter comes from."""
    params = model.params
    if model.kind == "reward":
        params = jax.tree.map(lambda w: w[None], params)  # an ensemble of one
    normalizer, source = model.normalizer, "the file's"
    if normalizer is None:
        _, normalizer = examples.build(config, stage, pipeline.recorded.episodes)
        source = f"fitted to {config.source}"
    return {"params": params, "normalizer": normalizer}, source


def _write(
    run: pathlib.Path, config: Config, stage: str, item: dict[str, Any], imported: dict[str, str]
) -> None:
    """Write a finished run, in the place of one that is there."""
    if checkpoints.run_status(run):
        checkpoints.clear_run(run)
    store = checkpoints.Checkpoints(run)
    store.save(0, item, {"step": np.zeros((), np.int32)}, {"step": 0, "stage": stage})
    store.close()
    description = run_dir.describe(config, stage) | {"imported": imported}
    run_dir.write(run, description)
    checkpoints.mark_finished(run)


def _student(name: str) -> str:
    """Return the flag that names the same configuration, for the student that is distilled next."""
    path, _, argument = name.partition(":")
    options = [word for word in argument.split(",") if "=" in word]
    return shlex.quote(f"--config={path}:{','.join(['student', *options])}")
