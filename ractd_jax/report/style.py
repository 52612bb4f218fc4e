"""One name and one colour for each system, the same in every table and figure."""

from ractd_jax.methods import registry

INK, MUTED, RULE = "#20262e", "#6b7480", "#dfe3e8"
# What is no method: the data, and DDPM's other sampler, which is its own row.
_SYSTEMS = {"dataset": ("dataset", "#8b939e"), "ddim": ("DDIM", "#1f9e89")}
_OTHERS = ("#2a9d8f", "#7a5c45", "#c77cb4", "#5f8f3e", "#4b5a8a")


def systems() -> dict[str, tuple[str, str]]:
    """Return (label, colour) of everything that has one, by its name."""
    methods = registry.records().values()
    return _SYSTEMS | {m.name: (m.label, m.colour) for m in methods if m.label}


def label(stage: str) -> str:
    """Return the name of a stage for a reader; an unknown stage keeps its own.

    What follows a comma says how its model was used: "student, closed loop".

    Example:
        >>> label("student, closed loop")
        'RACTD student, closed loop'
    """
    name, comma, how = stage.partition(",")
    return systems().get(name, (name, ""))[0] + comma + how


def color(stage: str) -> str:
    """Return the colour of a stage; an unknown one has a colour of its own that never changes."""
    stage = stage.partition(",")[0]
    known = systems()
    if stage in known:
        return known[stage][1]
    return _OTHERS[sum(stage.encode()) % len(_OTHERS)]
