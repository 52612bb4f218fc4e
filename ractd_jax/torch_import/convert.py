"""Checkpoints of the published PyTorch code as finished stage folders of ours.

    python -m ractd_jax.torch_import teacher.ckpt [--config=configs/<task>.py:teacher,...]

reads a teacher, a return model or a student, without torch and without running anything in the file
(`pickle_reader`), and writes the folder that training the same stage here would have written, less
what only a resume needs. It then acts (`load_policy`), is evaluated and is distilled from.

What does not depend on the weights comes from a configuration, by default
`configs/<task>.py:<stage>,preset=released` of the task that the file names. The network's sizes
come from the shapes of the weights; the normalizer from the file or, where it holds none, from the
configuration's data. A student's file holds its teacher and its return model too: the stage in
--config says which of them is wanted.
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from ractd_jax import tasks
from ractd_jax.cli import configs
from ractd_jax.cli.fields import set_fields
from ractd_jax.config import Config
from ractd_jax.errors import UserError, choose
from ractd_jax.methods import registry
from ractd_jax.torch_import import pickle_reader, weights
from ractd_jax.torch_import.weights import params_from_torch
from ractd_jax.training import (
    checkpoints,
    config_checks,
    examples,
    opening,
    restore,
    run_dir,
)
from ractd_jax.types import Params

# ---- where it belongs --------------------------------------------------------------------------


def configuration(named: list[str], stage: str) -> tuple[str, ConfigDict]:
    """Return the configuration of the task that a file names, as (command line word, fields).

    Raises:
        UserError: the file names none or several, or there is no configuration for it.
    """
    if len(named) == 1:
        for name in configs.names():
            if name == "suite":
                continue
            config: Any = configs.load(name, f"{stage},preset=released")
            if config.task.name == named[0]:
                path = os.path.relpath(configs.folder() / f"{name}.py")
                return f"{path}:{stage},preset=released", config
    what = f"names {' and '.join(named)}" if named else "does not name its task"
    raise UserError(
        f"the file {what}: say which configuration it belongs to, for example "
        f"--config=configs/hopper_mr.py:{stage},preset=released"
    )


def _fit(values: dict[str, Any], kind: str, network: dict[str, Any]) -> list[str]:
    """Give a configuration the sizes of the weights; return the flags that would have done so.

    Student and teacher get the same, as the warm start wants.
    """
    if kind == "reward":
        wanted = [("reward.method", {"members": 1})]
        wanted += [("reward.network", network | {"layer_norm": False})]
    else:
        wanted = [(f"{s}.network", network) for s in ("teacher", "ctd", "student")]
        levels, horizon = len(network["down_dims"]), values["data"]["horizon"]
        if horizon % 2 ** (levels - 1):
            raise UserError(
                f"a U-Net of {levels} levels needs a horizon that 2^{levels - 1} divides, not "
                f"{horizon}: set --config.data.horizon to the one it was trained with"
            )
    changed = []
    for name, fields in wanted:
        stage, part = name.split(".")
        section = values[stage][part]
        if section.get("kind", "unet") != "unet":
            raise UserError(
                f"size={values['size']} is not a U-Net, published weights are: leave size= out"
            )
        for field, value in fields.items():
            value = tuple(value) if isinstance(value, list) else value
            if section[field] != value:
                section[field] = value
                text = repr(value).replace(" ", "")
                changed.append(shlex.quote(f"--config.{name}.{field}={text}"))
    return changed


def _weight(params: Params, path: str) -> np.ndarray:
    """Return the weight at a path, or say that there is none."""
    for name in path.split("/"):
        if not isinstance(params, dict) or name not in params:
            raise UserError(
                f"the weights do not fit the network that they imply: {path} is missing in the file"
            )
        params = params[name]
    return params


def _check_sizes(config: Config, kind: str, network: dict[str, Any], params: Params) -> None:
    """Refuse weights for observations and actions of other sizes than the task's."""
    task = config.task
    plans = task.kind == "planner"  # of states, between the first and the last
    if kind == "reward":
        have = {"inputs": _weight(params, "level0_block0_dense0/linear/kernel").shape[0]}
        want = {"inputs": task.obs_dim if plans else task.obs_dim + task.act_dim}
    else:
        columns = _weight(params, "mid_block0/film/linear/kernel").shape[0]
        embeddings = network["embed_dim"] * (2 if kind == "student" else 1)
        output = len(_weight(params, "final_conv/bias"))
        have = {"condition": columns - embeddings, "output": output}
        context = registry.context(config, kind)
        want = {"condition": context.cond_dim, "output": context.shape[1]}
    if have != want:
        have, want = (", ".join(f"{k} {v}" for k, v in d.items()) for d in (have, want))
        raise UserError(
            f"these weights are for another task: {have}, where {task.name} has {want}; give the "
            "--config of theirs"
        )


def _check_tree(have: Params, want: Params) -> None:
    """Refuse weights that are not exactly those of the network, or not finite."""
    trees = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (have, want))
    have, want = [{jax.tree_util.keystr(path): leaf for path, leaf in tree} for tree in trees]
    for path in sorted(have.keys() | want.keys()):
        shapes = [tuple(d[path].shape) if path in d else "missing" for d in (have, want)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"the weights do not fit the network that they imply: {path} is {shapes[0]} in the "
                f"file and {shapes[1]} in the network"
            )
        if not np.isfinite(have[path]).all():
            raise UserError(f"the weights hold NaN or infinity in {path}")


def import_checkpoint(
    path: pathlib.Path,
    *,
    config: ConfigDict | None = None,
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
    """
    with pickle_reader.TorchFile(path) as file:
        try:
            dicts = weights.state_dicts(file.content)
            parts = weights.parts_of(dicts["model"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        own = next(iter(parts))
        stage = stage or ("ctd" if own == "student" and "reward" not in parts else own)
        known = [m.name for m in registry.records().values() if m.trained_by_all]
        kind = "student" if choose("stage", stage, known) == "ctd" else stage
        if kind not in parts:
            raise UserError(
                f"{path} holds a {' and a '.join(parts)}, no {stage}; write :{own} after the "
                "configuration"
            )
        named = sorted(file.strings() & tasks.TASKS.keys())
        if config is None:
            name, config = configuration(named, stage)
        values = config.to_dict()
        job = opening.open_pipeline(registry.configure(values))
        task = job.task
        run = out or job.run(stage)
        there = checkpoints.run_status(run)
        if there and not overwrite:
            raise UserError(
                f"{run} holds a run: --overwrite replaces it, --out=DIR writes elsewhere"
            )
        if not there and (run / "checkpoints").exists():  # perhaps those of the released code
            raise UserError(f"{run} has checkpoints that are not ours: --out=DIR writes elsewhere")
        if named and task.name not in named:
            say(f"note: the file names {', '.join(named)}, the configuration is {task.name}")
        state, which = dicts["model"], "live"
        if values[stage]["weights"] == "ema" and kind == own and "ema_model" in dicts:
            parts, which = parts | weights.parts_of(dicts["ema_model"]), "averaged"
        kind, network, params = params_from_torch(
            {name: file.array(tensor) for name, tensor in parts[kind].items()}
        )
        normalizer = weights.normalizer_of(file, state)

    _check_sizes(job.config, kind, network, params)
    changed = _fit(values, kind, network)
    resolved = registry.configure(values)
    config_checks.check(resolved)
    if kind == "reward":
        params = jax.tree.map(lambda w: w[None], params)  # an ensemble of one
    source = "the file's"
    if normalizer is None:
        _, normalizer = examples.build(resolved, stage, job.recorded.episodes)
        source = f"fitted to {resolved.source}"
    item = {"params": params, "normalizer": normalizer}
    _check_tree(item, restore.stage_template(resolved, stage))

    if there:
        checkpoints.clear_run(run)
    store = checkpoints.Checkpoints(run)
    store.save(0, item, {"step": np.zeros((), np.int32)}, {"step": 0, "stage": stage})
    store.close()
    about = {"imported": {"file": path.name, "weights": which, "normalizer": source}}
    checkpoints.write_json(run / checkpoints.CONFIG, run_dir.describe(resolved, stage) | about)
    checkpoints.mark_finished(run)

    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    dims = "-".join(map(str, network.get("down_dims") or network["dims"]))
    say(f"{path.name}: {stage} of {task.name}, {dims}, {count:,} weights ({which})")
    say(f"normalizer: {source}")
    say(f"wrote {run}")
    if run.name != stage:
        say(f"main.py will look for it in a folder called {stage}")
    where = [f"--workdir={shlex.quote(str(run.parent))}"] if out else []
    todo = "student" if stage in ("teacher", "reward") else "eval"
    quoted = map(shlex.quote, [f"--config={_with_stage(name, todo)}", *given])
    words = [*quoted, *where, *changed]
    say(f"next: python main.py {' '.join(words)}")
    return run


# ---- the command -------------------------------------------------------------------------------


def _stage_in(name: str) -> str | None:
    """Return the stage in `configs/x.py:<stage>,...`, None if it is left out."""
    word = name.partition(":")[2].partition(",")[0]
    return word if word and "=" not in word else None


def _with_stage(name: str, stage: str) -> str:
    path, _, arg = name.partition(":")
    words = [word for word in arg.split(",") if "=" in word]
    return f"{path}:{','.join([stage, *words])}"


HELP = {
    "config": "configuration the file belongs to [configs/<task>.py:<stage>,preset=released]",
    "out": "folder to write [where main.py with that configuration looks for the stage]",
    "overwrite": "replace the run in that folder",
}


def main(argv: list[str]) -> int:
    """Run the command; what the user can put right becomes one line."""
    if {"--help", "-h", "--helpfull"} & set(argv[1:]):
        print(__doc__)
        for flag, text in {"FILE": "the checkpoint", **HELP}.items():
            print(f"  {flag if flag == 'FILE' else f'--{flag}':12} {text}")
        return 0
    try:
        _run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, HELP["config"], flag_values=values)
    flags.DEFINE_string("out", None, HELP["out"], flag_values=values)
    flags.DEFINE_bool("overwrite", False, HELP["overwrite"], flag_values=values)
    given = [word for word in argv if word.startswith(("--config.", "-config."))]
    try:
        files = values([word for word in argv if word not in given])[1:]
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from error
    if not files:
        raise UserError("which file? python -m ractd_jax.torch_import FILE, see --help")
    if len(files) > 1:
        raise UserError(f"{files[1]!r} is one file too many: one at a time")
    name = values["config"].value or ""
    config = None
    if name:
        place, _, argument = name.partition(":")
        config = configs.load(place, argument or None)
        set_fields(config, [word.lstrip("-").removeprefix("config.") for word in given])
    import_checkpoint(
        pathlib.Path(files[0]),
        config=config,
        name=name,
        given=given,
        stage=_stage_in(name),
        out=pathlib.Path(values["out"].value) if values["out"].value else None,
        overwrite=bool(values["overwrite"].value),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
