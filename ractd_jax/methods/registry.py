"""Which methods there are, and how a configuration becomes their algorithms.

Found: every module of `ractd_jax.methods` and the paper's own files that has `METHODS`; modules
that an installed package names under the entry point `ractd_jax.methods`; and what `load` is given
(`--method=my_method.py`).
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import pathlib
import pkgutil
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from ractd_jax import config as configuration
from ractd_jax import errors, methods
from ractd_jax.config import Config, Section
from ractd_jax.method import Context, Made, Method, Reads
from ractd_jax.types import Algorithm

PAPER = ("reward", "edm", "ctm")  # the modules of the paper's own methods
ENTRY_POINT = "ractd_jax.methods"


@functools.cache
def _modules() -> dict[str, types.ModuleType]:
    """Return the module of every method, by the method's name; `load` adds to it."""
    modules: dict[str, types.ModuleType] = {}
    for name in PAPER:
        _add(modules, importlib.import_module(f"ractd_jax.{name}"))
    for entry in pkgutil.iter_modules(methods.__path__):
        if entry.name != "registry":
            _add(modules, importlib.import_module(f"{methods.__name__}.{entry.name}"))
    for point in importlib.metadata.entry_points(group=ENTRY_POINT):
        _add(modules, point.load())
    return modules


def _add(modules: dict[str, types.ModuleType], module: types.ModuleType) -> None:
    for method in getattr(module, "METHODS", ()):
        known = modules.setdefault(method.name, module)
        if known.__name__ != module.__name__:
            raise errors.UserError(
                f"{module.__name__} and {known.__name__} both bring a method {method.name!r}: "
                "rename one of them"
            )
        modules[method.name] = module


def load(path: str | pathlib.Path) -> None:
    """Make the methods of a Python file known, as `--method=PATH` does.

    Args:
        path: of a file that has `METHODS`, a tuple of `Method` records.

    Raises:
        UserError: there is no such file, its code fails, it has no methods, or it takes a name
            that is taken.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.UserError(f"--method={path}: there is no such file")
    name = f"ractd_jax_method_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.UserError(f"--method={path}: a Python file is needed")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise errors.UserError(f"--method={errors.own_line(path, error)}") from error
    if not getattr(module, "METHODS", ()):
        raise errors.UserError(f"--method={path}: it has no METHODS, a tuple of Method records")
    _add(_modules(), module)


def module_of(stage: str) -> types.ModuleType:
    """Return the module that brings a stage's method."""
    return _modules()[stage]


def records() -> dict[str, Method]:
    """Return the record of every stage, in the order of tables.

    Example:
        >>> records()["student"].calls(records()["student"].fields(nfe=2))
        2
    """
    methods = {m.name: m for module in _modules().values() for m in module.METHODS}
    return dict(sorted(methods.items(), key=lambda item: item[1].order))


def get(stage: str) -> Method:
    """Return the record of a stage, or raise a `UserError` that names the nearest one."""
    known = records()
    return known[errors.choose("stage", stage, known)]


# ---- configurations ------------------------------------------------------------------------------


def configure(values: Mapping[str, Any], *, whole: bool = False) -> Config:
    """Return the typed configuration of nested dictionaries, as `configs/` make them.

    Args:
        values: fields of `Config`, and a section for each stage.
        whole: no field may be missing, as in what a run has recorded.

    Raises:
        UserError: a field does not exist, is of another kind, or cannot work.
    """
    stages = {name: values[name] for name in records() if name in values}
    shared = {name: value for name, value in values.items() if name not in stages}
    config = configuration.build(Config, shared | {"stages": {}}, whole=whole)
    sections = {name: section(name, fields, whole=whole) for name, fields in stages.items()}
    return configuration.replace(config, stages=sections)


def section(stage: str, values: Any, *, whole: bool = False) -> Section:
    """Return the typed section of a stage; see `configure`."""
    if not isinstance(values, Mapping):
        raise errors.UserError(f"{stage} is {values!r}: a section, of fields")
    method = get(stage)
    network, place = dict(values.get("network", {})), f"{stage}.network"
    kinds = method.network
    if whole and len(kinds) > 1 and "kind" not in network:
        raise errors.UserError(f"{place}.kind is missing")
    kind = errors.choose(f"{place}.kind", network.pop("kind", next(iter(kinds))), kinds)
    fields = dict(values)
    if method.reads is Reads.TRANSITIONS and not whole:
        fields.setdefault("data", {})
    own = values.get("method", {})
    fields["method"] = configuration.build(method.fields, own, f"{stage}.method", whole=whole)
    fields["network"] = configuration.build(kinds[kind], network, place, whole=whole)
    return configuration.build(Section, fields, stage, whole=whole)


def plain(config: Config) -> dict[str, Any]:
    """Return a configuration as nested dictionaries and lists; `configure` undoes it."""
    values = configuration.plain(config)
    stages = values.pop("stages")
    for name, fields in stages.items():
        kinds = get(name).network
        if len(kinds) > 1:
            network = config.stages[name].network
            kind = next(word for word, kind in kinds.items() if isinstance(network, kind))
            fields["network"] = {"kind": kind} | fields["network"]
        values[name] = {field: value for field, value in fields.items() if value is not None}
    return values


# ---- algorithms ----------------------------------------------------------------------------------


def needs(config: Config, stage: str) -> Mapping[str, str]:
    """Return the stages whose weights a stage needs, by their role in it.

    Raises:
        UserError: the task has no such stage.
    """
    needed = get(stage).needs(config, stage)
    for need in needed.values():
        if need not in config.stages:
            raise errors.UserError(
                f"{stage} needs {need}, which {config.task.name} does not have: it has "
                f"{', '.join(config.stages)}"
            )
    return needed


def all_needs(config: Config, stage: str) -> list[str]:
    """Return every stage that a stage is trained from, the first ones first."""

    def walk(name: str) -> Iterator[str]:
        for need in needs(config, name).values():
            yield from walk(need)
            yield need

    return list(dict.fromkeys(walk(stage)))


def history(config: Config, stage: str) -> int:
    """Return how many observations a stage is conditioned on, the present one among them."""
    return config.data.history if get(stage).uses_history else 1


def normalization(config: Config, stage: str) -> str:
    """Return how a stage sees observations, one of `config.NORMALIZATIONS`."""
    steps = config.stages[stage].data
    return steps.normalization if steps else config.data.normalization


def horizon(config: Config, stage: str) -> int:
    """Return the steps of the windows that a stage reads."""
    method = get(stage)
    if method.horizon:
        return method.horizon(config)
    return {Reads.TRANSITIONS: 1, Reads.RETURNS: 1, Reads.PAIRS: 2}.get(
        method.reads, config.data.horizon
    )


def context(config: Config, stage: str) -> Context:
    """Return what a stage is made of."""
    task, method, own = config.task, get(stage), config.stages[stage]
    shape, cond_dim = (config.data.horizon, task.act_dim), history(config, stage) * task.obs_dim
    if method.reads is Reads.TRANSITIONS:
        shape, cond_dim = (1, task.act_dim), task.obs_dim
    elif method.reads is Reads.PAIRS:
        shape, cond_dim = (1, task.act_dim), 2 * task.obs_dim
    elif task.kind == "planner":
        shape, cond_dim = (config.data.horizon, task.obs_dim), 2 * task.obs_dim
    needed = {role: _made(config, need) for role, need in needs(config, stage).items()}
    noise = own.noise or config.noise
    return Context(stage, config, own, needed, noise, horizon(config, stage), shape, cond_dim)


def _made(config: Config, stage: str) -> Made:
    made_of = context(config, stage)
    return Made(made_of, get(stage).make(made_of, made_of.section.optimiser))


def make(config: Config, stage: str, axis: str = "") -> Algorithm:
    """Make the algorithm of a stage.

    Args:
        config: the configuration.
        stage: one of `config.stages`.
        axis: see `train_state.Optimiser`.

    Raises:
        UserError: its fields do not fit together; they are named as the user wrote them.
    """
    made_of = context(config, stage)
    optimiser = configuration.replace(made_of.section.optimiser, axis=axis)
    try:
        return get(stage).make(made_of, optimiser)
    except errors.FieldError as error:
        raise error.within(f"{stage}.method") from None


# ---- acting --------------------------------------------------------------------------------------


def sampling(config: Config, stage: str) -> dict[str, Any]:
    """Return the fields of a stage's method that only acting heeds."""
    fields = config.stages[stage].method
    return {name: getattr(fields, name) for name in get(stage).sampling_fields}


def selection(config: Config, stage: str) -> configuration.Selection:
    """Return how a stage chooses among its samples, its critic named."""
    chosen = config.stages[stage].selection or configuration.Selection()
    return configuration.replace(chosen, critic=chosen.critic or config.critic)


def calls(config: Config, stage: str) -> int:
    """Return the network calls for each trajectory: per action, or per plan."""
    return get(stage).calls(config.stages[stage].method)
