"""Files that are there after a power cut: they reach the disk before they get their name."""

import os
from pathlib import Path


def replace(temporary: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a file its name, once all of it is on the disk.

    Args:
        temporary: what it is called so far, in the same folder.
        path: its name; a file that has it already is replaced.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    flush(temporary)
    os.replace(temporary, path)
    flush(Path(path).parent)


def flush(path: str | os.PathLike) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: they cannot be written there.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk.

    Raises:
        OSError: it cannot be written there.
    """
    for parent, _, files in os.walk(folder):
        for name in files:
            flush(Path(parent, name))
        flush(parent)
