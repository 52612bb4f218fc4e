"""Ctrl-C and SIGTERM, noted instead of obeyed, so that a loop can save first."""

import contextlib
import signal
import threading
import types
from collections.abc import Callable
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(contextlib.AbstractContextManager["Interrupt"]):
    """True once SIGINT or SIGTERM came; a second one ends the program at once.

    Outside the main thread, where Python allows no handlers, it stays False.
    """

    def __enter__(self) -> "Interrupt":
        self._seen = False
        self._before: dict[int, Callable[..., Any] | int | None] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._seen

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self._seen = True
        signal.signal(number, self._before[number])
