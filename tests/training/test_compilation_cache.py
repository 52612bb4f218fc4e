"""A second process finds the programs of the first one, where the user wants that."""

import os
import subprocess
import sys

from ractd_jax.training import compilation_cache

PROGRAM = """
import sys, jax, jax.numpy as jnp
from ractd_jax.training import compilation_cache
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
compilation_cache.SHORTEST = 0.0
print(compilation_cache.keep(sys.argv[1]))
print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 3))).sum())
print(sum(name.endswith("/cache_hits") for name in hits))
"""


def run(folder, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    path, value, hits = done.stdout.split("\n")[:3]
    return path, float(value), int(hits)


def test_second_process_does_not_compile_again(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert first[2] == 0
    assert second[2] > 0
    assert second[:2] == first[:2]
    assert first[0].startswith(str(tmp_path))


def test_without_a_folder_no_program_is_kept(tmp_path):
    assert run("")[0] == "None"
    folder = tmp_path / "users_own"
    assert run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(folder))[0] == "None"
    assert folder.exists()
    assert not (tmp_path / "ours").exists()


def test_other_processors_have_other_folders(monkeypatch):
    folder = compilation_cache._machine()
    monkeypatch.setattr(
        compilation_cache.pathlib.Path, "read_text", lambda _: "flags : none such\n"
    )
    assert compilation_cache._machine() != folder
    monkeypatch.setattr(compilation_cache.pathlib.Path, "read_text", _unreadable)
    assert compilation_cache._machine()


def _unreadable(_):
    raise OSError
