"""Scores that papers give for what our tables measure: on D4RL's data, at the papers' sizes.

RACTD (Duan et al. 2025), Tables 1 to 3 and 11; the teacher's 80 bins are 158 calls as we count. By
task, then by the name of a row, whose plans are followed in open loop.
"""

SOURCE = "RACTD's paper, D4RL's data"
SCORES = {
    "hopper-medium-replay-v2": {
        "student": 104.9, "teacher": 114.2, "ddpm, NFE 15": 24.2, "ddim, NFE 15": 60.6,
        "diffuser": 93.6,
    },
    "hopper-medium-v2": {"student": 121.0, "diffuser": 74.3},
    "hopper-medium-expert-v2": {"student": 129.0, "diffuser": 103.3},
    "walker2d-medium-replay-v2": {"student": 91.5, "diffuser": 70.6},
    "walker2d-medium-v2": {"student": 98.9, "diffuser": 79.6},
    "walker2d-medium-expert-v2": {"student": 119.6, "diffuser": 106.9},
    "halfcheetah-medium-replay-v2": {"student": 57.9, "diffuser": 37.7},
    "halfcheetah-medium-v2": {"student": 59.3, "diffuser": 42.8},
    "halfcheetah-medium-expert-v2": {"student": 95.9, "diffuser": 88.9},
    "maze2d-umaze-v1": {
        "student": 125.7, "ctd": 123.4, "teacher": 125.4, "ddpm": 126.3,
        "ddim, NFE 10": 121.2, "ddim, NFE 1": 3.5, "diffuser": 113.9,
    },
    "maze2d-medium-v1": {
        "student": 130.8, "ctd": 119.8, "teacher": 120.1, "ddpm": 126.8,
        "ddim, NFE 10": 126.2, "ddim, NFE 1": -2.6, "diffuser": 121.5,
    },
    "maze2d-large-v1": {
        "student": 143.8, "ctd": 127.1, "teacher": 149.0, "ddpm": 144.8,
        "ddim, NFE 10": 143.1, "ddim, NFE 1": -1.5, "diffuser": 123.0,
    },
}  # fmt: skip


def score(task: str, row: str) -> float | None:
    """Return the published score of a row of the table of a task; None where there is none."""
    return SCORES.get(task, {}).get(row)
