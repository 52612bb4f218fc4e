"""What an HDF5 file is made of, looked at before anything of it is read whole.

A file of other tools has its columns in groups; a column may be packed by a filter that is not
installed, or lie in another file; a file may be locked by the program that still writes it. Each
is told as it is, in one line.
"""

import contextlib
import importlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from ractd_jax import errors

NAMES = 8  # that a message lists at most
FILTERS = {  # numbers that The HDF Group has registered
    32001: "Blosc",
    32004: "LZ4",
    32008: "Bitshuffle",
    32015: "Zstandard",
    32026: "Blosc2",
    307: "BZip2",
    32000: "LZF",
}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a file to read it; whatever goes wrong inside is one line.

    Raises:
        UserError: it is locked, not readable, damaged, or another kind of file.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except errors.UserError:
        raise
    except Exception as error:  # HDF5 has an error of its own for each kind of damage
        raise errors.UserError(_reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    line = shown(errors.one_line(error))[:300]
    if isinstance(error, BlockingIOError) or "unable to lock" in line:
        return (
            f"{path} is open in another program, which may still write it: close it there; if "
            "nobody writes it, HDF5_USE_FILE_LOCKING=FALSE reads it all the same"
        )
    if "already open for write" in line or "consistency flags" in line:
        return (
            f"{path} was not closed by the program that wrote it: if that is still running, close "
            f"the file there; if it was stopped, `h5clear -s {path}` makes the file readable"
        )
    if isinstance(error, PermissionError):
        return f"cannot read {path}: no permission"
    return (
        f"cannot read {path} as HDF5, it is damaged or another kind of file (delete one that "
        f"was simulated or downloaded: it is made again): {line}"
    )


def columns(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Return the columns at the top of a file; nothing of them is read.

    Args:
        file: an open file.
        path: of it, for messages.

    Raises:
        UserError: a column of the schema is a group or a link to nowhere, or all columns lie in
            groups.
    """
    datasets: dict[str, h5py.Dataset] = {}
    groups: list[h5py.Group] = []
    for name in map(str, file):
        item = _item(file, name, path)
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
        elif isinstance(item, h5py.Group):
            groups.append(item)
    for group in groups:
        name = str(group.name).strip("/")
        if name in ("observations", "actions", "rewards"):
            raise errors.UserError(
                f"{path}: {name!r} is a group of {_listed(group)}, not a column: write one array "
                f"{name!r} of a row a step, as np.concatenate([...], axis=1) makes it"
            )
    if groups and "observations" not in datasets and not _only_about(groups):
        raise errors.UserError(_nested(path, groups))
    return datasets


def _item(file: h5py.File, name: str, path: Path) -> h5py.HLObject:
    """Return what stands under a name; nothing in another file is opened."""
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise errors.UserError(
            f"{path}: {shown(name)} is a link to {shown(link.path)} in "
            f"{shown(str(link.filename))}, and no other file is read: copy the column into this one"
        )
    try:
        item = file[name]
        if item.file.filename != file.filename:  # a link within the file, to a link out of it
            raise errors.UserError(
                f"{path}: {shown(name)} lies in another file, and no other file is read: copy the "
                "column into this one"
            )
        return item
    except (KeyError, OSError) as error:
        if isinstance(link, h5py.SoftLink):
            raise errors.UserError(
                f"{path}: {shown(name)} is a link to {shown(link.path)}, which is not there"
            ) from error
        raise


def _only_about(groups: list[h5py.Group]) -> bool:
    """Tell if groups hold what may stand beside D4RL's columns, and no columns."""
    return {str(group.name).strip("/") for group in groups} <= {"infos", "metadata"}


def _nested(path: Path, groups: list[h5py.Group]) -> str:
    """Say where the columns lie, in a file that has them in groups."""
    first = groups[0]
    if "terminations" in first and "truncations" in first:
        return (
            f"{path} holds groups of a Minari dataset, {shown(str(first.name))} and others: give "
            "the folder of the dataset, source=<folder with metadata.json>"
        )
    inside = ", ".join(_paths(groups))
    return (
        f"{path} has its columns in groups ({inside}): one array at the top is needed for each of "
        "observations, actions, rewards, terminals and timeouts, all episodes end to end"
    )


def _paths(groups: list[h5py.Group]) -> list[str]:
    """Return the paths of a few columns in groups."""
    paths: list[str] = []

    def visit(group: h5py.Group) -> None:
        for name in group:
            if len(paths) >= NAMES:
                return
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if isinstance(item, h5py.Dataset):
                paths.append(shown(str(item.name).strip("/")))
            elif isinstance(item, h5py.Group):
                visit(item)

    for group in groups:
        visit(group)
    more = ["..."] if len(paths) >= NAMES else []
    return [*paths, *more] or [shown(str(group.name).strip("/")) for group in groups[:NAMES]]


def _listed(group: h5py.Group) -> str:
    name = str(group.name).strip("/")
    return ", ".join(f"{shown(name)}/{shown(part)}" for part in list(group)[:NAMES]) or "nothing"


def shown(name: str) -> str:
    r"""Return a name on one line, whatever bytes it is made of.

    Example:
        >>> shown("two\nlines")
        'two\\nlines'
    """
    return name.encode("unicode_escape").decode()


def check_readable(datasets: Mapping[str, h5py.Dataset], path: Path) -> None:
    """Refuse columns that cannot be read, or not on this machine.

    Args:
        datasets: the columns that are to be read.
        path: of the file.

    Raises:
        UserError: a filter is missing, a part lies in another file or was never written, or
            there is not enough memory.
    """
    for name, column in datasets.items():
        plist = column.id.get_create_plist()
        for i in range(plist.get_nfilters()):
            number, label = plist.get_filter(i)[0], plist.get_filter(i)[3]
            if not _available(number):
                kind = FILTERS.get(number) or shown(label.decode("utf8", "replace")) or "unknown"
                raise errors.UserError(
                    f"{path}: {name!r} is packed with the filter {kind} (number {number}), which "
                    "HDF5 does not have here: pip install hdf5plugin (the extra filters), or "
                    "write the column with compression='gzip'"
                )
        if column.is_virtual or plist.get_external_count():
            raise errors.UserError(
                f"{path}: {name!r} is put together from other files, and no other file is read: "
                "copy the column into this one"
            )
    size = sum(int(np.prod(c.shape, dtype=object)) * c.dtype.itemsize for c in datasets.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise errors.UserError(
            f"{path} holds {size / 2**30:,.0f} GiB of numbers, this machine has "
            f"{memory / 2**30:,.0f} GiB of memory: write fewer rows, or use a larger machine"
        )
    for name, column in datasets.items():
        if not _written(column, path):
            raise errors.UserError(
                f"{path}: {name!r} of shape {column.shape} was never written whole: write all its "
                "rows, or make it as long as what there is"
            )


def _written(column: h5py.Dataset, path: Path) -> bool:
    """Tell if every part of a column lies in the file; HDF5 makes up what does not."""
    layout = column.id.get_create_plist().get_layout()
    if not column.size or layout == h5py.h5d.COMPACT:
        return True
    if layout == h5py.h5d.CHUNKED and column.chunks:
        parts = zip(column.shape, column.chunks, strict=True)
        return column.id.get_num_chunks() >= math.prod(-(-n // chunk) for n, chunk in parts)
    return 0 < column.id.get_storage_size() <= path.stat().st_size


def _available(number: int) -> bool:
    """Tell if HDF5 has a filter; the package hdf5plugin, where it is installed, brings more."""
    if not h5py.h5z.filter_avail(number):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
    return h5py.h5z.filter_avail(number)
