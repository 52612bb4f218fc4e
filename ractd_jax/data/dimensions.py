"""Each dimension of observations and actions in numbers, and what in it deserves a second look.

A note is made of

    glitch        a few values lie so far from all others that these are squeezed together
    far           it varies little, far from 0: float32 has few steps there, or noise is blown up
    faint         it varies so little that the normaliser takes it for constant
    saturated     many rows lie exactly at its largest or smallest value, or at an action's limit
    jumps         it changes at once by far more than it usually does

and of nothing else.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ractd_jax import tasks
from ractd_jax.data import episodes, normalization

AT_LIMIT = 1e-3  # of the range: an action this near to a limit is at the limit
EDGE = 0.1  # share of the rows, at either end, among which glitches are looked for
GAP = 3.0  # times the range of all but the edges: a gap that parts glitches from the rest
DISTINCT = 20  # values: a dimension of fewer is one of levels, where many rows are at the ends
SATURATED = 0.02  # share of rows at an end of a dimension
ACTIONS_AT_LIMIT = 0.5  # share of rows at an action's limits
USUAL = 0.9  # quantile of the changes from row to row that is the usual one
JUMP, RESET = 10.0, 2.0  # times the usual change, of one dimension, and on average over all others

CURES = (  # of glitches in observations, in actions
    "drop those rows, or choose data.normalization=quantile",
    "drop those rows, or clip them",
)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One dimension of a column.

    Attributes:
        column: "observations" or "actions".
        index: of the dimension.
        name: that the file gives it, or "".
        low: the smallest value.
        high: the largest value.
        quantiles: of 1, 50 and 99 %.
        at_low: share of the rows at the lower limit: an action's, or else its own smallest value.
        at_high: the same at the upper limit.
        jumps: rows after which it changes by far more than usual, within an episode.
        kinds: of its notes, in a word each.
        notes: a sentence for everything that deserves a second look.
    """

    column: str
    index: int
    name: str
    low: float
    high: float
    quantiles: tuple[float, float, float]
    at_low: float
    at_high: float
    jumps: int
    kinds: tuple[str, ...]
    notes: tuple[str, ...]


def describe(
    recorded: episodes.Transitions,
    task: tasks.TaskSpec,
    names: Mapping[str, Sequence[str]] | None = None,
) -> list[Dimension]:
    """Return all dimensions of observations, then of actions.

    Args:
        recorded: complete episodes.
        task: its action limits.
        names: of the dimensions, by column, where they are known.

    Example:
        >>> zeros, ends = np.zeros((4, 1), np.float32), np.array([0, 1, 0, 1], bool)
        >>> recorded = episodes.Transitions(zeros, zeros, zeros[:, 0], ends, ~ends)
        >>> [dimension.column for dimension in describe(recorded, tasks.TaskSpec("custom"))]
        ['observations', 'actions']
    """
    names = names or {}
    inside = ~(recorded.terminals | recorded.timeouts)[:-1]
    reset = resets(recorded)
    x, actions = recorded.observations, recorded.actions
    limits = (np.broadcast_to(limit, actions.shape[1:]).tolist() for limit in task.action_limits())
    labels = [
        named if len(named := names.get(column, ())) == values.shape[1] else [""] * values.shape[1]
        for column, values in (("observations", x), ("actions", actions))
    ]
    observed = [_observed(x[:, i], i, n, inside & ~reset) for i, n in enumerate(labels[0])]
    acted = [
        _acted(actions[:, i], i, name, low, high)
        for i, (name, low, high) in enumerate(zip(labels[1], *limits, strict=True))
    ]
    return observed + acted


def _observed(
    x: Float[np.ndarray, " n"], index: int, name: str, inside: Bool[np.ndarray, " rows"]
) -> Dimension:
    ordered = np.sort(x)
    low, high, at_low, at_high = _ends(ordered)
    notes = {"faint": _faint(low, high), "glitch": _glitch(x, ordered, CURES[0])}
    rows = np.zeros(0, int)
    if not notes["glitch"]:  # which would be seen as a jump and at the limit as well
        rows = _jumps(x, inside)
        notes["far from 0"] = _far(x, low, high)
        notes["saturated"] = _saturated(x, ordered, at_low, at_high)
        notes["jumps"] = _jumping(x, rows)
    return _described(
        ("observations", index, name), (low, high), ordered, (at_low, at_high), len(rows), notes
    )


def _acted(
    x: Float[np.ndarray, " n"], index: int, name: str, lower: float, upper: float
) -> Dimension:
    ordered = np.sort(x)
    low, high, _, _ = _ends(ordered)
    near = AT_LIMIT * (upper - lower)
    at_low, at_high = float((x <= lower + near).mean()), float((x >= upper - near).mean())
    notes = {
        "faint": _faint(low, high),
        "glitch": _glitch(x, ordered, CURES[1]),
        "far from 0": _far(x, low, high),
    }
    if low < high and at_low + at_high > ACTIONS_AT_LIMIT:
        first = int(np.argmax((x <= lower + near) | (x >= upper - near)))
        notes["saturated"] = (
            f"is at a limit in {at_low + at_high:.0%} of the rows, first in row {first:,}: check "
            "the units of the actions, or name wider limits"
        )
    return _described(("actions", index, name), (low, high), ordered, (at_low, at_high), 0, notes)


def _described(
    title: tuple[str, int, str],
    ends: tuple[float, float],
    ordered: Float[np.ndarray, " n"],
    at: tuple[float, float],
    jumps: int,
    notes: Mapping[str, str],
) -> Dimension:
    """Return a dimension with its notes, each of which begins with its name; "" is none."""
    column, index, name = title
    label = f"{column}: dimension {index} ({name})" if name else f"{column}: dimension {index}"
    said = {kind: f"{label} {note}" for kind, note in notes.items() if note}
    return Dimension(
        *title, *ends, _quantiles(ordered), *at, jumps, tuple(said), tuple(said.values())
    )


def _ends(ordered: Float[np.ndarray, " n"]) -> tuple[float, float, float, float]:
    """Return the smallest and the largest value, and the shares of rows that have just them."""
    low, high, n = ordered[0], ordered[-1], len(ordered)
    at_low = np.searchsorted(ordered, low, "right") / n
    at_high = 1 - np.searchsorted(ordered, high, "left") / n
    return float(low), float(high), float(at_low), float(at_high)


def _quantiles(ordered: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    last = len(ordered) - 1
    low, middle, high = (float(ordered[round(share * last)]) for share in (0.01, 0.5, 0.99))
    return low, middle, high


# ---- what deserves a second look -----------------------------------------------------------------


def _faint(low: float, high: float) -> str:
    if not 0 < high - low < normalization.CONSTANT:
        return ""
    return (
        f"varies by {high - low:.2g} only, around {low:.4g}, and is taken for constant: record it "
        "in smaller units if that is no noise"
    )


def _glitch(x: Float[np.ndarray, " n"], ordered: Float[np.ndarray, " n"], cure: str) -> str:
    """Return a note if a gap parts a few values from all others, on either side."""
    n = len(ordered)
    edge = int(EDGE * n)
    if not edge:
        return ""
    wide = ordered.astype(np.float64)
    core = wide[n - 1 - edge] - wide[edge]
    below, above = np.diff(wide[: edge + 1]), np.diff(wide[n - 1 - edge :])
    first = int(below.argmax()) + 1 if below.max() > GAP * core else 0
    last = n - 1 - edge + int(above.argmax()) if above.max() > GAP * core else n - 1
    count, rest = first + n - 1 - last, wide[last] - wide[first]
    kept = rest / max(wide[-1] - wide[0], normalization.CONSTANT)
    # Of a dimension that is constant but for some rows only very few are glitches, else events.
    if not count or (not core and count > max(3, n // 1000)) or kept > 1 / (1 + GAP):
        return ""
    out = (x < ordered[first]) | (x > ordered[last])
    row = int(out.argmax())
    within = f"between {wide[first]:.4g} and {wide[last]:.4g}" if rest else f"{wide[first]:.4g}"
    return (
        f"is {x[row]:.6g} in row {row:,} and far off in {count:,} of {n:,} rows, all others are "
        f"{within}, and so are squeezed into {100 * kept:.2g}% of the range: if it is a glitch, or "
        f"stands for no reading, {cure}"
    )


def _far(x: Float[np.ndarray, " n"], low: float, high: float) -> str:
    if not normalization.far_from_zero(np.array([low]), np.array([high]))[0]:
        return ""
    steps, size = normalization.spacing(np.array([low, high])), high - low
    if x.dtype == np.float64:
        return (
            f"varies by {size:.3g} around {low:.10g}, where float32 has steps of {steps:.2g}: it "
            "is counted from there in float64, so give a policy its observations in float64, or "
            "record it from a start that is near"
        )
    off = 0.01 * max(abs(low), abs(high))
    return (
        f"varies by {size:.2g} only around {low:.6g}, {size / steps:,.0f} of the steps that "
        "float32 has there: what may be rounding fills its whole range, and a value that is off "
        f"by {off:.2g} reaches a network as {2 * off / size:,.0f}; leave it out, or record it in "
        "float64 from a start that is near"
    )


def _saturated(
    x: Float[np.ndarray, " n"], ordered: Float[np.ndarray, " n"], at_low: float, at_high: float
) -> str:
    if max(at_low, at_high) < SATURATED or len(np.unique(ordered)) <= DISTINCT:
        return ""
    ends = ((ordered[0], at_low, "smallest"), (ordered[-1], at_high, "largest"))
    parts = [
        f"exactly {value:.6g}, its {word} value, in {share:.1%} of the rows, first in row "
        f"{int((x == value).argmax()):,}"
        for value, share, word in ends
        if share >= SATURATED and value != 0
    ]
    if not parts:
        return ""
    return (
        f"is {', and '.join(parts)}: a sensor at its limit shows all beyond as the same; record a "
        "wider range if there is one"
    )


def _jumping(x: Float[np.ndarray, " n"], rows: Int[np.ndarray, " jump"]) -> str:
    if not len(rows):
        return ""
    return (
        f"changes {len(rows):,} times by more than {JUMP:g} times its usual step within an "
        f"episode, first after row {rows[0]:,} ({x[rows[0]]:.4g} to {x[rows[0] + 1]:.4g}): a "
        "glitch, an angle that wraps around, or an end of an episode that is not marked"
    )


# ---- changes from row to row ---------------------------------------------------------------------


def resets(recorded: episodes.Transitions) -> Bool[np.ndarray, " rows"]:
    """Return the rows, but the last, after which all jumps, as where another episode begins.

    A row is one of them if its dimensions, all but the one that jumps most, change on average by
    more than twice what each usually does.

    Args:
        recorded: complete episodes; their own ends are left out.

    Example:
        >>> x = np.append(np.arange(50.0), np.arange(50.0))[:, None]
        >>> ends = np.arange(100) == 99
        >>> recorded = episodes.Transitions(x, x, x[:, 0], ends, ends)
        >>> np.flatnonzero(resets(recorded)).tolist()
        [49]
    """
    inside = ~(recorded.terminals | recorded.timeouts)[:-1]
    total, largest, count = np.zeros(len(inside)), np.zeros(len(inside)), 0
    for i in range(recorded.observations.shape[1]):
        change, usual = _changes(recorded.observations[:, i], inside)
        if usual > 0:
            total += change / usual
            largest = np.maximum(largest, change / usual)
            count += 1
    if count > 1:  # one dimension that jumps alone is a glitch of its own
        total, count = total - largest, count - 1
    return inside & (total > RESET * count)


def _changes(
    x: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " rows"], float]:
    """Return the changes after all rows but the last, and the usual one within an episode."""
    change = np.abs(np.diff(x.astype(np.float64)))
    usual = float(np.quantile(change[inside], USUAL)) if inside.any() else 0.0
    return change, usual


def _jumps(
    x: Float[np.ndarray, " n"], inside: Bool[np.ndarray, " rows"]
) -> Int[np.ndarray, " jump"]:
    change, usual = _changes(x, inside)
    return np.flatnonzero(inside & (change > JUMP * usual)) if usual else np.zeros(0, int)
