"""Downloads a large file over HTTP: continues where it stopped, tries again, shows its progress.

What has arrived lies beside the file as `<name>.part` and stays there when the connection fails, so
that the next call asks for the rest only (RFC 9110, range requests). The server's ETag is kept
with it: if the file there is another one by now, or has no ETag, the download begins anew. The file
itself appears once it is whole and its content is checked. What may pass is tried again: a
connection that breaks, a server that is busy. A refusal, or a name that cannot be resolved, ends
the download at once.
"""

import contextlib
import email.message
import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from ractd_jax import console, errors
from ractd_jax.data import cache, durable

TIMEOUT = 30.0  # seconds without an answer
PAUSES = (1.0, 4.0, 10.0)  # seconds before the second, third and fourth attempt
CHUNK = 1 << 20  # bytes
FAILURES = (OSError, http.client.HTTPException)  # of a connection, in urllib


def fetch(url: str, path: Path, check: Callable[[Path], None], remedy: str) -> None:
    """Download a URL to a path, unless the file is there already.

    Of several processes that want the same file one downloads it and the others wait.

    Args:
        url: of the file.
        path: where to put it; missing folders are made.
        check: called with the path of the whole file before it gets its name; raises a `UserError`
            where the content is wrong, and the download is deleted.
        remedy: what the user can do instead, the end of every message.

    Raises:
        UserError: the server cannot be reached or sends something else, or the disk is full.
    """
    part = path.with_name(f"{path.name}.part")
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.one_writer(path, "downloading"):
            if path.is_file():
                return
            _attempts(url, part, remedy)
            try:
                check(part)
            except errors.UserError as error:
                part.unlink()
                _tag_file(part).unlink(missing_ok=True)
                raise errors.UserError(f"{url} sent the wrong file, {error}: {remedy}") from error
            durable.replace(part, path)
            _tag_file(part).unlink(missing_ok=True)


def _attempts(url: str, part: Path, remedy: str) -> None:
    """Call `_continue` until it succeeds, with pauses between, or raise a `UserError`."""
    for pause in (*PAUSES, None):
        try:
            return _continue(url, part)
        except FAILURES as error:
            if pause is None or _is_final(error):
                have = _arrived(part)
                kept = f"; {have:,} bytes are kept and the next try continues from there"
                raise errors.UserError(
                    f"cannot download {url} ({_line(error)}){kept if have else ''}: {remedy}"
                ) from error
            text = f"{_line(error)}: trying again in {pause:g} s"
            console.make_console().print(text, markup=False, soft_wrap=True)
            time.sleep(pause)
    raise AssertionError("unreachable")


def _is_final(error: BaseException) -> bool:
    """Say whether asking again is of no use: the server refused, or its name is unknown here."""
    if isinstance(getattr(error, "reason", error), socket.gaierror):
        return True
    code = getattr(error, "code", 500)
    return 400 <= code < 500 and code not in (408, 429)


def _continue(url: str, part: Path) -> None:
    """Download what is missing of a file.

    Raises:
        OSError: the connection failed or ended early.
        UserError: the disk did.
    """
    tag, have = _kept_tag(part), _arrived(part)
    headers = {"Range": f"bytes={have}-", "If-Range": tag} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 416:
                raise
            _, total = _range(error.headers)
            if total == have:  # it was whole already, and the program was stopped at that moment
                return
            with _disk(part):
                part.unlink()
        raise OSError(f"the server has {total} bytes, {have} had arrived") from None
    with response:
        start, total = _range(response.headers) if response.status == 206 else (0, None)
        if start not in (0, have):
            raise OSError(f"asked for the rest from byte {have}, the server sent it from {start}")
        sent = response.headers.get("ETag", "")
        if start and sent not in ("", tag):  # it does not know If-Range
            part.unlink()
            raise OSError("the server has another file by now")
        size = response.headers.get("Content-Length")
        if total is None and size is not None:
            total = start + int(size)
        with _disk(part):
            file = open(part, "r+b" if start else "wb")  # noqa: SIM115
            if not start:
                _tag_file(part).write_text(sent, "utf8")
        description = f"download {part.name.removesuffix('.part')}"
        with file, console.Progress().task(description, total or 0, start) as bar:
            file.seek(start)
            while chunk := response.read1(CHUNK):  # as it arrives, so that a stall loses nothing
                with _disk(part):
                    file.write(chunk)
                    file.flush()
                bar.update(file.tell())
            done = file.tell()
    if total is not None and done != total:
        if done > total:
            part.unlink()
        raise OSError(f"only {done:,} of {total:,} bytes came" if done < total else "too much came")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _arrived(part: Path) -> int:
    """Return how many bytes are there to continue from."""
    return part.stat().st_size if _kept_tag(part) and part.exists() else 0


def _kept_tag(part: Path) -> str:
    """Return the ETag of what has arrived; "" if it had none, or a weak one."""
    try:
        tag = _tag_file(part).read_text("utf8")
    except (OSError, ValueError):
        return ""
    return tag if re.fullmatch(r'"[!-~]*"', tag) else ""


def _range(headers: email.message.Message) -> tuple[int, int | None]:
    """Return the first byte sent and the size of the whole, from Content-Range."""
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", ""))
    if not match:
        return 0, None
    first, total = match.groups()
    return int(first or 0), None if total == "*" else int(total)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn a failure of the disk into a `UserError`, which is not tried again."""
    try:
        yield
    except OSError as error:
        raise errors.UserError(f"cannot write {path}: {_line(error)}") from error


def _line(error: BaseException | str) -> str:
    if type(error) is urllib.error.URLError:
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__
