"""The name and the features of this machine's processor."""

import functools
import pathlib
import platform


def name() -> str:
    """Return the name of the processor."""
    model = _line("model name").partition(":")[2].strip()
    return model or platform.processor() or platform.machine()


def features() -> str:
    """Return the line of features that Linux lists; elsewhere the processor's name."""
    return _line("flags", "Features") or platform.processor()


@functools.cache
def multiplies_bfloat16_in_tiles() -> bool:
    """Return whether the processor multiplies bfloat16 in tiles (Intel's AMX).

    Products then take a quarter of their time in float32.
    """
    return "amx_bf16" in features().split()


def _line(*starts: str) -> str:
    """Return the first line of /proc/cpuinfo that begins with one of `starts`, "" if none."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(starts)), "")
