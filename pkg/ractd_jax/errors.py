"""The one error a user sees: a single line that says what, where and what would work."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right; `main.py` prints it as one line, without a traceback.

    Not a ValueError: the flag library would wrap one into the traceback of its configuration.
    """


def choose(kind: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`.

    Args:
        kind: what is being chosen ("stage", "size", ...), for the message.
        name: the user's word.
        options: the legal words.

    Raises:
        UserError: naming the nearest legal word and the whole list.
    """
    options = sorted(options)
    if name in options:
        return name
    near = difflib.get_close_matches(name, options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"unknown {kind} {name!r}.{hint} Choose from: {', '.join(options)}")
