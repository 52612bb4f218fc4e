"""What the processor of this machine can do."""

import functools
import pathlib
import platform


def features() -> str:
    """Return the processor's line of features, of Linux; elsewhere its name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    words = (line for line in lines if line.startswith(("flags", "Features")))
    return next(words, platform.processor())


@functools.cache
def multiplies_bfloat16_in_tiles() -> bool:
    """Return whether products of bfloat16 take a quarter of float32's time (Intel's AMX)."""
    return "amx_bf16" in features().split()
