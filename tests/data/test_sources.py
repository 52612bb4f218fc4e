"""A source is a word or a path; D4RL's file is found, fetched whole, or asked for in one line."""

import functools
import http.server
import re
import threading

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import d4rl, download, hdf5, sources
from ractd_jax.data.generate import simulated

TASK = tasks.get("hopper-medium-replay-v2")
N = 30


@pytest.fixture
def content(tmp_path):
    """The bytes of a small file of the task: three episodes of ten steps."""
    path = tmp_path / "small.hdf5"
    columns = {
        "observations": np.zeros((N, 11), np.float32),
        "actions": np.zeros((N, 3), np.float32),
        "rewards": np.arange(N, dtype=np.float32),
        "terminals": np.arange(N) % 10 == 9,
        "timeouts": np.zeros(N, bool),
    }
    hdf5.write(path, columns, {})
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """D4RL's folder, empty, and a server that refuses."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(d4rl, "SERVER", "http://127.0.0.1:9/")
    monkeypatch.setattr(download, "PAUSES", ())
    known = d4rl.PUBLISHED[TASK.name]._replace(trajectories=3, steps=N)
    monkeypatch.setitem(d4rl.PUBLISHED, TASK.name, known)
    return tmp_path / "d4rl"


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `content`."""

    def __init__(self, content, *args):
        self.content = content
        super().__init__(*args)

    def do_GET(self):
        self.send_response(200 if self.path == f"/{TASK.file}" else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(folder, content, monkeypatch):
    running = []

    def start():
        handler = functools.partial(Handler, content)
        running.append(http.server.HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[0].serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(d4rl, "SERVER", f"http://127.0.0.1:{running[0].server_port}/")

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_d4rl_file_is_fetched_once(serve, folder, capsys, monkeypatch):
    serve()
    loaded = sources.load(TASK, "d4rl")
    assert loaded.rewards.tolist() == list(range(N))
    assert [f.name for f in folder.glob("[!.]*")] == ["hopper_medium_replay-v2.hdf5"]
    assert "download" in capsys.readouterr().out
    monkeypatch.setattr(d4rl, "SERVER", "http://127.0.0.1:9/")
    assert len(sources.load(TASK, "d4rl").rewards) == N


def test_another_number_of_steps_is_not_d4rls(serve, folder, content, monkeypatch):
    serve()
    monkeypatch.undo()
    monkeypatch.setenv("D4RL_DATASET_DIR", str(folder))
    folder.mkdir()
    (folder / "hopper_medium_replay-v2.hdf5").write_bytes(content)
    with pytest.raises(errors.UserError, match=r"has 30 steps .* has 402,000; delete it") as caught:
        sources.load(TASK, "d4rl")
    assert "\n" not in str(caught.value)


def test_a_server_that_sends_another_file(serve, folder, monkeypatch):
    serve()
    monkeypatch.setitem(d4rl.PUBLISHED, TASK.name, d4rl.PUBLISHED["hopper-medium-v2"])
    with pytest.raises(
        errors.UserError, match=r"it has 30 steps .* 999,906: put the file"
    ) as caught:
        sources.load(TASK, "d4rl")
    assert "\n" not in str(caught.value)
    assert list(folder.glob("[!.]*")) == []


def test_published_numbers_of_medium_expert_are_those_of_its_halves():
    medium, expert, both = (
        d4rl.PUBLISHED[f"hopper-{quality}-v2"] for quality in ("medium", "expert", "medium-expert")
    )
    assert both.steps == 1_999_400
    assert both.trajectories == 3213
    rng = np.random.default_rng(0)

    def sample(known):
        x = rng.normal(size=known.trajectories)
        return known.return_mean + known.return_std * (x - x.mean()) / x.std()

    returns = np.concatenate([sample(medium), sample(expert)])
    assert both.return_mean == pytest.approx(returns.mean())
    assert both.return_std == pytest.approx(returns.std())


def test_offline_message_names_the_url_the_place_and_the_way_out(folder):
    with pytest.raises(errors.UserError) as caught:
        d4rl.locate(TASK)
    text = str(caught.value)
    assert "\n" not in text
    assert f"http://127.0.0.1:9/{TASK.file}" in text
    assert str(folder / "hopper_medium_replay-v2.hdf5") in text
    assert "source=simulated" in text


def test_default_folder_is_the_one_of_the_d4rl_package(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("D4RL_DATASET_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(errors.UserError, match=re.escape(str(tmp_path / ".d4rl" / "datasets"))):
        d4rl.locate(TASK)


def test_a_path_is_a_source(tmp_path, content):
    assert len(sources.load(TASK, str(tmp_path / "small.hdf5")).rewards) == N
    assert len(sources.load(TASK, str(tmp_path / "small.hdf5"), transitions=25).rewards) == 20
    with pytest.raises(errors.UserError, match="no complete episode"):
        sources.load(TASK, str(tmp_path / "small.hdf5"), transitions=9)
    with pytest.raises(errors.UserError, match="at least 1, or 0 for all"):
        sources.load(TASK, str(tmp_path / "small.hdf5"), transitions=-10)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("simulatd", "Did you mean 'simulated'.*or the path of an HDF5 file"),
        ("minari", "unknown data source 'minari'"),
        ("gym-d4rl:x", "Did you mean 'gym-d4rl'"),
        ("gymd4rl", "Did you mean 'gym-d4rl'"),
        ("nowhere/data.hdf5", "no data file nowhere/data.hdf5"),
        ("", "unknown data source ''"),
        ("tests", "tests is a folder, but not that of a Minari dataset"),
    ],
)
def test_unknown_source_is_refused(source, text):
    with pytest.raises(errors.UserError, match=text) as caught:
        sources.load(TASK, source)
    assert "\n" not in str(caught.value)


def test_unknown_task_is_refused_with_a_hint():
    with pytest.raises(errors.UserError, match="Did you mean 'hopper-medium-v2'") as caught:
        tasks.get("hopper-mediun-v2")
    assert "\n" not in str(caught.value)


def test_simulated_is_handed_its_options(tmp_path, content, monkeypatch):
    asked = {}

    def cached(task, **options):
        asked.update(options, task=task)
        return tmp_path / "small.hdf5"

    monkeypatch.setattr(simulated, "cached", cached)
    sources.load(TASK, "simulated", transitions=7, seed=3)
    assert asked == {"task": TASK, "transitions": 7, "seed": 3}
