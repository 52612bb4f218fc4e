"""What a run is: a configuration, the folder of its stages, and the data it stands on.

Everything of one pipeline lies in one folder, the workdir (by default
`runs/<task>/<size>[-<source>][-<env>][-<preset>]-seed<k>`), with a folder for each stage:

    reward/ teacher/ ctd/ student/    config.json, metrics.jsonl, checkpoints/, timing.json,
                                      eval.json
    summary.json, figures/            written by `evaluation`
"""

import dataclasses
import pathlib
import re

from ractd_jax import tasks
from ractd_jax.config import Config
from ractd_jax.console import Progress
from ractd_jax.data.recorded import Recorded


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A pipeline: nothing here changes while it is trained.

    Attributes:
        config: its configuration.
        workdir: its folder.
        recorded: its data, loaded at first use.
        progress: where to show what goes on.
    """

    config: Config
    workdir: pathlib.Path
    recorded: Recorded
    progress: Progress

    @property
    def task(self) -> tasks.TaskSpec:
        """The task."""
        return self.config.task

    def run(self, stage: str) -> pathlib.Path:
        """Return the folder of a stage."""
        return self.workdir / stage

    def say(self, text: str) -> None:
        """Print one line."""
        self.progress.console.print(text, markup=False, soft_wrap=True)


def default_workdir(config: Config) -> pathlib.Path:
    """Return `runs/<task>/<size>[-<source>][-<env>][-<preset>]-seed<k>`, without what is usual."""
    source = config.source
    short = source if source.startswith("minari:") else pathlib.Path(source).stem
    source = "" if source == "d4rl" else f"-{short}"
    env = f"-{config.env}" if config.env else ""
    preset = "" if config.preset == "default" else f"-{config.preset}"
    name = f"{config.size}{source}{env}{preset}-seed{config.seed}"
    return pathlib.Path("runs") / config.task.name / re.sub(r"[^\w.-]", "_", name)
