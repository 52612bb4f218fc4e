"""A SHA-256 of every file of a checkpoint, in the format of `sha256sum -c SHA256SUMS`.

They are written before the checkpoint gets its name, so one without them is of another version, or
somebody removed them.
"""

import hashlib
import re
from pathlib import Path

from ractd_jax.data import durable
from ractd_jax.errors import UserError, one_line

NAME = "SHA256SUMS"


def write(folder: Path) -> None:
    """Write the sums of all files of a checkpoint, and see that all of it is on the disk.

    Raises:
        OSError: the disk is full, or cannot be read.
    """
    lines = [f"{_sum(path)}  {name}\n" for name, path in sorted(_files(folder, folder).items())]
    (folder / NAME).write_text("".join(lines))
    durable.flush_tree(folder)


def check(folder: Path, item: str) -> None:
    """Compare the files of an item of a checkpoint with their sums.

    Args:
        folder: of the checkpoint.
        item: a folder in it.

    Raises:
        UserError: a file was changed, is missing, or was not there when the sums were written; or
            there are no sums.
    """
    recorded = {k: v for k, v in _recorded(folder).items() if k.startswith(f"{item}/")}
    try:
        present = _files(folder, folder / item)
        damaged = [name for name in present if recorded.get(name) != _sum(present[name])]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({one_line(error)}); {_remedy(folder)}") from None
    for name in sorted(recorded.keys() - present.keys()):
        raise UserError(f"{folder / _shown(name)} is missing; {_remedy(folder)}")
    for name in damaged:
        what = "differs from its sum in" if name in recorded else "is not listed in"
        path = folder / _shown(name)
        raise UserError(f"{path} {what} {NAME}, so it is damaged; {_remedy(folder)}")
    if not recorded:
        raise UserError(f"{folder / NAME} lists nothing of {item}; {_remedy(folder)}")


def _recorded(folder: Path) -> dict[str, str]:
    try:
        text = (folder / NAME).read_text()
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {NAME}: it was written by another version of ractd_jax, or is "
            "damaged; use that version, or train it again"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / NAME} cannot be read ({one_line(error)}); {_remedy(folder)}"
        ) from None
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in text.split("\n") if line]
    if not lines or None in lines:
        raise UserError(f"{folder / NAME} holds no list of sums; {_remedy(folder)}")
    return {line[2]: line[1] for line in lines if line}


def _files(root: Path, folder: Path) -> dict[str, Path]:
    """Return what is in a folder, but the folders in it, by its name in `root`."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    named = {path.relative_to(root).as_posix(): path for path in files}
    named.pop(NAME, None)
    return named


def _sum(path: Path) -> str:
    if not path.is_file():  # a pipe would wait for ever
        raise OSError(f"{_shown(path.name)} is no file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _remedy(folder: Path) -> str:
    return f"copy it again, remove {folder} to use the checkpoint before, or train it again"
