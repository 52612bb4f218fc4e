"""The recorded episodes of a task, loaded at first use and described in one line."""

import functools

from ractd_jax.console import Progress
from ractd_jax.data import dimensions, identity, labels, statistics
from ractd_jax.data.episodes import Transitions
from ractd_jax.tasks import TaskSpec

SHOWN = 5  # notes on dimensions


class Recorded:
    """The recorded episodes of a task, loaded at first use.

    Args:
        task: the task.
        source: where they come from.
        count: steps to simulate, or to read of a file; 0 for all there are.
        progress: where the line is printed.
    """

    def __init__(self, task: TaskSpec, source: str, count: int, progress: Progress):
        self._task, self._source, self._count, self._progress = task, source, count, progress

    @functools.cached_property
    def episodes(self) -> Transitions:
        """All complete episodes.

        Raises:
            UserError: the data cannot be had or read.
        """
        from ractd_jax.data import sources  # readers are loaded where data are wanted

        task = self._task
        recorded = sources.load(task, self._source, transitions=self._count or None)
        summary, label = statistics.summary(recorded, task), labels.label(self._source, task)
        text = (
            f"data: {task.name}, {label}: {summary['trajectories']:,} "
            f"episodes, {summary['steps']:,} steps, return {summary['return_mean']:.1f} +- "
            f"{summary['return_std']:.1f} (max {summary['return_max']:.0f})"
        )
        if task.env_id and task.kind == "policy":
            text += f", mean score {summary['score_mean']:.1f}"
        notes = [] if self._source in sources.WORDS else self._notes(recorded)
        if len(notes) > SHOWN:
            more = f"{len(notes) - SHOWN} notes more; the stage data shows them all"
            notes = [*notes[:SHOWN], more]
        for line in (text, *(f"note: {note}" for note in notes)):
            self._progress.console.print(line, markup=False, soft_wrap=True)
        return recorded

    def _notes(self, recorded: Transitions) -> list[str]:
        """Return what deserves a second look in data of one's own, as the stage `data` does."""
        from ractd_jax.data import sources

        names = sources.dimension_names(self._source)
        described = dimensions.describe(recorded, self._task, names)
        return [note for dimension in described for note in dimension.notes]

    @functools.cached_property
    def identity(self) -> identity.Identity:
        """What the episodes are known by, wherever they lie.

        Raises:
            UserError: the data cannot be had or read.
        """
        return identity.of(self.episodes)
