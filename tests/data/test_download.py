"""Downloads continue, try again and give up in one line, whatever the server does."""

import contextlib
import errno
import http.server
import socket
import threading
import time

import pytest

from ractd_jax import errors
from ractd_jax.data import download

CONTENT = bytes(range(256)) * 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as the next entry of the server's script says, the last one for ever."""

    def do_GET(self):
        server = self.server
        step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        server.asked.append(self.headers.get("Range"))
        have = int(self.headers.get("Range", "bytes=0-")[6:-1]) if step.get("ranges", True) else 0
        body = CONTENT[have:]
        if have and not body:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(step.get("status", 206 if have else 200))
        if have:
            first = step.get("start", have)
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", step.get("tag", '"first"'))
        self.send_header("Content-Length", str(step.get("length", len(body))))
        self.end_headers()
        self.wfile.write(body[: step.get("send")])
        if step.get("stall"):
            server.release.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch):
    """`(*script) -> server` that answers so; `asked` lists the Range headers it got."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    with contextlib.ExitStack() as stack:

        def start(*script):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.script, server.asked, server.release = list(script), [], threading.Event()
            server.url = f"http://127.0.0.1:{server.server_port}/data"
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            for leave in (server.server_close, server.shutdown, server.release.set):
                stack.callback(leave)
            return server

        yield start


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "data.hdf5"


def fetch(url, path, check=lambda part: None):
    download.fetch(url, path, check, "do it by hand")


def refused(url, path, text, check=lambda part: None):
    with pytest.raises(errors.UserError, match=text) as caught:
        fetch(url, path, check)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    return str(caught.value)


def part(path):
    return path.with_name("data.hdf5.part")


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ([{}], [None]),
        ([{"send": 1000}, {}], [None, "bytes=1000-"]),
        ([{"send": 1000}, {"send": 500}, {}], [None, "bytes=1000-", "bytes=1500-"]),
        ([{"send": 1000}, {"ranges": False}], [None, "bytes=1000-"]),
        ([{"send": 1000}, {"start": 500}, {}], [None, "bytes=1000-", "bytes=1000-"]),
        ([{"length": 9999}, {}], [None, "bytes=5120-"]),
        ([{"send": 0, "status": 503}, {}], [None, None]),
        ([{"send": 0, "status": 429}, {}], [None, None]),
    ],
    ids=[
        "whole",
        "cut",
        "cut twice",
        "no ranges",
        "wrong range",
        "claims more",
        "busy",
        "too often",
    ],
)
def test_interrupted_download_is_complete_after_retries(serve, path, script, asked):
    server = serve(*script)
    seen = []
    fetch(server.url, path, lambda part: seen.append(part.read_bytes()))
    assert path.read_bytes() == CONTENT
    assert seen == [CONTENT]
    assert server.asked == asked
    assert not part(path).exists()
    fetch(server.url, path)
    assert server.asked == asked  # it is there


def test_a_server_that_stalls_is_asked_again(serve, path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 1.0)
    server = serve({"send": 1000, "stall": True}, {})
    fetch(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.asked[:2] == [None, "bytes=1000-"]


def test_a_server_that_stalls_for_ever(serve, path, monkeypatch, capsys):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    path.parent.mkdir()
    part(path).write_bytes(CONTENT[:1000])
    part(path).with_name("data.hdf5.part.etag").write_text('"first"')
    server = serve({"send": 0, "stall": True})
    refused(server.url, path, r"cannot download http.* \(timed out\); 1,000 bytes are kept")
    assert capsys.readouterr().out.count("timed out: trying again") == len(download.PAUSES)


def test_a_server_that_always_claims_more_than_it_has(serve, path):
    server = serve({"length": 9999, "ranges": False})
    refused(server.url, path, "only 5,120 of 9,999 bytes came.*: do it by hand$")


def test_partial_download_is_kept_for_the_next_call(serve, path):
    server = serve({"send": 1000}, {"send": 10})
    text = refused(server.url, path, r"only 1,020 of 5,120 bytes came\); 1,020 bytes are kept")
    assert text.endswith("do it by hand")
    assert part(path).read_bytes() == CONTENT[:1020]
    again = serve({})
    fetch(again.url, path)
    assert path.read_bytes() == CONTENT
    assert again.asked == ["bytes=1020-"]


def test_a_whole_part_is_not_fetched_again(serve, path):
    path.parent.mkdir()
    part(path).write_bytes(CONTENT)
    fetch(serve({}).url, path)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(serve, path):
    path.parent.mkdir()
    part(path).write_bytes(CONTENT + b"more")
    fetch(serve({}).url, path)
    assert path.read_bytes() == CONTENT


def test_a_refusal_is_not_asked_again(serve, path):
    server = serve({"status": 404})
    refused(server.url, path, "404.*: do it by hand")
    assert server.asked == [None]


def test_refused_connection_is_one_line(serve, path):
    server = serve({})
    server.shutdown()
    server.server_close()
    refused(server.url, path, r"cannot download http://127.*refused")


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_a_name_that_cannot_be_resolved_is_said_at_once(path, monkeypatch, capsys, code):
    asked = []

    def unknown(host, *args, **options):
        asked.append(host)
        raise socket.gaierror(code, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(download, "PAUSES", (60.0, 60.0))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    begun = time.monotonic()
    refused("http://nowhere.invalid/data", path, r"cannot download .*not known\): do it by hand$")
    assert time.monotonic() - begun < 30
    assert asked == ["nowhere.invalid"]
    assert capsys.readouterr().out == ""


def test_a_wrong_file_is_thrown_away(serve, path):
    def check(part):
        raise errors.UserError("it has 3 rows")

    refused(serve({}).url, path, "sent the wrong file, it has 3 rows: do it by hand", check)
    assert not part(path).exists()


def test_a_server_that_announces_too_little_is_found_out_by_the_check(serve, path):
    def check(part):
        if part.read_bytes() != CONTENT:
            raise errors.UserError("it is cut")

    refused(serve({"length": 1000, "send": 1000}).url, path, "it is cut", check)


def test_a_full_disk_is_said_once(serve, path, monkeypatch):
    def full(name, mode):
        file = open(name, mode)  # noqa: SIM115
        monkeypatch.setattr(download, "CHUNK", 1000)

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *exc):
                file.close()

            def write(self, data):
                if file.tell() > 2500:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return file.write(data)

        return Full()

    server = serve({})
    monkeypatch.setattr(download, "open", full, raising=False)
    refused(server.url, path, "cannot write .*No space left")
    assert server.asked == [None]


def test_of_two_processes_one_downloads_and_the_other_waits(serve, path):
    server = serve({})
    begun = threading.Barrier(2, timeout=30)
    failures = []

    def run():
        begun.wait()
        try:
            fetch(server.url, path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


@pytest.mark.parametrize("tag", [None, "", 'W/"weak"', '"older"'])
def test_a_part_of_what_may_be_another_file_is_begun_anew(serve, path, tag):
    path.parent.mkdir()
    part(path).write_bytes(b"x" * 1000)
    if tag is not None:
        part(path).with_name("data.hdf5.part.etag").write_text(tag)
    fetch(serve({}).url, path)  # this server does not know If-Range
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.glob("*.etag")] == []
