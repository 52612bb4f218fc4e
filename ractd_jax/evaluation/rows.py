"""The rows of an evaluation: which trained models act, and how each of them is sampled.

A row is written as on a command line: a stage, then fields of its method that only acting heeds,
the number of candidates that a critic chooses from (`policies.selection`), and the update after
which it was saved, the last one otherwise.

    --config.eval.rows="('ddpm sampler=ddim sample_steps=10', 'student nfe=2 candidates=8')"
    --config.eval.rows="('student', 'student update=4000')"

Without the list every finished stage is a row, sampled as its method says, and if `eval.candidates`
is above 1 once more with so many candidates; where a method has several of its own, once more with
one.
"""

import ast
from typing import Any, NamedTuple

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.config import Config, Selection
from ractd_jax.methods import registry

# Fields that a row's name shows as network calls, or by the sampler's own name.
_SHOWN = ("sampler", "sample_steps", "sample_bins", "nfe")


class EvalRow(NamedTuple):
    """A row.

    Attributes:
        stage: whose model acts.
        fields: of its method, all that only acting heeds.
        nfe: network calls of a decision.
        selection: how it chooses among candidates.
        name: of the row: "student", or "student, NFE 2" where the row has fields of its own.
        update: whose checkpoint acts; None for the last one.
    """

    stage: str
    fields: dict[str, Any]
    nfe: int
    selection: Selection
    name: str
    update: int | None = None

    @property
    def candidates(self) -> int:
        """Samples that each decision is chosen from."""
        return self.selection.candidates

    def file(self, *manner: str) -> str:
        """Return the name of the file that keeps the row's result: eval.json, eval_nfe_2.json."""
        parts = (self.name.partition(", ")[2], *manner)
        if self.name.partition(",")[0] != self.stage:
            parts = (self.name, *manner)
        slug = "_".join(filter(None, parts)).lower()
        for mark in (", ", " ", "="):
            slug = slug.replace(mark, "_")
        return f"eval_{slug}.json" if slug else "eval.json"


def acting_stages(config: Config) -> list[str]:
    """Return the stages that can be rows, in the order of a table."""
    return [
        name for name, m in registry.records().items() if name in config.stages and m.row and m.acts
    ]


def parse_row(config: Config, text: str) -> EvalRow:
    """Return the row that `text` describes.

    Args:
        config: the configuration; its fields hold where `text` names none.
        text: a stage, or a stage and fields, "teacher solver=euler sample_bins=20".

    Raises:
        UserError: there is no such stage or field, or a value is of another kind than its field's.
    """
    if not text.split():
        raise errors.UserError("a row of eval.rows is empty: it begins with a stage")
    stage, *fields = text.split()
    stage = errors.choose("stage in eval.rows", stage, acting_stages(config))
    method, selection = config.stages[stage].method, registry.selection(config, stage)
    given: dict[str, Any] = {}
    suffixes, update = [], None
    if len({field.partition("=")[0] for field in fields}) < len(fields):
        raise errors.UserError(f"{text!r} in eval.rows says one field twice")
    legal = (*registry.get(stage).sampling_fields, "candidates", "update")
    for field in fields:
        name, _, value = field.partition("=")
        errors.choose(f"field of {stage} in eval.rows", name, legal)
        if name == "candidates":
            selection = configuration.replace(selection, candidates=_value(field, value, int))
            suffixes.append(f"1 of {selection.candidates}")
        elif name == "update":
            update = _value(field, value, int)
            suffixes.append(f"update={update}")
        else:
            given[name] = _value(field, value, type(getattr(method, name)))
    if selection.candidates > 1 and config.task.kind == "planner":
        raise errors.UserError(
            f"eval.rows: {text!r}: plans are not chosen among candidates; leave them out"
        )
    if given:
        try:  # they say so now if they cannot work
            method = configuration.build(type(method), configuration.plain(method) | given)
            config = configuration.replace(config, **{f"{stage}__method": method})
            registry.make(config, stage)
        except errors.FieldError as error:
            raise errors.UserError(f"eval.rows: {text!r}: {error}") from None
    head, calls = getattr(method, "sampler", stage), registry.calls(config, stage)
    names = [head, f"NFE {calls}"] if given else [head]
    names += [f"{name}={value}" for name, value in given.items() if name not in _SHOWN]
    name = ", ".join(names + suffixes)
    return EvalRow(stage, registry.sampling(config, stage), calls, selection, name, update)


def _value(field: str, text: str, kind: type) -> Any:
    """Return the value of `field`, "nfe=2", whose text is "2", as a value of a kind."""
    if kind is str:
        return text
    value = None
    try:
        value = ast.literal_eval(text)
        if kind is not int:
            return kind(value)
    except (SyntaxError, TypeError, ValueError):
        value = None
    if type(value) is not int:  # True is one too
        raise errors.UserError(f"{field!r} in eval.rows: {kind.__name__} expected")
    if value < 1 and field.partition("=")[0] in ("candidates", "update"):
        raise errors.UserError(f"{field!r} in eval.rows: at least 1")
    return value
