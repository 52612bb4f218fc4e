"""The command line behind `main.py`: flags to an experiment, complaints to one line, help."""

import ast
import contextlib
import functools
import importlib
import itertools
import os
import pathlib
import re
import sys

from absl import flags
from ml_collections import ConfigDict

from ractd_jax.errors import UserError, choose

EXAMPLE = "--config=configs/hopper_mr.py:student"


def parse(argv: list[str], values: flags.FlagValues = flags.FLAGS, files: int = 0) -> list[str]:
    """Parse the flags.

    Args:
        argv: program and arguments.
        values: the flags.
        files: how many words besides flags there may be.

    Returns:
        Those words.

    Raises:
        UserError: for anything that is not a flag, a configuration or a field of it.
    """
    path = pathlib.Path(_config_file(argv[1:]))
    if path.name and not _is_config(path):
        known = [str(f) for f in path.parent.glob("*.py") if _is_config(f)]
        if not known:
            raise UserError(f"there is no configuration {path}; for example {EXAMPLE}")
        choose("configuration", str(path), known)
    for word in argv[1:]:
        label = re.match(r"--?config\.(task|stage|size|preset)\b", word)
        if label and path.name != "suite.py":
            raise UserError(
                f"--config.{label[1]} would change the word and not what it stands for: tasks are "
                "files in configs, the others follow the colon, as in "
                f"{EXAMPLE},size=demo,preset=paper"
            )
    try:
        rest = values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_one_line(error)) from error
    if files and len(rest) > 1 + files:
        raise UserError(f"{rest[1 + files]!r} is one file too many: one at a time")
    if len(rest) > 1 + files:
        raise UserError(f"{rest[1 + files]!r} is not a flag; flags start with --, see --help")
    return rest[1:]


def _config_file(words: list[str]) -> str:
    """Return the file that --config names, as --config=FILE:... or --config FILE:..., or ""."""
    for word, after in itertools.pairwise([*words, ""]):
        if found := re.fullmatch(r"--?config(?:=(.*))?", word):
            return (after if found[1] is None else found[1]).partition(":")[0]
    return ""


def _is_config(path: pathlib.Path) -> bool:
    return path.is_file() and "def get_config(" in path.read_text(errors="replace")


def _one_line(error: Exception) -> str:
    """Return what the flag library wants to say, without its line breaks."""
    text = str(error.args[0]) if error.args else str(error)  # str(KeyError) is a repr
    if isinstance(error, (AttributeError, KeyError)):  # of a configuration
        with contextlib.suppress(SyntaxError, ValueError):  # a repr in a repr
            text = str(ast.literal_eval(text))
        text = f"no such field: {text}"
    return f"{' '.join(text.split())}; see --help"


@contextlib.contextmanager
def _enough_memory():
    """Say in one line that a device has too little memory, wherever that shows."""
    try:
        yield
    except RuntimeError as error:  # of JAX, which need not be there yet
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        raise UserError(
            "the device has too little memory for this: size=small or size=demo, a smaller "
            "optimiser.batch_size of the stage, or --config.training.precision=bfloat16 take less; "
            f"what was saved is kept ({str(error).splitlines()[0]})"
        ) from error


@_enough_memory()
def run(
    config: ConfigDict | None,
    workdir: str | None,
    *,
    resume: bool,
    overwrite: bool,
    ray_address: str | None = None,
    cluster: bool = False,
) -> None:
    """Run the stage that the configuration names, or the suite that it is."""
    if config is None:
        raise UserError(f"--config is missing; for example {EXAMPLE}")
    if resume and overwrite:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    if "suite" in config:
        if overwrite:
            raise UserError("a suite keeps what is finished: remove the folders of what is not to")
        from ractd_jax import suite

        suite.run(config.to_dict(), workdir, ray_address)
        return
    # JAX starts only now
    from ractd_jax import stages
    from ractd_jax.evaluation import data_sheet, evaluate, idql_table
    from ractd_jax.training import compilation_cache, multihost, seeds

    multihost.join(cluster)
    if multihost.several() and (config.stage not in stages.TRAINED or config.seeds > 1):
        raise UserError(
            f"several processes train together and do nothing else: name one of "
            f"{', '.join(stages.TRAINED)}, a single seed, and evaluate with one process afterwards"
        )
    if config.stage != "bench":  # which times compiling
        compilation_cache.keep(config.training.compilation_cache)
    if config.stage == "collect":
        from ractd_jax.data.generate import collect

        if overwrite:
            raise UserError("collect continues what is there; --workdir=DIR begins elsewhere")
        collect.run(config.collect.to_dict(), config.seed, workdir)
        return
    settings = {"resume": resume, "overwrite": overwrite}
    jobs = seeds.experiments(config.to_dict(), config.seeds, workdir, **settings)
    job, ensure = jobs[0], functools.partial(seeds.ensure, jobs)
    if len(jobs) == 1:
        ensure = job.ensure
    if len(jobs) > 1 and config.stage in ("data", "bench", "idql_eval"):
        raise UserError(f"{config.stage} is for one seed at a time: seed={config.seed}")
    if config.stage == "data":
        data_sheet.show(job)
        return
    if config.stage == "bench":
        from ractd_jax.bench import run as bench

        bench.show(job)
        return
    if not job.task.env_id and config.stage in ("eval", "idql_eval"):
        raise UserError(
            f"{job.task.name} has no environment, so there is nothing to evaluate in; act with "
            f'ractd_jax.load_policy("{job.workdir}/student")'
        )
    if config.stage == "idql_eval":
        idql_table.show(job)
        return
    if config.stage == "all":
        for stage in stages.PIPELINE:
            ensure(stage)
        if not job.task.env_id:
            job.say(f'trained: act with ractd_jax.load_policy("{job.workdir}/student")')
            return
    elif config.stage == "eval":
        if not config.eval.samplers and not all(map(evaluate.trained, jobs)):
            ensure("student", wanted=False)
    else:
        ensure(config.stage)
        then = "now evaluate it with the stage eval" if job.task.env_id else "see load_policy"
        job.say(f"trained: {job.workdir / config.stage}; {then}")
        return
    seeds.share_data(jobs)
    for job in jobs:
        evaluate.evaluate_all(job)


def print_help(usage: str) -> None:
    """Print usage, the words of the command line, and every field with its default."""
    base = importlib.import_module("configs.base")
    hopper = importlib.import_module("configs.hopper_mr")
    print(usage)
    for title, words in (
        ("stages", base.STAGES),
        ("size=", base.SIZES),
        ("source=", base.SOURCES),
        ("preset=", base.PRESETS),
    ):
        print(f"{title}")
        for word, meaning in words.items():
            print(f"  {word:14} {meaning}")
    print("seed=<k>      of training; evaluation seeds are eval.first_seed + 0, 1, ...")
    print("seeds=<n>     train seeds k, ..., k + n - 1 in one program, for small networks")
    print("\ncollect as a command: python -m ractd_jax.data.generate.collect --help\n\nflags")
    for flag in flags.FLAGS.flags_by_module_dict()[_main_module()]:
        print(f"  --{flag.name:11} {flag.help}")
    print("\nfields of configs/hopper_mr.py and their defaults (--config.<field>=<value>;")
    print("commented in configs/base.py and single_action.py; mazes and custom.py have others)")
    for name, value in _flatten(hopper.get_config()):
        print(f"  {name} = {value}")


@contextlib.contextmanager
def quiet_pipe():
    """Stop without a word when nobody reads on, as in `main.py --help | head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere, for the interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main_module() -> str:
    return flags.FLAGS.find_module_defining_flag("workdir")


def _flatten(config: ConfigDict, prefix: str = ""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
