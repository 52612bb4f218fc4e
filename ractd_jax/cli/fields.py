"""Fields of a configuration, set by their full names: `student.method.nfe=2`."""

import ast
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from ractd_jax import errors


def set_fields(config: ConfigDict, given: Iterable[str]) -> None:
    """Set fields of a configuration.

    Args:
        config: is changed.
        given: as "student.method.nfe=2"; values as Python writes them, words need no quotes.

    Raises:
        UserError: a field does not exist, or its value is of another kind.

    Example:
        >>> config = ConfigDict({"student": {"nfe": 1}})
        >>> set_fields(config, ["student.nfe=2"])
        >>> config.student.nfe
        2
    """
    for text in given:
        _set(config, text)


def _set(config: ConfigDict, text: str) -> None:
    name, equals, value = text.partition("=")
    if not equals:
        raise errors.UserError(f"--config.{name}: it needs a value, --config.{name}=...")
    section: Any = config
    for place in name.split("."):
        legal = list(section.keys()) if isinstance(section, ConfigDict) else []
        if place not in legal:
            raise errors.UserError(f"no such field: {name}: {_near(place, legal)}")
        parent, field, section = section, place, section[place]
    if isinstance(section, ConfigDict):
        raise errors.UserError(f"--config.{name} is a section, of {', '.join(section.keys())}")
    section = parent
    kind = section.get_type(field)
    try:
        section[field] = _value(section[field], value, kind)
    except TypeError as error:
        raise errors.UserError(
            f"--config.{name}={value}: {_KINDS.get(kind, kind.__name__)} is needed"
        ) from error


_SEVERAL = "several values in brackets, as (1, 2) or ('word',),"
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    list: _SEVERAL,
    tuple: _SEVERAL,
}


def _near(field: str, legal: list[str]) -> str:
    if not legal:
        return f"there is nothing below it called {field}"
    try:
        return errors.choose("field", field, legal)
    except errors.UserError as error:
        return str(error)


def _value(now: Any, text: str, kind: type) -> Any:
    """Return a value as the command line means it for a field of a kind."""
    if kind is str or isinstance(now, str):
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if quoted else text
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    if isinstance(value, list):
        value = tuple(value)
    if kind is float and type(value) is int:
        value = float(value)
    return value
