"""What the processor of this machine is called and what it can do."""

import functools
import pathlib
import platform


def name() -> str:
    """Return what the processor is called."""
    called = _line("model name").partition(":")[2].strip()
    return called or platform.processor() or platform.machine()


def features() -> str:
    """Return the processor's line of features, of Linux; elsewhere its name."""
    return _line("flags", "Features") or platform.processor()


@functools.cache
def multiplies_bfloat16_in_tiles() -> bool:
    """Return whether products of bfloat16 take a quarter of float32's time (Intel's AMX)."""
    return "amx_bf16" in features().split()


def _line(*starts: str) -> str:
    """Return the first line on processors that Linux begins with one of these, "" if none."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(starts)), "")
