"""What a processor says of itself."""

import pathlib
import platform

import pytest

from ractd_jax.nn.cpu import cpuinfo


@pytest.mark.parametrize(
    ("flags", "tiles"), [("fpu amx_bf16 amx_tile", True), ("fpu avx512_bf16", False)]
)
def test_name_and_features_are_the_words_of_linux(monkeypatch, flags, tiles):
    core = f"model name\t: A: quick one\nflags\t\t: {flags}\n"
    text = f"processor\t: 0\n{core}processor\t: 1\n{core}"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: text)
    assert cpuinfo.name() == "A: quick one"
    assert flags in cpuinfo.features()
    assert cpuinfo.multiplies_bfloat16_in_tiles.__wrapped__() == tiles


def test_without_proc_cpuinfo_python_names_the_processor(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(pathlib.Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert cpuinfo.name() == cpuinfo.features() == "arm"
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert cpuinfo.name() == platform.machine() != cpuinfo.features()
    assert not cpuinfo.multiplies_bfloat16_in_tiles.__wrapped__()
