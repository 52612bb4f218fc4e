"""What a method is: one record, made in the method's own file and found by itself.

A stage is the training of one model by one method. Everything the project knows about a stage comes
from its record: help, labels, colours, network calls, what it reads and needs, and how it is made.
`methods.registry` finds the records; docs/adding_a_method.md shows a whole one.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from ractd_jax.config import Config, Section
from ractd_jax.diffusion import Noise
from ractd_jax.tasks import TaskSpec
from ractd_jax.types import Algorithm


class Reads(enum.Enum):
    """What a batch of a method holds."""

    WINDOWS = "windows"  # trajectories of actions given observations; in mazes states given ends
    RETURNS = "returns"  # single steps, each with the return-to-go from there
    STATE_ACTION = "state_action"  # windows of actions and states together
    PAIRS = "pairs"  # the action between two states in a row
    TRANSITIONS = "transitions"  # single steps, what they earned and where they led


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is made of.

    Attributes:
        stage: its name.
        config: the whole configuration.
        section: of the stage.
        needed: the models of earlier stages, by the role they play in this one.
        noise: the stage's noise levels.
        horizon: steps of a window.
        shape: (horizon, dim) of a trajectory.
        cond_dim: numbers that a trajectory is conditioned on.
    """

    stage: str
    config: Config
    section: Section
    needed: Mapping[str, "Made"]
    noise: Noise
    horizon: int
    shape: tuple[int, int]
    cond_dim: int

    @property
    def task(self) -> TaskSpec:
        """The task."""
        return self.config.task

    @property
    def sizes(self) -> dict[str, Any]:
        """`shape` and `cond_dim`, as every `make_*` takes them."""
        return {"shape": self.shape, "cond_dim": self.cond_dim}


@dataclasses.dataclass(frozen=True)
class Made:
    """A model of an earlier stage: what it was made of, and its functions."""

    context: Context
    algorithm: Algorithm


def _one_call(fields: Any) -> int:
    del fields
    return 1


def _no_fields(config: Config) -> Mapping[str, Any]:
    del config
    return {}


def _nothing(config: Config, stage: str) -> Mapping[str, str]:
    del config, stage
    return {}


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, as a stage of a pipeline.

    Attributes:
        name: of the stage, on the command line and in folders.
        help: one line of `--help`.
        make: `(context, optimiser) -> Algorithm`.
        fields: the dataclass of `<stage>.method`.
        network: dataclasses of `<stage>.network`, by the word in its field `kind`; a single one
            needs no word.
        reads: what its batches hold.
        label: in tables and figures, as "Flow Q-learning".
        colour: in figures, as "#e76f51"; no two alike.
        order: its place in tables, from the simplest to the main one.
        needs: `(config, stage) -> {role: stage}`, the stages whose weights it needs.
        acts: its model acts.
        values: its model values trajectories, so it can choose among candidates.
        deterministic: its samples are all the same.
        uses_history: it is conditioned on `data.history` observations.
        sampling_fields: fields of its method that only acting heeds: they may differ from those it
            was trained with.
        calls: `(fields) -> network calls` of one trajectory.
        horizon: `(config) -> steps of a window`; None for `data.horizon`.
        depends: `(config) -> {full name: value}` of fields of other sections that it is trained by.
        row: it is a row of tables, as a policy or a planner by itself.
        heeds_precision: its network computes in `training.precision`.
        tasks: kinds of task that have it: "policy", "planner".
        trained_by_all: part of the command `all`.
    """

    name: str
    help: str
    make: Callable[[Context, Any], Algorithm]
    fields: type
    network: Mapping[str, type]
    reads: Reads
    label: str = ""
    colour: str = ""
    order: int = 0
    needs: Callable[[Config, str], Mapping[str, str]] = _nothing
    acts: bool = True
    values: bool = False
    deterministic: bool = False
    uses_history: bool = False
    sampling_fields: tuple[str, ...] = ()
    calls: Callable[[Any], int] = _one_call
    horizon: Callable[[Config], int] | None = None
    depends: Callable[[Config], Mapping[str, Any]] = _no_fields
    row: bool = True
    heeds_precision: bool = False
    tasks: tuple[str, ...] = ("policy", "planner")
    trained_by_all: bool = False
