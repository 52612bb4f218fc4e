"""Finds D4RL's own file for a task, or downloads it from D4RL's server.

The folder and the file's base name are the ones the `d4rl` package uses, so that a file it fetched
is found, and the other way round.
"""

import http.client
import os
import urllib.request
from pathlib import Path

from ractd_jax import errors, progress, tasks
from ractd_jax.data import hdf5

SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"
TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 20  # bytes


def locate(task: tasks.TaskSpec) -> Path:
    """Return the path of D4RL's file for a task, downloaded now if it is not there yet.

    It lives in the directory named by the environment variable `D4RL_DATASET_DIR`, or else in
    `~/.d4rl/datasets`.

    Raises:
        UserError: the server cannot be reached, or the file cannot be written.
    """
    default = Path.home() / ".d4rl" / "datasets"
    path = Path(os.environ.get("D4RL_DATASET_DIR") or default) / Path(task.file).name
    if path.is_file():
        return path
    url = SERVER + task.file
    with hdf5.atomic(path) as temporary:
        try:
            _download(url, temporary)
        except (OSError, http.client.HTTPException) as error:
            raise errors.UserError(
                f"cannot download {url} ({error}): put the file at {path} by hand, "
                "or work offline with source=simulated"
            ) from error
    return path


def _download(url: str, path: Path) -> None:
    """Copy a URL into a file.

    Raises:
        OSError: the server or the disk failed, or the connection ended early.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(path, "wb") as file:
        size = response.headers.get("Content-Length")
        total = int(size) if size else None
        with progress.Progress().task(f"download {url}", total or 0) as bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(file.tell())
            if total is not None and file.tell() != total:
                raise OSError(f"only {file.tell()} of {total} bytes came")
