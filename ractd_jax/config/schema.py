"""The sections of a configuration and their fields, each with its one default."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ractd_jax import errors
from ractd_jax.diffusion import Noise
from ractd_jax.tasks import TaskSpec
from ractd_jax.train_state import Optimiser
from ractd_jax.types import PRECISIONS

NORMALIZATIONS = ("minmax", "quantile", "standard", "none")  # of observations


@dataclasses.dataclass(frozen=True)
class Data:
    """What trajectories and returns are cut from the episodes.

    Attributes:
        horizon: steps of a trajectory.
        history: observations it is conditioned on: the present one and those before it.
        discount: of the return-to-go.
        termination_penalty: added to the reward where an episode ends in a terminal.
        drop_last_window: leave out the last window of an episode, as the published code does.
        transitions: steps to simulate, or to read of a file; 0 for all there are.
        goal_relabel: share of the examples, in mazes, that run from a random row to the target of
            its segment and rest there.
        normalization: of observations, for models of windows: one of `NORMALIZATIONS`. A method of
            single steps has its own.
    """

    horizon: int = 16
    history: int = 1
    discount: float = 0.99
    termination_penalty: float = -100.0
    drop_last_window: bool = False
    transitions: int = 0
    goal_relabel: float = 0.0
    normalization: str = "minmax"

    def __post_init__(self):
        errors.at_least("horizon", self.horizon, 1)
        errors.at_least("history", self.history, 1)
        errors.between("discount", self.discount, 0, 1)
        errors.at_least("transitions", self.transitions, 0)
        errors.between("goal_relabel", self.goal_relabel, 0, 1)
        errors.choose_field("normalization", self.normalization, NORMALIZATIONS)


REWARD_SCALES = ("none", "range")


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a method of single steps sees its data.

    Attributes:
        normalization: of observations: "minmax" to [-1, 1], "quantile" so that one glitch squeezes
            nothing, "standard" to mean 0 and deviation 1, or "none".
        reward_scale: "range" divides rewards by the range of the episodes' returns, times 1000;
            "none" leaves them.
    """

    normalization: str = "minmax"
    reward_scale: str = "none"

    def __post_init__(self):
        errors.choose_field("normalization", self.normalization, NORMALIZATIONS)
        errors.choose_field("reward_scale", self.reward_scale, REWARD_SCALES)


@dataclasses.dataclass(frozen=True)
class Selection:
    """How a policy chooses among several samples.

    Attributes:
        critic: the stage that values them; "" for the pipeline's `critic`.
        candidates: samples of each decision.
        inverse_temperature: one is drawn with probabilities softmax(inverse_temperature x value);
            0 takes the best.
    """

    critic: str = ""
    candidates: int = 1
    inverse_temperature: float = 0.0

    def __post_init__(self):
        errors.at_least("candidates", self.candidates, 1)
        errors.at_least("inverse_temperature", self.inverse_temperature, 0)


WEIGHTS = ("ema", "live")


@dataclasses.dataclass(frozen=True)
class Section:
    """Everything that is said of one stage, the training of one model.

    Attributes:
        method: the dataclass of its method (`Method.fields`).
        network: what describes its network (one of `Method.network`).
        optimiser: how it is trained; `steps` 0 means `epochs` over the training set.
        weights: which weights act and are handed on: "ema", the average, or "live".
        epochs: passes over the training set, where `optimiser.steps` is 0.
        best_episodes: it learns from the best episodes alone, those of the largest returns, up to
            this share of the steps: 0.1 for the best tenth, 1 for all.
        data: how it sees single steps; None for a model of windows.
        noise: noise levels of its own; None for the pipeline's.
        selection: how it chooses among candidates; None for a model that does not act.
    """

    method: Any
    network: Any
    optimiser: Optimiser
    weights: str = "ema"
    epochs: int | None = None
    best_episodes: float = 1.0
    data: Steps | None = None
    noise: Noise | None = None
    selection: Selection | None = None

    def __post_init__(self):
        errors.choose_field("weights", self.weights, WEIGHTS)
        if not 0 < self.best_episodes <= 1:
            raise errors.FieldError(
                "best_episodes", f"{{field}} is {self.best_episodes}: above 0 and at most 1"
            )
        if not self.optimiser.steps:
            if self.epochs is None:
                raise errors.FieldError("optimiser.steps", "{field} is 0: at least 1")
            errors.at_least("epochs", self.epochs, 1)


@dataclasses.dataclass(frozen=True)
class Training:
    """How training is run and saved.

    Attributes:
        updates_per_dispatch: updates between two looks at the numbers.
        save_every: updates between checkpoints.
        keep: newest checkpoints that are kept.
        compilation_cache: folder of compiled programs; "" for none.
        precision: of the denoising networks: "float32" or "bfloat16".
        devices: of this machine that share each batch; 0 for all.
    """

    updates_per_dispatch: int = 10
    save_every: int = 5000
    keep: int = 2
    compilation_cache: str = "~/.cache/ractd_jax"
    precision: str = "float32"
    devices: int = 0

    def __post_init__(self):
        for field in ("updates_per_dispatch", "save_every", "keep"):
            errors.at_least(field, getattr(self, field), 1)
        errors.choose_field("precision", self.precision, PRECISIONS)
        errors.at_least("devices", self.devices, 0)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the command `bench` measures.

    Attributes:
        batches: decisions asked for at once.
        seconds: of repeating each measurement but updates.
        max_seconds: a measurement that must take longer is skipped.
    """

    batches: tuple[int, ...] = (1, 16, 100, 1024)
    seconds: float = 2.0
    max_seconds: float = 120.0

    def __post_init__(self):
        for batch in self.batches:
            errors.at_least("batches", batch, 1)
        for field in ("seconds", "max_seconds"):
            errors.at_least(field, getattr(self, field), 0)


CONTROLLERS = ("waypoints", "inverse")


@dataclasses.dataclass(frozen=True)
class Eval:
    """What is evaluated, and how.

    Attributes:
        episodes: of each row.
        first_seed: episodes are seeded first_seed, first_seed + 1, ...
        candidates: above 1: evaluate once more, a critic choosing among so many samples.
        online: stages of whose checkpoints the best is a row as well.
        summary: the file of the rows below, in the pipeline's folder.
        rows: of the table, e.g. "student nfe=2"; () for all that is trained.
        replan_every: steps between proposed plans in closed loop (mazes); 0 for open loop alone.
        replan: stages evaluated in closed loop as well.
        follow: what turns plans into actions: "waypoints", the published controller, or "inverse",
            learned inverse dynamics.
    """

    episodes: int = 100
    first_seed: int = 0
    candidates: int = 0
    online: tuple[str, ...] = ()
    summary: str = "summary.json"
    rows: tuple[str, ...] = ()
    replan_every: int = 0
    replan: tuple[str, ...] = ()
    follow: str = "waypoints"

    def __post_init__(self):
        errors.at_least("episodes", self.episodes, 1)
        errors.at_least("first_seed", self.first_seed, 0)
        errors.at_least("candidates", self.candidates, 0)
        errors.at_least("replan_every", self.replan_every, 0)
        errors.choose_field("follow", self.follow, CONTROLLERS)
        if not re.fullmatch(r"[\w.-]+\.json", self.summary):
            raise errors.FieldError(
                "summary", f"{{field}} is {self.summary!r}: the name of a file, as in table5.json"
            )


@dataclasses.dataclass(frozen=True)
class IdqlEval:
    """What the table of Consistency-IDQL compares.

    Attributes:
        candidates: among which its critic chooses.
        nfe: network calls of an action.
    """

    candidates: int = 256
    nfe: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self):
        errors.at_least("candidates", self.candidates, 1)
        for calls in self.nfe:
            errors.at_least("nfe", calls, 1)


@dataclasses.dataclass(frozen=True)
class Collect:
    """How the command `collect` makes data with SAC.

    Attributes:
        env: Gymnasium id of any environment with continuous actions.
        steps: in which SAC learns; a finished run goes on with more.
        warmup: random ones among them, before it learns.
        snapshot_every: steps between the actors that are saved.
        replay: steps up to which the replay is written, besides that of `steps`.
        rollout: steps of the saved actors that are rolled out, equally long.
        transitions: of the roll-out.
    """

    env: str = ""
    steps: int = 300_000
    warmup: int = 10_000
    snapshot_every: int = 10_000
    replay: tuple[int, ...] = ()
    rollout: tuple[int, ...] = ()
    transitions: int = 1_000_000


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole configuration: of a pipeline, and of what the command does with it.

    Attributes:
        task: what it is about; whole, so that a run needs nothing else to know its task.
        stage: the word of the command line: a stage to train, or a command.
        size: of the networks, for people.
        source: where the data come from.
        env: the word for the environment that the task acts in, "d4rl", "v4" or "v5"; "" for the
            one that goes with the source.
        preset: of the method, for people.
        seed: of training.
        seeds: trained side by side, from `seed` on.
        critic: the stage that values a student's samples: the return model `reward`, or a critic.
        data: how trajectories are cut.
        noise: the noise levels that the pipeline shares.
        training: how training is run.
        bench: of the command `bench`.
        eval: of the command `eval`.
        idql_eval: of the command `idql_eval`.
        collect: of the command `collect`.
        stages: the sections of all stages that the task has, by name.
    """

    task: TaskSpec
    stage: str = "student"
    size: str = "paper"
    source: str = "d4rl"
    env: str = ""
    preset: str = "default"
    seed: int = 0
    seeds: int = 1
    critic: str = "reward"
    data: Data = Data()
    noise: Noise = Noise()  # noqa: RUF009
    training: Training = Training()
    bench: Bench = Bench()
    eval: Eval = Eval()
    idql_eval: IdqlEval = IdqlEval()
    collect: Collect = Collect()
    stages: Mapping[str, Section] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        errors.at_least("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise errors.FieldError(
                "seed", f"{{field}} is {self.seed}: below 2^32, of which keys are made"
            )
        errors.at_least("seeds", self.seeds, 1)
