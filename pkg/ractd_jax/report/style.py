"""One name and one colour for each system, the same in every table and figure."""

INK, MUTED, RULE = "#20262e", "#6b7480", "#dfe3e8"

# stage: (what a reader calls it, colour). The colours stay apart for colour-blind readers.
_SYSTEMS = {
    "dataset": ("dataset", "#8b939e"),
    "reward": ("return model", "#8c6bb1"),
    "teacher": ("teacher", "#3d74b8"),
    "ctd": ("ctd (no reward)", "#e39a2d"),
    "ddpm": ("DDPM", "#4b5a8a"),
    "ddim": ("DDIM", "#4b5a8a"),
    "diffuser": ("Diffuser", "#2a9d8f"),
    "diffuser_value": ("Diffuser's value", "#2a9d8f"),
    "inverse": ("inverse dynamics", "#7a5c45"),
    "student": ("RACTD student", "#c8384f"),
    "iql": ("IQL", "#2a9d8f"),
    "fql": ("FQL", "#5f8f3e"),
    "dql": ("Diffusion-QL", "#7a5c45"),
    "edm_bc": ("EDM, cloning", "#5c86a6"),
    "cd": ("consistency, distilled", "#7f4f9c"),
    "ct": ("consistency, trained", "#b07aa1"),
    "eda_behavior": ("EDA's behaviour model", "#b08d57"),
    "eda_critic": ("EDA's critic", "#74a57f"),
    "eda": ("EDA", "#9c4f96"),
}
_OTHERS = ("#2a9d8f", "#7a5c45", "#c77cb4", "#5f8f3e", "#4b5a8a")


def label(stage: str) -> str:
    """Return the name of a stage for a reader; an unknown stage keeps its own.

    What follows a comma says how its model was used: "student, closed loop".
    """
    name, comma, how = stage.partition(",")
    return _SYSTEMS.get(name, (name, ""))[0] + comma + how


def color(stage: str) -> str:
    """Return the colour of a stage; an unknown one has a colour of its own that never changes."""
    stage = stage.partition(",")[0]
    if stage in _SYSTEMS:
        return _SYSTEMS[stage][1]
    return _OTHERS[sum(stage.encode()) % len(_OTHERS)]
