"""Many runs at once: tasks x stages x seeds, as far apart as a cluster, scheduled by Ray.

    python main.py --config=configs/suite.py                          the nine locomotion tasks
    python main.py --config=configs/suite.py:demo                     one task, three seeds, a CPU
    python main.py --config=configs/suite.py:locomotion --config.size=small --config.seeds=(0,1,2)
    python main.py --config=configs/suite.py:locomotion --ray_address=auto      a running cluster

Needs the extra `suite`. Each run lies where it would lie if it had been started alone. The same
command again goes on: finished runs are skipped, stopped and failed ones continue. On a cluster all
machines must see the same folder, by the same path.
"""

from ml_collections import ConfigDict

from ractd_jax import errors

_LOCOMOTION = tuple(
    f"{env}_{data}" for env in ("hopper", "walker2d", "halfcheetah") for data in ("mr", "m", "me")
)
SUITES = {
    "locomotion": {"tasks": _LOCOMOTION, "size": "paper", "source": "d4rl", "gpus": 1.0},
    "demo": {"tasks": ("hopper_mr",), "size": "demo", "source": "simulated"},
}


def get_config(arg=None):
    """Return the suite of that name."""
    name = errors.choose("suite", arg or "locomotion", SUITES)
    return ConfigDict(
        {
            "suite": name,
            "stages": ("reward", "teacher", "ctd", "student", "eval"),
            "seeds": (0, 1, 2),
            "preset": "default",
            "fields": (),  # of every run, for example ("student.method.nfe=2",)
            "cpus": 1.0,  # of a run, by which Ray decides how many go on at once
            "gpus": 0.0,
            "retries": 2,  # of a run that fails, from its newest checkpoint
        }
        | SUITES[name]
    )
