"""Two processes train as one, and go on after one of them was killed."""

import os
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from helpers import write_episodes
from run_helpers import command, saved_arrays

from ractd_jax import errors, tasks
from ractd_jax.training import checkpoints, multihost

PROCESSES, DEVICES = 2, 2
FLAGS = [
    "--config.teacher.optimiser.steps=60",
    "--config.training.save_every=20",
    "--config.training.compilation_cache=",
]


def start(data, workdir, index, port, *flags, count=PROCESSES, devices=DEVICES, stage="teacher"):
    """Start one of `count` processes with so many virtual devices."""
    xla = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": xla, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    if count > 1:
        variables = {
            multihost.ADDRESS: f"127.0.0.1:{port}",
            multihost.COUNT: count,
            multihost.INDEX: index,
        }
        environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(
        command(data, stage, workdir, *FLAGS, *flags),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.hdf5"
    write_episodes(tasks.get("hopper-medium-replay-v2"), path)
    return path


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_after_a_kill(data, tmp_path):
    one = start(data, tmp_path / "one", 0, 0, count=1, devices=PROCESSES * DEVICES)

    port = free_port()
    both = [start(data, tmp_path / "two", i, port) for i in range(PROCESSES)]
    folder = tmp_path / "two" / "teacher" / "checkpoints"
    while not any(entry.name.isdigit() for entry in folder.glob("*")):
        assert [p.poll() for p in both] == [None, None], both[0].communicate()
        time.sleep(0.02)
    both[1].send_signal(signal.SIGKILL)
    both[0].send_signal(signal.SIGKILL)  # it would wait for the other one's heartbeat
    for process in both:
        process.wait()
        process.communicate()
    assert checkpoints.run_status(tmp_path / "two" / "teacher") == "unfinished"

    port = free_port()
    both = [start(data, tmp_path / "two", i, port, "--resume") for i in range(PROCESSES)]
    said = [process.communicate(timeout=240) for process in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert "continues at update" in said[0][0]
    assert "teacher" not in said[1][0]  # only the first one speaks
    _, err = one.communicate(timeout=240)
    assert one.returncode == 0, err
    runs = [tmp_path / name / "teacher" for name in ("one", "two")]
    for a, b in zip(*map(saved_arrays, runs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in runs]
    assert len(lines[0]) == len(lines[1])
    assert {p.name for p in runs[0].iterdir()} == {p.name for p in runs[1].iterdir()}


def test_several_processes_only_train(data, tmp_path):
    port = free_port()
    both = [start(data, tmp_path, i, port, stage="all") for i in range(PROCESSES)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "evaluate with one process" in err


def test_single_process_needs_no_other():
    multihost.join()
    multihost.meet("nowhere")
    assert multihost.first()
    assert not multihost.several()
    assert [multihost.any_of(flag) for flag in (True, False)] == [True, False]
    assert jax.process_count() == 1


def test_environment_variables_that_are_no_numbers_are_refused(monkeypatch):
    monkeypatch.setenv(multihost.ADDRESS, "127.0.0.1:1")
    monkeypatch.setenv(multihost.COUNT, "two")
    with pytest.raises(errors.UserError, match=multihost.COUNT):
        multihost.join()
