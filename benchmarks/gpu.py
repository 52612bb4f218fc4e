"""What a GPU is asked for, in one call.

    python benchmarks/gpu.py [--source=simulated] [--out=runs/gpu] [--quick]

1. the stage bench with the published network, in float32 and in bfloat16: rates of matrix products,
   time of one action, the student's update at batch 4800 and its share of that rate;
2. the 5 M-parameter Hopper run: return model, teacher and student, how long each took, evaluation.

Prints the targets beside what was measured and writes <out>/gpu.json, with the machine and the
commands. `--quick` does the same with the demo's network and a few updates, to see that it runs.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
HOPPER = "configs/hopper_mr.py"
TARGETS = {
    "share": "student's update in bfloat16, share of the measured products (target: 40 % or more)",
    "action_ms": "one-step action at batch 1, ms (target: below 0.5)",
    "run_minutes": "5 M-parameter run, minutes of training (target: minutes)",
}
QUICK = [
    *(f"--config.{stage}.optimiser.steps=20" for stage in ("reward", "teacher", "student")),
    "--config.eval.episodes=2",
    "--config.teacher.method.sample_bins=5",
    "--config.data.transitions=2000",
]


def run(out: pathlib.Path, argument: str, *flags: str) -> tuple[str, float]:
    """Run main.py in a process of its own, which has all memory; return its command and seconds."""
    command = [
        sys.executable,
        "main.py",
        f"--config={HOPPER}:{argument}",
        f"--workdir={out}",
        *flags,
    ]
    print("\n$", shlex.join(["python", *command[1:]]), flush=True)
    # PyTorch, if it is there to be compared with, needs memory beside JAX.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return shlex.join(["python", *command[1:]]), time.perf_counter() - begun


def read(path: pathlib.Path) -> Any:
    """Return the contents of a JSON file."""
    return json.loads(path.read_text())


def measure(out: pathlib.Path, source: str, quick: bool) -> dict[str, Any]:
    """Do everything; return the contents of gpu.json."""
    result: dict[str, Any] = {"commands": [], "quick": quick, "source": source}
    size, limits = ("demo", ["--config.bench.seconds=0.1"]) if quick else ("paper", [])
    for precision in ("float32", "bfloat16"):
        folder = out / f"bench-{precision}"
        flags = [f"--config.training.precision={precision}", *limits]
        command, _ = run(folder, f"bench,size={size}", *flags)
        result["commands"].append(command)
        result[f"bench_{precision}"] = read(folder / "bench.json")

    stages = ("reward", "teacher", "student")
    folder, size = out / "hopper", "demo" if quick else "small"
    flags = QUICK if quick else ["--config.training.updates_per_dispatch=500"]
    seconds = {}
    for stage in (*stages, "eval"):
        argument = f"{stage},size={size},source={source}"
        command, seconds[stage] = run(folder, argument, "--resume", *flags)
        result["commands"].append(command)
    result |= {"seconds": seconds, "summary": read(folder / "summary.json")}

    low = result["bench_bfloat16"]
    student = next(row for row in low["train"] if row["stage"] == "student")
    one = [e for e in low["act"] if e["policy"].startswith("student, NFE 1") and e["batch"] == 1]
    trained = sum(read(folder / stage / "timing.json")["seconds"] for stage in stages)
    result["measured"] = {
        "share": student["share_of_product_rate"],
        "action_ms": {e["policy"]: e["median_ms"] for e in one},
        "run_minutes": trained / 60,
    }
    return result


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="simulated", help="data of the Hopper run")
    parser.add_argument("--out", default="runs/gpu", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true", help="see that it runs, measure nothing")
    args = parser.parse_args()
    out = args.out.absolute()
    try:
        result = measure(out, args.source, args.quick)
    except subprocess.CalledProcessError as error:  # it has said why
        sys.exit(error.returncode)
    (out / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{result['bench_bfloat16']['machine']['device']}")
    for name, what in TARGETS.items():
        print(f"{what}: {result['measured'][name]}")
    for entry in result["summary"]:
        print(f"{entry['stage']}: score {entry['score_mean']:.1f}")
    print(f"wrote {out / 'gpu.json'}")


if __name__ == "__main__":
    main()
