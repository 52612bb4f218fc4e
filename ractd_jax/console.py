"""Progress of long work: a live bar in a terminal, a plain line now and then in a log."""

import contextlib
import datetime
import time
from collections.abc import Iterator
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.table import Column
from rich.text import Text

WIDTH = 100  # of a line where no terminal says so


def make_console(**options: Any) -> Console:
    """Return a console as wide as the terminal, or of `WIDTH` columns in a pipe or a file."""
    console = Console(highlight=False, **options)
    if not console.is_terminal:
        console.width = options.get("width") or WIDTH
    return console


class Task:
    """One piece of work; whoever does it calls `update`."""

    def __init__(self, total: int, completed: int, show):
        self._total, self._completed, self._show = total, completed, show
        self._start, self._first, self._metrics = time.monotonic(), None, ""

    def update(self, completed: int, **metrics: Any) -> None:
        """Say how many units are done, and the latest value of each metric (scalars)."""
        now = time.monotonic()
        # The clock of the speed starts here, so that compilation does not spoil the estimate.
        self._first = self._first or (completed, now)
        self._completed = completed
        self._metrics = "  ".join(f"{name} {float(value):.4g}" for name, value in metrics.items())
        self._show(completed, self.status(now))

    def status(self, now: float, *, final: bool = False) -> str:
        """Return counts, time left (or taken, if `final`), speed and metrics in one line."""
        done, since = self._first or (self._completed, now)
        speed = max(self._completed - done, 0) / max(now - since, 1e-9)
        parts = [f"{self._completed:,}/{self._total:,}"]
        if final:
            parts.append(f"in {_clock(now - self._start)}")
        elif speed:
            parts.append(f"ETA {_clock((self._total - self._completed) / speed)}")
        if speed:
            parts.append(f"{speed:,.0f}/s" if speed >= 100 else f"{speed:.3g}/s")
        return "  ".join([*parts, self._metrics]).rstrip()


class _Status(bars.ProgressColumn):
    """The one column that gives way, with an ellipsis, where a terminal is narrow."""

    def render(self, task: bars.Task) -> Text:
        return Text(task.fields["status"], no_wrap=True, overflow="ellipsis")


class Progress:
    """Shows tasks on a console, one after the other.

    Args:
        console: by default the standard output.
        interval: seconds between two lines where the console is not a terminal.
    """

    def __init__(self, console: Console | None = None, interval: float = 10.0):
        self.console, self.interval = console or make_console(), interval

    @contextlib.contextmanager
    def task(self, description: str, total: int, completed: int = 0) -> Iterator[Task]:
        """Show a task of `total` units, of which `completed` were done by an earlier run."""
        shown = self._bar if self.console.is_interactive else self._lines
        with shown(description, total, completed) as show:
            task, end = Task(total, completed, show), "stopped at "
            try:
                yield task
                end = ""
            finally:
                show(None, end + task.status(time.monotonic(), final=True))

    @contextlib.contextmanager
    def _bar(self, description: str, total: int, completed: int):
        bar = bars.BarColumn(16, table_column=Column(width=16, no_wrap=True))
        columns = ("{task.description}", bar, "{task.percentage:3.0f} %", _Status())
        with bars.Progress(*columns, console=self.console) as live:
            work = live.add_task(description, total=total, completed=completed, status="")
            yield lambda done, status: live.update(work, completed=done, status=status)

    @contextlib.contextmanager
    def _lines(self, description: str, total: int, completed: int):
        last = time.monotonic()

        def show(done: int | None, status: str) -> None:
            nonlocal last
            if done is None or time.monotonic() - last >= self.interval:
                share = "" if done is None else f"{done / max(total, 1):.0%}  "
                self.console.print(f"{description}  {share}{status}", markup=False, soft_wrap=True)
                last = time.monotonic()

        yield show


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:")
