"""Configurations from dictionaries and back, and copies with some fields replaced."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from ractd_jax import errors


def replace(config: Any, **fields: Any) -> Any:
    """Return a dataclass with some fields replaced, by dotted names written with `__`.

    Example:
        >>> from ractd_jax.config import Config
        >>> from ractd_jax.tasks import TaskSpec
        >>> replace(Config(TaskSpec("t")), data__horizon=4).data.horizon
        4
    """
    direct = {name: value for name, value in fields.items() if "__" not in name}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in fields.items():
        if "__" in name:
            head, _, rest = name.partition("__")
            nested.setdefault(head, {})[rest] = value
    for head, parts in nested.items():
        if head in getattr(config, "stages", {}):
            section = replace(config.stages[head], **parts)
            direct["stages"] = direct.get("stages", config.stages) | {head: section}
        else:
            direct[head] = replace(getattr(config, head), **parts)
    return dataclasses.replace(config, **direct)


# ---- from dictionaries and back ------------------------------------------------------------------


def fields_of(kind: type) -> tuple[dataclasses.Field, ...]:
    """Return the fields of a dataclass that a user can set.

    Flax adds two of its own; `metadata={"internal": True}` marks what only the program sets.
    """
    hidden = ("parent", "name") if hasattr(kind, "bind") else ()
    fields = (f for f in dataclasses.fields(kind) if f.init and f.name not in hidden)
    return tuple(f for f in fields if not f.metadata.get("internal"))


def defaults(kind: type) -> dict[str, Any]:
    """Return the default of every field of a dataclass; fields that have none are left out."""
    values = {}
    for field in fields_of(kind):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return values


def documented(kind: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each field, in one line each.

    Example:
        >>> from ractd_jax.config import Selection
        >>> documented(Selection)["candidates"]
        'samples of each decision.'
    """
    text = inspect.getdoc(kind) or ""
    section = text.partition("Attributes:\n")[2]
    lines: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith("    "):
            break
        name, colon, text = line.strip().partition(": ")
        if colon and re.fullmatch(r"    \w+: .*", line):
            lines[name] = [text]
        elif lines and line.strip():
            lines[next(reversed(lines))].append(line.strip())
    return {name: " ".join(parts) for name, parts in lines.items()}


def build(kind: type, values: Any, place: str = "", *, whole: bool = False) -> Any:
    """Return a dataclass made from a dictionary.

    Args:
        kind: the dataclass; its fields are numbers, words, tuples and other dataclasses.
        values: a dictionary by field; those that are missing take their defaults.
        place: where the user wrote it, as "student.method", for messages.
        whole: no field may be missing but those that may be None.

    Raises:
        UserError: a field does not exist, is missing, is of another kind or cannot work; it is
            named as the user wrote it.

    Example:
        >>> from ractd_jax.config import Selection
        >>> build(Selection, {"candidates": 8})
        Selection(critic='', candidates=8, inverse_temperature=0.0)
    """
    if not isinstance(values, Mapping):
        raise errors.UserError(f"{place} is {values!r}: a section, of fields")
    named = {field.name: field for field in fields_of(kind)}
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in named:
            errors.choose("field", _join(place, name), [_join(place, known) for known in named])
    known = defaults(kind)
    for name in named:
        optional = name in known and (not whole or known[name] is None)
        if name not in values and not optional:
            raise errors.UserError(f"{_join(place, name)} is missing")
    fields = {n: _convert(hints[n], value, _join(place, n), whole) for n, value in values.items()}
    try:
        return kind(**fields)
    except errors.FieldError as error:
        raise (error.within(place) if place else error) from None


def plain(value: Any) -> Any:
    """Return a dataclass as nested dictionaries and lists, as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields_of(type(value))}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _convert(hint: Any, value: Any, place: str, whole: bool) -> Any:
    """Return a value as the type of its field wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (a for a in arguments if a is not type(None))
        return _convert(hint, value, place, whole)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        return build(hint, value, place, whole=whole)
    name = str(getattr(origin or hint, "__name__", hint))
    if name == "Mapping":
        return dict(value)
    if name in ("tuple", "Sequence"):
        if not isinstance(value, (list, tuple)):
            raise errors.UserError(f"{place} is {value!r}: several values in brackets")
        return tuple(_convert(arguments[0], item, place, whole) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        wanted = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}
        raise errors.UserError(f"{place} is {value!r}: {wanted.get(hint, name)} is needed")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise errors.UserError(f"{place} is {value}: a finite number is needed")
    return value
