"""The command line: what a stage or a command does, and how it ends."""

import contextlib
import os
import pathlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from ractd_jax import config as configuration
from ractd_jax.cli import flags
from ractd_jax.cli import help as help_text
from ractd_jax.cli.fields import set_fields
from ractd_jax.config import Config
from ractd_jax.errors import UserError, one_line
from ractd_jax.methods import registry


@contextlib.contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Stop in the same way on SIGTERM: what was started is ended, and one line says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_sigterm_is_ctrl_c()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    What the user can put right ends in one line and status 2, a fault of ours in one line and
    status 1. `--debug` shows where it came from.
    """
    argv = sys.argv if argv is None else argv
    asked = [word for word in argv[1:] if re.match(r"--?h(elp|elpfull)?\b", word)]
    try:
        if asked:
            with help_text.quiet_pipe():
                help_text.show(asked[0], [w for w in argv[1:] if not w.startswith("-")])
        else:
            run(flags.parse(argv))
    except UserError as error:
        if "--debug" in argv:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # anywhere but in training, which saves first
        print("stopped; with --resume the same command keeps what is trained", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as in `| head`: not done, so not 0
        help_text.drop_output()
        return 128 + signal.SIGPIPE
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        what = f"{type(error).__name__}: {one_line(error)[:300]}"
        print(
            f"error: {what} (a fault of ractd_jax, please report it; --debug shows the traceback)",
            file=sys.stderr,
        )
        return 1
    return 0


def _no_backend(error: Exception) -> bool:
    """Tell if JAX found no device of the platforms that it was told to use."""
    if isinstance(error, AssertionError):  # so it ends where CUDA was asked for and is not there
        return traceback.extract_tb(error.__traceback__)[-1].name == "backends"
    return bool(re.search("nable to initialize backend|nknown backend", str(error)))


@contextlib.contextmanager
def _device() -> Iterator[None]:
    """Say in one line that a device is not there or has too little memory, wherever that shows."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # of JAX, which need not be there yet
        if _no_backend(error):
            raise UserError(
                f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')} asks for a device that is "
                "not here: unset it, or JAX_PLATFORMS=cpu"
            ) from error
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        raise UserError(
            "the device has too little memory for this: size=small or size=demo, a smaller "
            "optimiser.batch_size of the stage, or --config.training.precision=bfloat16 take less; "
            f"what was saved is kept ({str(error).splitlines()[0]})"
        ) from error


@_device()
def run(options: flags.Options) -> None:
    """Do what the command line says.

    Raises:
        UserError: it cannot be done.
    """
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    if "suite" in options.config:
        _suite(options)
        return
    # JAX starts only now
    from ractd_jax.training import compilation_cache, multihost

    config = registry.configure(options.config.to_dict())
    multihost.join(options.cluster)
    if multihost.several() and (config.stage not in config.stages or config.seeds > 1):
        raise UserError(
            f"several processes train together and do nothing else: name one of "
            f"{', '.join(config.stages)}, a single seed, and evaluate with one process afterwards"
        )
    if config.stage != "bench":  # which times compiling
        compilation_cache.keep(config.training.compilation_cache)
    if config.stage == "collect":
        _collect(options, config)
    elif config.stage in ("eval", "idql_eval"):
        _evaluate(options, config)
    elif config.stage in ("data", "bench"):
        _look(options, config)
    else:
        _train(options, config)


def _suite(options: flags.Options) -> None:
    if options.overwrite:
        raise UserError("a suite keeps what is finished: remove the folders of what is not to")
    from ractd_jax.cli import suite

    suite.run(options.config.to_dict(), options.workdir, options.ray_address)


def _collect(options: flags.Options, config: Config) -> None:
    from ractd_jax.data.generate import collect

    if options.overwrite:
        raise UserError("collect continues what is there; --workdir=DIR begins elsewhere")
    fields = configuration.plain(config.collect)
    collect.run(**fields, seed=config.seed, workdir=options.workdir)


def _look(options: flags.Options, config: Config) -> None:
    """Do what trains nothing and needs nothing trained: `data` and `bench`."""
    from ractd_jax.training import opening

    if config.seeds > 1:
        raise UserError(f"{config.stage} is for one seed at a time: seed={config.seed}")
    job = opening.open_pipeline(config, options.workdir)
    if config.stage == "data":
        from ractd_jax.evaluation import data_sheet

        data_sheet.show(job)
    else:
        from ractd_jax.bench import run as bench

        bench.show(job)


def _train(options: flags.Options, config: Config) -> None:
    """Train a stage, or with `all` the pipeline, which is then evaluated."""
    from ractd_jax.evaluation import evaluate
    from ractd_jax.training import opening
    from ractd_jax.training.trainer import Trainer

    jobs = opening.open_seeds(config, options.workdir, _progress())
    trainer = Trainer(jobs, resume=options.resume, overwrite=options.overwrite)
    first = jobs[0]
    if config.stage != "all":
        trainer.ensure(config.stage)
        then = "now evaluate it with the stage eval" if first.task.env_id else "see load_policy"
        first.say(f"trained: {first.run(config.stage)}; {then}")
        return
    for stage in config.stages:
        if registry.get(stage).trained_by_all:
            trainer.ensure(stage)
    if not first.task.env_id:
        first.say(f'trained: act with ractd_jax.load_policy("{first.run("student")}")')
        return
    if first.task.kind == "planner" and config.eval.follow == "inverse":
        trainer.ensure("inverse", wanted=False)
    for job in jobs:
        evaluate.evaluate_all(job)


def _progress():
    """Return where to show what goes on: nowhere in all but the first of several processes."""
    from rich.console import Console

    from ractd_jax.console import Progress
    from ractd_jax.training import multihost

    return Progress(None if multihost.first() else Console(quiet=True))


def _evaluate(options: flags.Options, config: Config) -> None:
    """Evaluate finished runs, which know what they were trained with."""
    from ractd_jax.evaluation import evaluate, idql_table
    from ractd_jax.training import opening, pipeline

    if config.stage == "idql_eval" and config.seeds > 1:
        raise UserError(f"{config.stage} is for one seed at a time: seed={config.seed}")
    if not config.task.env_id:
        raise UserError(
            f"{config.task.name} has no environment, so there is nothing to evaluate in; act with "
            "ractd_jax.load_policy(RUN)"
        )
    for seed in range(config.seed, config.seed + config.seeds):
        one = configuration.replace(config, seed=seed, seeds=1)
        folder = pathlib.Path(options.workdir) if options.workdir else pipeline.default_workdir(one)
        if options.workdir and config.seeds > 1:
            folder = folder / f"seed{seed}"
        job = opening.open_pipeline(_as_trained(options, one, folder), folder)
        if config.stage == "idql_eval":
            idql_table.show(job)
        else:
            evaluate.evaluate_all(job)


def _as_trained(options: flags.Options, config: Config, folder: pathlib.Path) -> Config:
    """Return the configuration of finished runs, with the fields that the command line sets.

    Raises:
        UserError: nothing is trained there, it is not what the command line names, or a field is
            set that the models were not trained with.
    """
    from ractd_jax.data import sources
    from ractd_jax.envs import choice
    from ractd_jax.evaluation import finished
    from ractd_jax.training import run_dir

    if not finished.runs(folder):
        how = finished.command(config, "all", folder, options.named)
        raise UserError(f"nothing is trained in {folder}; {how} trains the pipeline")
    values: Any = flags.saved(folder, config.stage)
    if sources.is_path(values.source) and sources.is_path(config.source):
        values.source = config.source  # it may have moved; `check_same` knows it by what it holds
    for name in ("size", "source", "preset", "seed"):
        if values[name] != getattr(config, name):
            raise UserError(
                f"{folder} was trained with {name} = {values[name]}, now it is "
                f"{getattr(config, name)}: --workdir=DIR names another folder"
            )
    if values.task.name != config.task.name:
        raise UserError(f"{folder} was trained for {values.task.name}, not {config.task.name}")
    _check_module(folder, values.task.env_id, config.task.env_id)
    if config.env:
        values.env = config.env
        values.task.env_id = choice.choose(config.task, config.env).env_id
    set_fields(values, options.given)
    merged = registry.configure(values.to_dict())
    for stage in merged.stages:
        if finished.is_finished(folder / stage):
            run_dir.check_same(folder / stage, merged, stage)
    return merged


def _check_module(folder: pathlib.Path, saved: str, named: str) -> None:
    """Refuse an environment of a run folder whose module the user has not named."""
    from ractd_jax.envs import choice

    if ":" in saved and saved != named and not saved.startswith(choice.PREFIX):
        raise UserError(
            f"{folder} names the environment {saved!r}, and a module to import for it: if you "
            f"trust it, --config.task.env_id={saved!r}"
        )
