"""Compiled programs kept on disk, so that a second process does not compile them again.

JAX finds a kept program by the program itself, the options and the version of its compiler, so what
runs is what would have been compiled. `$JAX_COMPILATION_CACHE_DIR` names another folder, and
`JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
"""

import hashlib
import os
import pathlib
import platform

import jax

from ractd_jax.nn.cpu import cpuinfo

FOLDER = "~/.cache/ractd_jax"
LARGEST = 2**30  # bytes; the programs used longest ago make room
_DIRECTORY = "jax_compilation_cache_dir"  # JAX's name of the setting
SHORTEST = 0.1  # seconds of compiling that are worth a file


def keep(folder: str = FOLDER) -> pathlib.Path | None:
    """Keep compiled programs from now on; the first of a process must not have been compiled yet.

    Args:
        folder: where; "" leaves JAX as it is.

    Returns:
        The folder in it that belongs to machines like this one, None if nothing was changed
        or it cannot be written.
    """
    if not folder or getattr(jax.config, _DIRECTORY):
        return None
    try:
        path = pathlib.Path(folder).expanduser() / _machine()
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError):  # no home, no permission: a cache is not needed
        return None
    if not os.access(path, os.W_OK):
        return None
    jax.config.update(_DIRECTORY, str(path))
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    return path


def _machine() -> str:
    """Name what a program for the CPU depends on; one for another kind of CPU might not run."""
    return f"{platform.machine()}-{hashlib.sha256(cpuinfo.features().encode()).hexdigest()[:12]}"
