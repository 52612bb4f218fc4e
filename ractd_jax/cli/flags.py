"""From the words of the command line to what is to be done.

    --config=configs/hopper_mr.py:student     a configuration and the words after the colon, or
    hopper_mr:student                         the same, shorter
    eval --workdir=RUN                        a command, on runs that know their own configuration

Any field is set with --config.<section>.<field>=<value>.
"""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ractd_jax import errors
from ractd_jax.cli import configs, words
from ractd_jax.cli.fields import set_fields
from ractd_jax.methods import registry

_VALUED = r"--?(workdir|ray_address|method)"  # flags whose value may be the next word
EXAMPLE = "--config=configs/hopper_mr.py:student"
FLAGS = {
    "workdir": (None, "folder of the runs [runs/<task>/<...>]"),
    "resume": (False, "continue stopped runs, keep finished ones"),
    "overwrite": (False, "train again where a run is"),
    "cluster": (False, "join the other processes of a cluster's job"),
    "ray_address": (None, "Ray cluster of a suite [one on this machine]"),
    "method": (None, "Python file with METHODS of your own"),
    "debug": (False, "show the whole traceback of an error"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        config: the configuration, its fields set; of a suite, the suite.
        named: the file or name of the configuration, "" where a run brings its own.
        given: the fields that were set, as "student.method.nfe=2".
        workdir: see `FLAGS`.
        resume: see `FLAGS`.
        overwrite: see `FLAGS`.
        cluster: see `FLAGS`.
        ray_address: see `FLAGS`.
    """

    config: ConfigDict
    named: str = ""
    given: tuple[str, ...] = ()
    workdir: str | None = None
    resume: bool = False
    overwrite: bool = False
    cluster: bool = False
    ray_address: str | None = None


def parse(argv: Sequence[str]) -> Options:
    """Return what the command line says.

    Args:
        argv: program and arguments.

    Raises:
        UserError: for anything that is not a flag, a configuration or a field of it.
    """
    name, given, rest = _take_config(list(argv[1:]))
    values = _plain_flags([argv[0], *rest])
    if values["method"]:
        registry.load(values["method"])
    config = _configuration(name, values["workdir"])
    if "suite" not in config:  # which has words of its own
        for field in given:
            _refuse_label(field)
    set_fields(config, _fields_now(config, given))
    options = {key: values[key] for key in FLAGS if key not in ("method", "debug")}
    return Options(config, name.partition(":")[0], tuple(given), **options)


def _take_config(arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """Return what names the configuration, the fields that are set, and the other arguments."""
    named, given, rest = [], [], []
    remaining = iter(arguments)
    for word in remaining:
        name, equals, value = word.partition("=")
        if re.fullmatch(r"--?config(\..*)?", name):
            value = value if equals else next(remaining, "")
            field = name.partition(".")[2]
            if field:
                given.append(f"{field}={value}")
            else:
                named.append(value)
        elif not equals and re.fullmatch(_VALUED, name):
            rest += [word, *itertools.islice(remaining, 1)]
        elif word.startswith("-"):
            rest.append(word)
        else:
            named.append(word)
    if len(named) > 1:
        raise errors.UserError(
            f"{named[1]!r} is one word too many: {named[0]!r} is the configuration, flags start "
            "with --, see --help"
        )
    if named and not named[0]:
        raise errors.UserError(f"--config is empty; for example {EXAMPLE}")
    return (named[0] if named else ""), given, rest


def _plain_flags(argv: list[str]) -> dict[str, Any]:
    values = flags.FlagValues()
    for name, (default, text) in FLAGS.items():
        define = flags.DEFINE_bool if isinstance(default, bool) else flags.DEFINE_string
        define(name, default, text, flag_values=values)  # type: ignore[arg-type]
    try:
        values(argv)
    except (flags.Error, ValueError) as error:
        raise errors.UserError(f"{errors.one_line(error)}; see --help") from error
    return {name: values[name].value for name in FLAGS}


def _configuration(name: str, workdir: str | None) -> ConfigDict:
    """Return the configuration that is named, or that of the finished runs of a folder."""
    if not name:
        raise errors.UserError(f"--config is missing; for example {EXAMPLE}")
    place, colon, argument = name.partition(":")
    stages = {*words.COMMANDS, *registry.records()}
    if not colon and place in stages and not pathlib.Path(place).exists():
        if not workdir:
            raise errors.UserError(
                f"{place} of what? Name a configuration, as in hopper_mr:{place}, or the folder of "
                f"finished runs with --workdir=RUN"
            )
        return saved(pathlib.Path(workdir), place)
    return configs.load(place, argument or None)


def saved(workdir: pathlib.Path, stage: str) -> ConfigDict:
    """Return the configuration that the finished runs of a folder were trained with.

    Args:
        workdir: folder of a pipeline.
        stage: to be trained, or a command.

    Raises:
        UserError: nothing is trained there.
    """
    from ractd_jax.evaluation import finished  # it starts JAX

    plain = registry.plain(finished.saved_config(workdir)) | {"stage": stage}
    return ConfigDict(plain)


def _fields_now(config: ConfigDict, given: Sequence[str]) -> list[str]:
    """Return the fields to set on what the file says.

    Those of stages that are evaluated are set on what their runs were trained with instead
    (`app.run`): on what the file says they might not even work.
    """
    if config.get("stage") not in ("eval", "idql_eval"):
        return list(given)
    return [field for field in given if field.partition(".")[0] not in registry.records()]


def _refuse_label(field: str) -> None:
    label = re.match(r"(task|stage|size|preset)=", field)
    if label:
        raise errors.UserError(
            f"--config.{label[1]} would change the word and not what it stands for: tasks are "
            f"files in configs, the others follow the colon, as in {EXAMPLE},size=demo,preset=paper"
        )
