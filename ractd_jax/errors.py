"""The one error a user sees: a single line that says what, where and what would work."""

import ast
import contextlib
import difflib
import pathlib
import traceback
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right; the command line prints it as one line.

    Not a ValueError: the flag library would wrap one into the traceback of its configuration.
    """


class FieldError(UserError):
    """A field of a configuration has a value that cannot work.

    The dataclass that finds it knows the field's own name; whoever built the dataclass knows where
    the user wrote it (`within`).

    Args:
        field: name of the field, as `solver`.
        text: the message, with `{field}` where the full name belongs.

    Example:
        >>> str(FieldError("nfe", "{field} is 0: at least 1").within("student.method"))
        'student.method.nfe is 0: at least 1'
    """

    def __init__(self, field: str, text: str):
        self.field, self.text = field, text
        super().__init__(text.replace("{field}", field))

    def within(self, place: str) -> "FieldError":
        """Return the same error with the section that holds the field in front of its name."""
        return FieldError(f"{place}.{self.field}", self.text)


def choose(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`.

    Args:
        kind: what is being chosen ("stage", "size", ...), for the message.
        name: the user's word.
        options: the legal words.

    Raises:
        UserError: naming the nearest legal word and the whole list.

    Example:
        >>> choose("size", "demo", ("demo", "paper"))
        'demo'
    """
    options = sorted(options)
    if name in options:
        return name
    raise UserError(_unknown(kind, name, options))


def choose_field(field: str, value: str, options: Iterable[str]) -> str:
    """Return the value of a field if it is one of `options`; otherwise a `FieldError`."""
    options = sorted(options)
    if value in options:
        return value
    raise FieldError(field, _unknown("{field}", value, options))


def at_least(field: str, value: float | int, least: float | int) -> None:
    """Refuse a value below `least`.

    Raises:
        FieldError: it is below, or it is no number.
    """
    if not value >= least:  # NaN is not
        raise FieldError(field, f"{{field}} is {value}: at least {least}")


def above(field: str, value: float | int, bound: float | int) -> None:
    """Refuse a value that is not above `bound`.

    Raises:
        FieldError: it is at or below it, or it is no number.
    """
    if not value > bound:
        raise FieldError(field, f"{{field}} is {value}: above {bound}")


def between(field: str, value: float | int, low: float | int, high: float | int) -> None:
    """Refuse a value outside [low, high].

    Raises:
        FieldError: it is outside, or it is no number.
    """
    if not low <= value <= high:
        raise FieldError(field, f"{{field}} is {value}: between {low} and {high}")


def one_line(error: BaseException) -> str:
    r"""Return what an error says, without its line breaks; its kind where it says nothing.

    Example:
        >>> one_line(OSError("no space\n  left"))
        'no space left'
        >>> one_line(TimeoutError())
        'TimeoutError'
    """
    return " ".join(str(error).split()) or type(error).__name__


def own_line(path: str | pathlib.Path, error: Exception) -> str:
    """Return what went wrong in a Python file of the user's, and in which of its lines.

    Args:
        path: of the file.
        error: that came out of it, perhaps from deeper down.

    Example:
        >>> own_line("robot.py", ValueError("no number"))
        'robot.py: ValueError: no number'
    """
    if isinstance(error, SyntaxError):
        line = error.lineno
    else:
        steps = traceback.extract_tb(error.__traceback__)
        own = pathlib.Path(path).resolve()
        lines = [step.lineno for step in steps if pathlib.Path(step.filename).resolve() == own]
        line = lines[-1] if lines else None
    text = str(error.args[0] if error.args else error)
    if text.startswith("'"):  # ml_collections quotes what another error said
        with contextlib.suppress(SyntaxError, ValueError):
            text = str(ast.literal_eval(text))
    text = " ".join(text.split())[:300]
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {type(error).__name__}: {text}"


def _unknown(kind: str, name: str, options: list[str]) -> str:
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Choose from: {', '.join(options)}"
