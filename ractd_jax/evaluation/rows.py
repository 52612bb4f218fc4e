"""The rows of an evaluation: which trained models act, and how each of them is sampled.

A row is written as on a command line: a stage, then fields of its method that only acting heeds,
the number of candidates that a judge chooses from (`policy.Reselect`), and the update after which
it was saved, the last one otherwise.

    --config.eval.samplers="('ddpm sampler=ddim sample_steps=10', 'student nfe=2 candidates=8')"
    --config.eval.samplers="('student', 'student update=4000')"

Without the list every finished stage is a row, sampled as its method says, and if `eval.candidates`
is above 1 once more with so many candidates; where a method has several of its own, once more with
one.
"""

import ast
import copy
from typing import Any, NamedTuple

from ractd_jax import errors, stages

# Fields that a row's name shows as network calls, or by the sampler's own name.
_SHOWN = ("sampler", "sample_steps", "sample_bins", "nfe")


class EvalRow(NamedTuple):
    """A row.

    Attributes:
        stage: whose model acts.
        fields: of its method, all that only acting heeds.
        nfe: network calls of a decision.
        reselect: who chooses among how many candidates, as `policy.load_policy` takes it.
        name: of the row: "student", or "student, NFE 2" where the row has fields of its own.
        update: whose checkpoint acts; None for the last one.
    """

    stage: str
    fields: dict[str, Any]
    nfe: int
    reselect: dict[str, Any]
    name: str
    update: int | None = None

    @property
    def candidates(self) -> int:
        """Samples that each decision is chosen from."""
        return self.reselect["candidates"]

    def file(self, *manner: str) -> str:
        """Return the name of the file that keeps the row's result: eval.json, eval_nfe_2.json."""
        words = (self.name.partition(", ")[2], *manner)
        if self.name.partition(",")[0] != self.stage:
            words = (self.name, *manner)
        slug = "_".join(filter(None, words)).lower()
        for mark in (", ", " ", "="):
            slug = slug.replace(mark, "_")
        return f"eval_{slug}.json" if slug else "eval.json"


def parse_row(config: dict[str, Any], text: str) -> EvalRow:
    """Return the row that `text` describes.

    Args:
        config: the resolved configuration; its fields hold where `text` names none.
        text: a stage, or a stage and fields, "teacher solver=euler sample_bins=20".

    Raises:
        UserError: there is no such stage or field, or a value is of another kind than its field's.
    """
    if not text.split():
        raise errors.UserError("a row of eval.samplers is empty: it begins with a stage")
    stage, *words = text.split()
    has = [name for name in stages.ACTING if name in config]
    stage = errors.choose("stage in eval.samplers", stage, has)
    reselect, fields = stages.reselection(config, stage), stages.SAMPLING.get(stage, ())
    config = copy.deepcopy({stage: config[stage]})
    method, given, suffixes, update = config[stage]["method"], {}, [], None
    if len({word.partition("=")[0] for word in words}) < len(words):
        raise errors.UserError(f"{text!r} in eval.samplers says one field twice")
    for word in words:
        name, _, value = word.partition("=")
        errors.choose(f"field of {stage} in eval.samplers", name, (*fields, "candidates", "update"))
        if name == "candidates":
            reselect["candidates"] = _value(word, value, int)
            suffixes.append(f"1 of {reselect['candidates']}")
            continue
        if name == "update":
            update = _value(word, value, int)
            suffixes.append(f"update={update}")
            continue
        given[name] = method[name] = _value(word, value, type(method[name]))
    head, calls = method.get("sampler", stage), stages.nfe(config, stage)
    names = [head, f"NFE {calls}"] if given else [head]
    names += [f"{name}={value}" for name, value in given.items() if name not in _SHOWN]
    name = ", ".join(names + suffixes)
    return EvalRow(stage, stages.sampling(config, stage), calls, reselect, name, update)


def _value(word: str, text: str, kind: type) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
        if kind is not int:
            return kind(value)
    except (SyntaxError, TypeError, ValueError):
        value = None
    if type(value) is not int:  # True is one too
        raise errors.UserError(f"{word!r} in eval.samplers: {kind.__name__} expected")
    if value < 1 and word.partition("=")[0] in ("candidates", "update"):
        raise errors.UserError(f"{word!r} in eval.samplers: at least 1")
    return value
