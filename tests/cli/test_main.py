"""The command line as a user sees it, end to end, on a few hundred real Hopper transitions.

Starting Python and JAX takes seconds, so a process of its own has only what needs one: what is
killed or interrupted, its exit status and what a terminal shows. The rest calls `main` here.
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT
from run_helpers import command, saved_arrays, tiny_pipeline, train

import ractd_jax
from ractd_jax import errors, tasks
from ractd_jax.cli import app, configs, flags
from ractd_jax.data.generate import simulated
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, opening, restore


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "hopper.hdf5"
    task = tasks.get("hopper-medium-replay-v2")
    simulated.make(task, path, transitions=1500, seed=0, workers=1)
    return path


def process(words, **environment):
    """Return exit status, output and errors of a process, whose program is the first word."""
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def main(monkeypatch, capsys):
    """`(*words) -> (exit status, output, errors)` of the command line, in this process."""
    monkeypatch.chdir(ROOT)

    def main(*words):
        capsys.readouterr()
        return app.main(["main.py", *words]), *capsys.readouterr()

    return main


@pytest.fixture
def run(main):
    """`(data, stage, workdir, *flags) -> (exit status, output, errors)`, in this process."""
    return lambda *arguments: main(*command(*arguments)[2:], "--config.training.compilation_cache=")


def test_all_trains_evaluates_and_draws(run, main, data, tmp_path):
    code, out, err = process(command(data, "all", tmp_path / "run"))
    assert code == 0, err
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["stage"] for entry in entries] == ["dataset", "teacher", "ctd", "student"]
    student = entries[-1]
    assert student["nfe"] == 1
    assert student["candidates"] == 1
    needed = ("reward", "teacher", "student")
    timed = [json.loads((tmp_path / "run" / s / "timing.json").read_text()) for s in needed]
    assert student["training_seconds"] == pytest.approx(sum(t["seconds"] for t in timed))
    assert student["training_seconds"] > entries[1]["training_seconds"] > 0
    assert len(student["returns"]) == len(student["seeds"]) == 2
    assert student["score_released"] >= student["score_mean"]
    assert student == json.loads((tmp_path / "run" / "student" / "eval.json").read_text())
    for figure in ("learning_curves.png", "returns.png", "latency.png", "student.gif"):
        assert (tmp_path / "run" / "figures" / figure).stat().st_size > 1000
    assert "summary.json" in out

    acting = ractd_jax.load_policy(tmp_path / "run" / "student")
    assert acting(np.zeros(11)).shape == (3,)
    assert acting(np.zeros((5, 11))).shape == (5, 3)
    with pytest.raises(errors.UserError, match="11 numbers"):
        acting(np.zeros(12))
    with pytest.raises(errors.UserError, match="values and does not act"):
        ractd_jax.load_policy(tmp_path / "run" / "reward")

    code, out, err = run(data, "student", tmp_path / "run")
    assert code == 2
    assert "--overwrite" in err
    assert err.count("\n") == 1
    code, out, err = run(data, "teacher", tmp_path / "run", "--config.teacher.optimiser.b1=0.9")
    assert code == 2
    assert "teacher.optimiser.b1" in err
    # A row says of which size it is, so it must be of the size that was trained.
    paper = [w.replace(",size=demo", "") for w in command(data, "eval", tmp_path / "run")[2:4]]
    code, _, err = main(*paper)
    assert code == 2
    assert "size" in err
    # What cannot be replaced is not removed.
    kept = checkpoints.run_status(tmp_path / "run" / "teacher")
    code, out, err = run(tmp_path / "no.hdf5", "teacher", tmp_path / "run", "--overwrite")
    assert code == 2
    assert "no.hdf5" in err
    assert checkpoints.run_status(tmp_path / "run" / "teacher") == kept == "finished"


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(data, tmp_path):
    """Compiled as users do, who find their programs in the cache when they go on."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    optimised = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "JAX_ENABLE_COMPILATION_CACHE": "1"}
    more = [
        "--config.teacher.optimiser.steps=400",
        "--config.training.save_every=20",
        f"--config.training.compilation_cache={tmp_path / 'cache'}",
    ]
    assert process(command(data, "teacher", whole, *more), **optimised)[0] == 0

    stopped = subprocess.Popen(
        command(data, "teacher", cut, *more),
        env=os.environ | optimised, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # A name of digits alone: Orbax renames a checkpoint to it when it is whole.
    folder = cut / "teacher" / "checkpoints"
    while not any(entry.name.isdigit() for entry in folder.glob("*")):
        assert stopped.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    assert checkpoints.run_status(cut / "teacher") == "unfinished"
    code, out, err = process(command(data, "teacher", cut, "--resume", *more), **optimised)
    assert code == 0, err
    assert "continues at update" in out
    for a, b in zip(saved_arrays(whole / "teacher"), saved_arrays(cut / "teacher"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert json.loads((cut / "teacher" / "timing.json").read_text())["seconds"] > 0
    curves = [(w / "teacher" / "metrics.jsonl").read_text() for w in (whole, cut)]
    assert curves[0] == curves[1]


def test_an_interrupt_saves_first(data, tmp_path):
    more = ["--config.teacher.optimiser.steps=1000000"]
    stopped = subprocess.Popen(
        command(data, "teacher", tmp_path, *more), stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "teacher" / "metrics.jsonl").exists():
        assert stopped.poll() is None
        time.sleep(0.02)
    time.sleep(1)
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 2
    assert "--resume continues" in err
    last = json.loads((tmp_path / "teacher" / "metrics.jsonl").read_text().splitlines()[-1])
    store = checkpoints.Checkpoints(tmp_path / "teacher")
    assert store.latest() == last["step"]
    store.close()


def test_a_path_may_hold_spaces(main, tmp_path):
    folder = tmp_path / "my configs"
    folder.mkdir()
    text = "def get_config(arg):\n    raise ValueError('it was read')\n"
    (folder / "robot.py").write_text(text)
    for arguments in (
        [f"--config={folder / 'robot.py'}:data"],
        ["--config", f"{folder}/robot.py:data"],
    ):
        assert "it was read" in main(*arguments)[2]


def test_an_interrupt_elsewhere_is_one_line(tmp_path):
    waits = tmp_path / "waits.py"  # a configuration that is read for as long as a download takes
    waits.write_text(
        "import time\n\n\ndef get_config(arg):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    # What runs in a shell's background ignores the signal, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = subprocess.Popen(
        [sys.executable, "main.py", f"--config={waits}:data"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    stopped.stdout.readline()
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert err == "stopped; with --resume the same command keeps what is trained\n"


def test_too_little_memory_is_one_line(monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")

    monkeypatch.setattr(opening, "open_seeds", full)
    config = configs.load("hopper_mr", "student,size=demo")
    with pytest.raises(errors.UserError, match=r"optimiser.batch_size.*9 bytes") as caught:
        app.run(flags.Options(config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=configs/hopper_mr.py:studnet"], "Did you mean 'student'"),
        (["--config=configs/hoper_mr.py:student"], "Did you mean 'configs/hopper_mr.py'"),
        (["--config=configs/hopper_mr.py:student,size=tiny"], "demo, paper, small"),
        (["--config=configs/hopper_mr.py:student,sead=1"], "Did you mean 'seed'"),
        (["--config=configs/hopper_mr.py:student,seed=x"], "whole number"),
        (["--config=configs/hopper_mr.py:student", "--config.data.horizn=3"], "horizon"),
        (["--config=configs/hopper_mr.py:student", "--config.foo=1"], "no such field: foo"),
        (["--config=configs/hopper_mr.py:student", "--nosuch"], "nosuch"),
        (["--config=configs/hopper_mr.py:student,source=simulatd"], "Did you mean 'simulated'"),
        (["--config=configs/hopper_mr.py:student,source=no/such.hdf5"], "no/such.hdf5"),
        (["--config=configs/hopper_mr.py:student", "extra"], "one word too many"),
        (["--config=configs/hopper_mr.py:student", "--resume", "--overwrite"], "contradict"),
        ([], "--config is missing"),
        (["--config", "configs/hoper_mr.py:student"], "Did you mean 'configs/hopper_mr.py'"),
        (["--config=configs/hopper_mr.py:student", "--config.size=demo"], "follow the colon"),
        (["--config=configs/hopper_mr.py:student", "--config.task=ant"], "files in configs"),
        (["--config=configs/hopper_mr.py:idql_eval,seeds=2,size=demo"], "one seed at a time"),
        (["--config=configs/custom.py:collect"], "--config.collect.env=Ant-v4"),
        (["--config=configs/hopper_mr.py:collect", "--overwrite"], "continues what is there"),
        (["--config=configs/kitchen.py:data"], "Did you mean 'configs/kitchen_"),
        (["--config=configs/kitchen_mixed.py:data,source=simulated"], "source=d4rl or source=min"),
    ],
)
def test_a_wrong_word_ends_in_one_line(main, arguments, says, tmp_path):
    code, _, err = main(*arguments, f"--workdir={tmp_path / 'x'}")
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [
        (["main.py"], [], "--config is missing"),
        (["-m", "ractd_jax"], ["hopper_mr:student", "--nosuch"], "nosuch"),
        (["main.py"], ["hopper_mr:reward,source=no/such.hdf5"], "no/such.hdf5"),  # JAX has started
    ],
)
def test_a_process_ends_with_status_2_and_without_a_traceback(program, arguments, says, tmp_path):
    words = [sys.executable, *program, *arguments, f"--workdir={tmp_path / 'x'}"]
    code, out, err = process(words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_help_names_every_stage_size_and_source(main):
    code, out, _ = main("--help")
    assert code == 0
    for word in ("teacher", "student", "demo", "paper", "simulated", "released", "--resume"):
        assert word in out
    code, out, _ = process([sys.executable, "-m", "ractd_jax", "--help=fields", "student"])
    assert code == 0
    assert "student.method.reward_weight" in out


def test_eval_needs_the_folder_alone_and_never_trains(run, main, data, tmp_path):
    assert run(data, "reward", tmp_path / "run")[0] == 0
    program = ["eval", f"--workdir={tmp_path / 'run'}"]
    code, _, err = main(*program)
    assert code == 2
    assert "nothing that acts is trained" in err
    assert ":all," in err
    assert not (tmp_path / "run" / "student").exists()
    small = ["--config.bc.network.hidden=(8,)", "--config.bc.optimiser.steps=20"]
    assert run(data, "bc", tmp_path / "run", *small)[0] == 0
    code, _, err = main(*program, "--config.eval.rows=('bc', 'student nfe=2')")
    assert code == 2
    assert "student is not trained" in err
    assert ":student," in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run" / "student").exists()
    code, _, err = process([sys.executable, "main.py", *program, "--config.eval.episodes=1"])
    assert code == 0, err
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["stage"] for entry in entries] == ["dataset", "bc"]
    assert len(entries[-1]["returns"]) == 1


def test_help_into_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "main.py", "--help"],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 0


def test_windows_longer_than_every_episode(run, data, tmp_path):
    code, _, err = run(data, "teacher", tmp_path / "run", "--config.data.horizon=2000")
    assert code == 2
    assert "horizon 2000 does not fit: the longest episode has" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_refused(run, data, tmp_path):
    tmp_path.chmod(0o500)
    code, _, err = run(data, "teacher", tmp_path / "run")
    assert code == 2
    assert "cannot" in err


def test_a_folder_that_is_a_file_is_refused(run, data, tmp_path):
    (tmp_path / "run").write_text("")
    code, _, err = run(data, "reward", tmp_path / "run")
    assert code == 2
    assert err.startswith("error: cannot")
    assert err.count("\n") == 1


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    job = tiny_pipeline("hopper_mr", tmp_path)
    train(job, "reward")
    meta = json.loads((job.run("reward") / checkpoints.CONFIG).read_text())
    meta["config"]["reward"]["network"]["dims"] = [8, 16]
    like = restore.stage_template(registry.configure(meta["config"]), "reward")
    with pytest.raises(errors.UserError, match="does not fit"):
        restore.restore(job.run("reward"), like)


def test_nan_stops_the_run_and_keeps_the_checkpoint(run, data, tmp_path):
    wild = [
        "--config.reward.optimiser.learning_rate=10",
        "--config.reward.optimiser.weight_decay=1e12",
        "--config.reward.optimiser.warmup=0",
    ]
    code, _, err = run(data, "reward", tmp_path, *wild)
    assert code == 2
    assert "stopped being a finite number at update" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("two\nlines"), 1, "ValueError: two lines (a fault of ractd_jax"),
        (RuntimeError("Unable to initialize backend 'tpu'"), 2, "JAX_PLATFORMS=tpu asks for"),
    ],
)
def test_whatever_goes_wrong_ends_in_one_line(main, monkeypatch, error, status, text):
    @app._device()
    def fail(options):
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr(app, "run", fail)
    code, _, errors_shown = main("--config=configs/hopper_mr.py:data")
    assert code == status
    assert text in errors_shown
    assert errors_shown.count("\n") == 1


def test_output_that_nobody_reads_is_not_called_done(main, monkeypatch):
    def fail(options):
        raise BrokenPipeError

    monkeypatch.setattr(app, "run", fail)
    monkeypatch.setattr(app.help_text, "drop_output", lambda: None)
    code, out, errors_shown = main("--config=configs/hopper_mr.py:data")
    assert (code, out, errors_shown) == (141, "", "")
