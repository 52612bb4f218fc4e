"""Configuration files: where they are, and how they become a configuration.

They are loaded by path. In a checkout they lie in `configs/` beside the package, in an installed
package in `ractd_jax/configs/`; in both cases they are known as `ractd_jax.configs`, so that a
configuration of one's own can say `from ractd_jax.configs import custom`, wherever it lies.
"""

import importlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, config_dict

import ractd_jax
from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.cli.words import Given
from ractd_jax.envs import choice
from ractd_jax.methods import registry

PACKAGE = "ractd_jax.configs"
NO_NUMBERS = {"optimiser": {"steps": 10_000}}  # of a method that brings none


def folder() -> pathlib.Path:
    """Return the folder of the configurations that come with the project."""
    package = pathlib.Path(ractd_jax.__file__).parent
    for place in (package / "configs", package.parent / "configs"):
        if (place / "base.py").is_file():
            return place
    raise errors.UserError(f"the configurations are missing beside {package}: install it again")


def names() -> list[str]:
    """Return the names of the tasks' configurations, as `hopper_mr`."""
    return sorted(path.stem for path in folder().glob("*.py") if is_config(path))


def is_config(path: pathlib.Path) -> bool:
    """Tell if a file is a configuration: it has a function `get_config`."""
    return path.is_file() and "def get_config(" in path.read_text(errors="replace")


def find(name: str) -> pathlib.Path:
    """Return the file of a configuration.

    Args:
        name: a path, as `configs/hopper_mr.py`, or a name of `names`, as `hopper_mr`.

    Raises:
        UserError: there is none; it says where was looked.
    """
    path = pathlib.Path(name).expanduser()
    if is_config(path):
        return path
    if path.suffix == ".py":
        known = [str(f) for f in path.parent.glob("*.py") if is_config(f)]
        if known:
            errors.choose("configuration", name, known)
        if (folder() / path.name).is_file() and path.parent.name == "configs":
            return folder() / path.name  # `configs/hopper_mr.py` from another folder
        raise errors.UserError(
            f"there is no configuration {path} in {pathlib.Path.cwd()}; for example hopper_mr, "
            f"one of those in {folder()}"
        )
    if name in names():
        return folder() / f"{name}.py"
    errors.choose("configuration", name, names())
    raise AssertionError("unreachable")


def load(name: str, argument: str | None = None) -> ConfigDict:
    """Return what a configuration file makes of the words after the colon.

    Args:
        name: see `find`.
        argument: what follows the colon on the command line.

    Raises:
        UserError: there is no such file, a word is wrong, or its code fails: then its own line is
            named.
    """
    path = find(name)
    try:
        config = _module(path).get_config(argument)
    except errors.UserError:
        raise
    except Exception as error:
        raise errors.UserError(errors.own_line(path, error)) from error
    if not isinstance(config, ConfigDict):
        raise errors.UserError(f"{path}: get_config returned {config!r}, not a ConfigDict")
    return config


def shipped(name: str) -> types.ModuleType:
    """Return the module of a file that comes with the project, as "hopper_mr", "methods.eda"."""
    _package()
    return importlib.import_module(f"{PACKAGE}.{name}")


def _module(path: pathlib.Path) -> types.ModuleType:
    """Return the module of a configuration file, loaded by its path."""
    if path.resolve().parent == folder().resolve():
        return shipped(path.stem)
    _package()
    # In the package, so that it can say `from . import custom`; its name stands for no file there.
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}._own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _package() -> None:
    """Make the folder of the configurations known under one name."""
    if PACKAGE in sys.modules:
        return
    place = folder()
    spec = importlib.util.spec_from_file_location(
        PACKAGE, place / "__init__.py", submodule_search_locations=[str(place)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


# ---- what the files are made with ------------------------------------------------------------


def complete(given: Given, sections: dict[str, dict[str, Any]]) -> ConfigDict:
    """Return a configuration with every field: defaults, and what differs from them.

    Args:
        given: the task and the words of the command line.
        sections: fields of the shared sections, by section.

    Raises:
        UserError: a field does not exist or cannot work.
    """
    names = ("stage", "size", "source", "env", "preset", "seed", "seeds")
    given_words = {name: getattr(given, name) for name in names}
    task = choice.choose(given.task, given.env) if given.env else given.task
    values = configuration.plain(configuration.Config(task, **given_words))
    del values["stages"]
    values["collect"]["env"] = task.env_id
    for name, fields in sections.items():
        values[name] |= fields
    stages = {name: registry.section(name, fields) for name, fields in _stages(given)}
    config = registry.configure(values)
    plain = registry.plain(configuration.replace(config, stages=stages))
    for name in ("return_min", "return_max"):  # a type that None does not say
        if plain["task"][name] is None:
            plain["task"][name] = config_dict.placeholder(float)
    return ConfigDict(plain)


def _stages(given: Given) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the section of every stage that a task has, as its file has it."""
    sections: dict[str, dict[str, Any]] = {}
    for path in sorted((folder() / "methods").glob("[!_]*.py")):
        module = shipped(f"methods.{path.stem}")
        if hasattr(module, "get_sections"):
            sections |= module.get_sections(given)
    for stage, method in registry.records().items():
        if given.task.kind not in method.tasks:
            continue
        if stage not in sections:
            sections |= _brought_numbers(given, stage)
        acts_alone = method.row and method.acts and not method.deterministic
        chooses = {"selection": {}} if acts_alone and given.task.kind == "policy" else {}
        yield stage, chooses | sections[stage]


def _brought_numbers(given: Given, stage: str) -> dict[str, dict[str, Any]]:
    """Return the sections that the file of a method brings itself, as `--method=FILE` does."""
    module = registry.module_of(stage)
    if not hasattr(module, "get_sections"):
        return {stage: NO_NUMBERS}
    try:
        return {stage: NO_NUMBERS} | module.get_sections(given)
    except errors.UserError:
        raise
    except Exception as error:
        raise errors.UserError(errors.own_line(module.__file__ or "", error)) from error
