"""Files of torch.save are read, and nothing in them can run, lie about its size, or crash us."""

import builtins
import contextlib
import os
import pathlib
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import torch_builder

from ractd_jax import errors
from ractd_jax.torch_import import pickle_reader


def opened(path):
    return pickle_reader.TorchFile(path)


def read(path):
    with opened(path) as file:
        return {name: file.array(value) for name, value in file.content.items()}


def refusal(path):
    """Return the one line that a file is refused with."""
    with pytest.raises(errors.UserError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ckpt"


@pytest.fixture
def archive():
    return torch_builder.Archive()


# ---- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", [False, True])
def test_tensors_are_read_with_their_type_shape_and_strides(path, archive, parameter):
    rng = np.random.default_rng(0)
    arrays = {
        "plain": rng.normal(size=(3, 4, 2)).astype(np.float32),
        "transposed": rng.normal(size=(3, 4)).astype(np.float32).T,
        "half": rng.normal(size=5).astype(np.float16),
        "scalar": np.float32(2.5).reshape(()),
        "empty": np.zeros((0, 4), np.float32),
    }
    stored = archive.state_dict(
        {k: v for k, v in arrays.items() if k != "transposed"}, parameter=parameter
    )
    base = arrays["transposed"].T
    stored["transposed"] = archive.tensor(base, shape=(4, 3), strides=(1, 4))
    with opened(archive.write(path, stored)) as file:
        assert set(file.content) == set(arrays)
        for name, array in arrays.items():
            read = file.array(file.content[name])
            assert read.dtype == array.dtype
            assert read.shape == file.content[name].shape == array.shape
            np.testing.assert_array_equal(read, array)


def test_objects_of_other_packages_become_placeholders_whose_strings_are_found(path):
    torch_builder.checkpoint(path, {"model.x": np.ones(3, np.float32)}, task="walker2d-medium-v2")
    with opened(path) as file:
        assert isinstance(file.content["cfg"], pickle_reader.Inert)
        assert isinstance(file.content["pickles"]["x"], pickle_reader.Inert)
        assert file.content["state_dicts"]["optimizer"]["param_groups"][0]["betas"] == (0.95, 0.999)
        assert {"walker2d-medium-v2", "env_name", "Logger"} <= file.strings()


# ---- hostile pickles ---------------------------------------------------------------------------


def calls(marker):
    """Return pickles that, loaded as Python loads them, create the file `marker`."""
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    call = torch_builder.Call

    def text(module, name, argument):  # GLOBAL, protocol 0
        return f"c{module}\n{name}\n(S{argument!r}\ntR.".encode()

    def short(word):
        return b"\x8c" + bytes([len(word)]) + word.encode()

    return {
        "os.system": pickle.dumps(call(os.system, command), 2),
        "in a list": pickle.dumps([{"a": (1, call(os.system, command))}], 2),
        "protocol 5": pickle.dumps(call(os.system, command), 5),
        "eval": pickle.dumps(call(eval, code), 2),
        "exec": text("__builtin__", "exec", code),
        "popen": pickle.dumps(call(subprocess.getoutput, command), 4),
        "INST": f"(S{command!r}\nios\nsystem\n.".encode(),
        "OBJ": f"(cos\nsystem\nS{command!r}\no.".encode(),
        "dotted": b"\x80\x04"
        + short("os")
        + short("path.os.system")
        + b"\x93"
        + short("x")
        + b"\x85R.",
        "getattr": pickle.dumps(call(getattr, "x", "upper"), 2),
        "below an allowed name": pickle.dumps(call(builtins.__import__, "os"), 2),
    }


@pytest.mark.parametrize("name", calls("x"))
def test_a_pickle_that_calls_what_it_should_not_is_refused_and_not_run(
    path, archive, tmp_path, name
):
    marker = tmp_path / "run"
    text = refusal(archive.write(path, calls(marker)[name]))
    assert "nothing of it was run" in text
    assert not marker.exists()


def test_the_hostile_pickles_of_this_test_do_run_where_pickles_are_trusted(tmp_path):
    marker = tmp_path / "run"
    for name in ("os.system", "in a list", "protocol 5", "eval", "exec", "popen", "INST"):
        pickle.loads(calls(marker)[name])
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("name", ["load", "hub.load", "compile"])
def test_functions_of_allowed_packages_are_not_called_either(path, archive, name):
    data = f"(dS'x'\nctorch\n{name}\n(S'y'\ntRs.".encode()
    with opened(archive.write(path, data)) as file:
        assert type(file.content["x"]).__mro__[1] is pickle_reader.Inert


def test_names_cannot_break_the_line_or_the_terminal(path, archive):
    text = refusal(archive.write(path, b"\x80\x04\x8c\x06o\x1b[31m\x8c\x03a\rb\x93."))
    assert text.isprintable()


CRASHES = {
    "memory index": b"\x80\x02]r\xff\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x05\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
    "bytearray that is not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "deep tuples as a key": b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s.",
    "deep tuples through the memory": b"\x80\x02})q\x00"
    + b"0h\x00\x85q\x00" * 150
    + b"h\x00K\x01s.",
    "extension code": b"\x80\x02\x82\x01.",
    "stack underflow": b"\x80\x020.",
    "no end": b"\x80\x02}",
    "empty": b"",
    "noise": bytes(range(256)),
    "state of a class": b"\x80\x02ctorch\nx\n}(S'y'\nK\x01ub.",
    "storage of no type": b"\x80\x02(S'storage'\nctorch\nx\nS'0'\nS'cpu'\nK\x01tQ.",
    "something persistent": b"Pabc\n.",
    "tensor of nothing": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01))tR.",
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_pickle_that_would_crash_is_refused(path, archive, name):
    assert "damaged" in refusal(archive.write(path, CRASHES[name]))


def test_a_huge_pickle_is_refused(path, archive, monkeypatch):
    monkeypatch.setattr(pickle_reader, "MAX_PICKLE", 100)
    assert "100 is the most" in refusal(archive.write(path, ["x" * 200]))


# ---- hostile and damaged archives --------------------------------------------------------------


NUMBERS = np.arange(12, dtype=np.float32)
LIES = {
    "more numbers than there are": {"claimed": 1 << 40},
    "fewer numbers than there are": {"claimed": 12 - 1, "shape": (3,), "strides": (1,)},
    "shape beyond the storage": {"shape": (13,)},
    "strides beyond the storage": {"shape": (2, 6), "strides": (7, 1)},
    "negative stride": {"strides": (-1,)},
    "huge shape of one number": {"shape": (1 << 40,), "strides": (0,)},
    "shape and strides that differ": {"shape": (3, 4), "strides": (1,)},
    "shape that is no number": {"shape": ("12",)},
}


@pytest.mark.parametrize("name", LIES)
def test_sizes_that_lie_are_refused(path, archive, name):
    assert "damaged" in refusal(archive.write(path, {"x": archive.tensor(NUMBERS, **LIES[name])}))


@pytest.mark.parametrize("key", ["../../escape", "/etc/passwd", "", "a\nb", "0/../1"])
def test_a_storage_key_that_is_a_path_is_refused(path, archive, key):
    content = {"x": archive.tensor(NUMBERS, key=key)}
    assert "a storage called" in refusal(archive.write(path, content))


def test_nothing_is_unpacked_to_disk(path, archive, tmp_path):
    archive.storages["../../../escape"] = b"x"
    content = {"x": archive.tensor(NUMBERS, key="0")}
    with opened(archive.write(path, content)) as file:
        file.array(file.content["x"])
    assert [p.name for p in tmp_path.rglob("*")] == ["x.ckpt"]
    assert not (tmp_path.parent / "escape").exists()


def test_a_zip_bomb_is_refused(path, archive):
    content = {"x": archive.tensor(np.zeros(1 << 22, np.float32))}
    archive.write(path, content, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 17
    assert "is compressed" in refusal(path)


def test_one_storage_read_again_and_again_is_refused(path, archive):
    first = archive.tensor(NUMBERS, key="0")
    content = {str(i): first if not i else archive.tensor(NUMBERS, key="0") for i in range(2000)}
    data = archive.pickled(content)
    with opened(archive.write(path, data)) as file:
        file._left = 4 * 12 * 4  # as if the file were no larger than its storage
        with pytest.raises(errors.UserError, match="damaged"):
            [file.array(value) for value in file.content.values()]


def test_a_missing_storage_is_named(path, archive):
    content = {"x": archive.tensor(NUMBERS)}
    data = archive.pickled(content)
    archive.storages.clear()
    assert "archive/data/0 is missing" in refusal(archive.write(path, data))


def test_cut_short_it_is_refused_and_changed_anywhere_it_never_crashes(path, archive):
    whole = archive.write(path, {"x": archive.tensor(NUMBERS)}).read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refusal(path)
    rng = np.random.default_rng(0)
    for position in rng.permutation(len(whole))[:150]:
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(errors.UserError):
            read(path)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (pickle_reader.LEGACY + b"rest", "re-save"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b"\x89HDF", "no zip file"),
        (b"PK\x03\x04 and nothing more", "cut short"),
    ],
)
def test_other_kinds_of_file_are_named(path, start, said):
    path.write_bytes(start)
    assert said in refusal(path)


def test_a_zip_of_something_else_a_folder_and_nothing_are_told_apart(path, tmp_path):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a.txt", "x")
    assert "not one that torch.save wrote" in refusal(path)
    assert "directory" in refusal(tmp_path)
    assert "No such file" in refusal(pathlib.Path("nowhere.ckpt"))


def test_numbers_and_keys_made_to_take_for_ever_are_refused(archive, path):
    archive.write(path, {"x": archive.tensor(np.arange(12, dtype="f4"), claimed=1 << 20000)})
    assert "64 bits" in refusal(path)
    keys = b"".join(b"K\x01J" + i.to_bytes(4, "little") + b"\x86N" for i in range(2000))
    torch_builder.Archive().write(path, b"\x80\x02}(" + keys + b"u.")
    assert "tuples as keys" in refusal(path)
    torch_builder.Archive().write(path, b"\x80\x02](" + b"]" * (2 << 20) + b"e.")
    assert "operations" in refusal(path)
