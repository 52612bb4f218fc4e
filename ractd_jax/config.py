"""The configuration of a run, typed: what the words and fields of the command line become.

`configs/` holds the numbers, as nested dictionaries that `--config.<section>.<field>=<value>`
changes. `build` turns such a dictionary into these frozen dataclasses; nothing below the command
line sees the dictionary. A field has one default, here or in the dataclass of its method.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from ractd_jax import errors
from ractd_jax.diffusion import Noise
from ractd_jax.tasks import TaskSpec
from ractd_jax.train_state import Optimiser


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
    """

    horizon: int = 16
    history: int = 1
    discount: float = 0.99
    termination_penalty: float = -100.0
    drop_last_window: bool = False
    transitions: int = 0
    goal_relabel: float = 0.0

    def __post_init__(self):
        errors.at_least("horizon", self.horizon, 1)
        errors.at_least("history", self.history, 1)
        errors.between("discount", self.discount, 0, 1)
        errors.at_least("transitions", self.transitions, 0)
        errors.between("goal_relabel", self.goal_relabel, 0, 1)


NORMALIZATIONS = ("minmax", "standard", "none")  # of observations
REWARD_SCALES = ("none", "range")


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a method of single steps sees its data.

    Attributes:
        normalization: of observations: "minmax" to [-1, 1], "standard" to mean 0 and deviation 1,
            or "none".
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
        data: how it sees single steps; None for a model of windows.
        noise: noise levels of its own; None for the pipeline's.
        selection: how it chooses among candidates; None for a model that does not act.
    """

    method: Any
    network: Any
    optimiser: Optimiser
    weights: str = "ema"
    epochs: int | None = None
    data: Steps | None = None
    noise: Noise | None = None
    selection: Selection | None = None

    def __post_init__(self):
        errors.choose_field("weights", self.weights, WEIGHTS)
        if not self.optimiser.steps:
            if self.epochs is None:
                raise errors.FieldError("optimiser.steps", "{field} is 0: at least 1")
            errors.at_least("epochs", self.epochs, 1)


PRECISIONS = ("float32", "bfloat16")


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


def replace(config: Any, **fields: Any) -> Any:
    """Return a dataclass with some fields replaced, by dotted names written with `__`.

    Example:
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
        if isinstance(config, Config) and head in config.stages:
            section = replace(config.stages[head], **parts)
            direct["stages"] = direct.get("stages", config.stages) | {head: section}
        else:
            direct[head] = replace(getattr(config, head), **parts)
    return dataclasses.replace(config, **direct)


# ---- from dictionaries and back ------------------------------------------------------------------


def fields_of(kind: type) -> tuple[dataclasses.Field, ...]:
    """Return the fields of a dataclass that a user can set (Flax adds two of its own)."""
    hidden = ("parent", "name") if hasattr(kind, "bind") else ()
    return tuple(f for f in dataclasses.fields(kind) if f.init and f.name not in hidden)


def defaults(kind: type) -> dict[str, Any]:
    """Return the default of every field of a dataclass; fields that have none are left out."""
    found = {}
    for field in fields_of(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def documented(kind: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each field, in one line each.

    Example:
        >>> documented(Selection)["candidates"]
        'samples of each decision.'
    """
    text = inspect.getdoc(kind) or ""
    section = text.partition("Attributes:\n")[2]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith("    "):
            break
        name, colon, words = line.strip().partition(": ")
        if colon and re.fullmatch(r"    \w+: .*", line):
            found[name] = [words]
        elif found and line.strip():
            found[next(reversed(found))].append(line.strip())
    return {name: " ".join(words) for name, words in found.items()}


def build(kind: type, values: Mapping[str, Any], place: str = "") -> Any:
    """Return a dataclass made from a dictionary.

    Args:
        kind: the dataclass; its fields are numbers, words, tuples and other dataclasses.
        values: by field; those that are missing take their defaults.
        place: where the user wrote it, as "student.method", for messages.

    Raises:
        UserError: a field does not exist, is missing, is of another kind or cannot work; it is
            named as the user wrote it.

    Example:
        >>> build(Selection, {"candidates": 8})
        Selection(critic='', candidates=8, inverse_temperature=0.0)
    """
    named = {field.name: field for field in fields_of(kind)}
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in named:
            errors.choose("field", _join(place, name), [_join(place, known) for known in named])
    missing = [name for name in named if name not in values and name not in defaults(kind)]
    if missing:
        raise errors.UserError(f"{_join(place, missing[0])} is missing")
    found = {n: _convert(hints[n], value, _join(place, n)) for n, value in values.items()}
    try:
        return kind(**found)
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


def _convert(hint: Any, value: Any, place: str) -> Any:
    """Return a value as the type of its field wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (a for a in arguments if a is not type(None))
        return _convert(hint, value, place)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise errors.UserError(f"{place} is {value!r}: a section, of fields")
        return build(typing.cast(type, hint), value, place)
    name = str(getattr(origin or hint, "__name__", hint))
    if name in ("tuple", "Sequence"):
        if not isinstance(value, (list, tuple)):
            raise errors.UserError(f"{place} is {value!r}: several values in brackets")
        return tuple(_convert(arguments[0], item, place) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}
        raise errors.UserError(f"{place} is {value!r}: {words.get(hint, name)} is needed")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise errors.UserError(f"{place} is {value}: a finite number is needed")
    return value
