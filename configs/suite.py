"""Many runs at once: tasks x stages x seeds, as far apart as a cluster, scheduled by Ray.

    python main.py --config=configs/suite.py                          the nine locomotion tasks
    python main.py --config=configs/suite.py:demo                     one task, three seeds, a CPU
    python main.py --config=configs/suite.py:locomotion --config.size=small --config.seeds=(0,1,2)
    python main.py --config=configs/suite.py:locomotion --ray_address=auto      a running cluster
    python main.py --config=configs/suite.py:table5 --config.size=demo --config.source=simulated

`table...` and `figure...` do the runs behind those of the RACTD paper, at the paper's size on
D4RL's data unless told otherwise; what each run found is in its folder's summary.json, which
`ractd_jax.report.page` turns into tables and figures (docs/results.md, "Make it again").

Needs the extra `suite`. Each run lies where it would lie if it had been started alone. The same
command again goes on: finished runs are skipped, stopped and failed ones continue. On a cluster all
machines must see the same folder, by the same path.
"""

from ml_collections import ConfigDict

from ractd_jax import errors

_LOCOMOTION = tuple(
    f"{env}_{data}" for env in ("hopper", "walker2d", "halfcheetah") for data in ("mr", "m", "me")
)
_MAZES = ("maze2d_umaze", "maze2d_medium", "maze2d_large")
_PAPER = {"size": "paper", "source": "d4rl", "gpus": 1.0}
_RIVALS = ("iql", "edm_bc", "cd", "ct", "eda_behavior", "eda", "fql", "dql")
_SEEDS = ("eval.episodes=100",)  # of evaluation, at every size
_NOT_STUDENT = ("student.method.reward_weight=0.0", "student.method.advantage=0.0")
SUITES = {
    "locomotion": _PAPER | {"tasks": _LOCOMOTION},
    # Table 1: every method on every locomotion task.
    "table1": _PAPER
    | {
        "tasks": _LOCOMOTION,
        "stages": ("teacher", "ctd", "student", *_RIVALS, "eval"),
        "fields": _SEEDS,
    },
    # Tables 2 and 11: planners, simulated data.
    "table2": _PAPER
    | {
        "tasks": _MAZES,
        "source": "simulated",
        "stages": ("teacher", "ctd", "student", "ddpm", "diffuser", "inverse", "eval"),
        "fields": _SEEDS,
    },
    # Table 3: score, calls and time of samplers of one task.
    "table3": _PAPER
    | {
        "tasks": ("hopper_mr",),
        "stages": ("teacher", "ctd", "student", "ddpm", "eval"),
        "fields": (
            "eval.rows=('teacher', 'ddpm', 'ddpm sample_steps=15', "
            "'ddpm sampler=ddim sample_steps=15', 'ctd', 'student')",
            "eval.summary=table3.json",
            *_SEEDS,
        ),
    },
    # Tables 4 and 10: who knows of the reward.
    "table4": _PAPER
    | {
        "tasks": _LOCOMOTION,
        "stages": ("teacher", "student", "eval"),
        "variants": {
            "none": _NOT_STUDENT,
            "teacher": ("teacher.method.reward_weight=0.1", *_NOT_STUDENT),
            "student": (),
            "both": ("teacher.method.reward_weight=0.1",),
        },
        "fields": _SEEDS,
    },
    # Table 5: network calls of an action.
    "table5": _PAPER
    | {
        "tasks": _LOCOMOTION,
        "fields": (
            "eval.rows=('student', 'student nfe=2', 'student nfe=3', 'student nfe=4')",
            "eval.summary=table5.json",
            *_SEEDS,
        ),
    },
    # Figure 4: the reward's weight, over training.
    "figure4": _PAPER
    | {
        "tasks": ("hopper_mr",),
        "stages": ("student", "eval"),
        "variants": {
            f"weight_{round(100 * weight):03d}": (f"student.method.reward_weight={weight}",)
            for weight in (0.3, 0.5, 0.7, 1.0, 1.5)
        },
        "fields": (
            "training.keep=6",  # of 4 GB each at paper size
            "eval.rows=('student',)",
            "eval.online=('student',)",
            *_SEEDS,
        ),
    },
    # The best of all checkpoints beside the last one: online selection beside offline.
    "online": _PAPER
    | {
        "tasks": _LOCOMOTION,
        "stages": ("student", "eval"),
        "variants": {"kept": ()},
        "fields": (
            "training.keep=6",
            "eval.rows=('student',)",
            "eval.online=('student',)",
            *_SEEDS,
        ),
    },
    # The departures of preset `default` and the paper's open choices, each alone undone or changed
    # (docs/presets.md). What changes the U-Net alone, which is not in this size, is left out.
    "ablation": {
        "tasks": ("hopper_mr", "walker2d_mr", "halfcheetah_mr"),
        "size": "demo",
        "source": "simulated",
        "stages": ("student", "eval"),
        "variants": {
            "default": (),
            "discount_099": ("data.discount=0.99",),
            "no_penalty": ("data.termination_penalty=0.0",),
            "drop_last_window": ("data.drop_last_window=True",),
            "initial_std_1": ("noise.initial_std=1.0",),
            "no_clamp": ("noise.clamp=False",),
            "teacher_distance_released": ("teacher.method.distance=released",),
            "teacher_weights_live": ("teacher.weights=live",),
            "reward_weights_live": ("reward.weights=live",),
            "reward_dims_paper": ("reward.network.dims=(32, 64, 128, 256)",),
            "no_layer_norm": ("reward.network.layer_norm=False",),
            "one_member": ("reward.method.members=1", "reward.method.drawn=0"),
            "all_members": ("reward.method.drawn=0",),
            "reward_on_start": ("student.method.reward_on=start",),
            "no_reward_clip": ("student.method.reward_clip=False",),
            "reward_scale_gradient": (
                "student.method.reward_scale=gradient",
                "student.method.reward_weight=0.1",
            ),
            "advantage_0": ("student.method.advantage=0.0",),
            "distance_huber": ("student.method.distance=huber",),
            "distance_released": ("student.method.distance=released",),
            "target_ema": ("student.method.target=ema",),
            "dropout_02": ("student.network.dropout=0.2",),
            "student_weights_live": ("student.weights=live",),
        },
        "fields": ("eval.rows=('student',)", *_SEEDS),
    },
    "demo": {"tasks": ("hopper_mr",), "size": "demo", "source": "simulated"},
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the suite of that name."""
    name = errors.choose("suite", arg or "locomotion", SUITES)
    return ConfigDict(
        {
            "suite": name,
            "stages": ("reward", "teacher", "ctd", "student", "eval"),
            "seeds": (0, 1, 2),
            "env": "",  # "v4": Gymnasium's physics (envs/choice.py)
            "preset": "default",
            "fields": (),  # of every run, for example ("student.method.nfe=2",)
            "variants": {},  # further fields by name: everything once for each, in its own folder
            "cpus": 1.0,  # of a run, by which Ray decides how many go on at once
            "gpus": 0.0,
            "retries": 2,  # of a run that fails, from its newest checkpoint
        }
        | SUITES[name]
    )
