"""What a processor says of itself."""

import pathlib

import pytest

from ractd_jax import processor


@pytest.mark.parametrize(
    ("flags", "tiles"), [("fpu amx_bf16 amx_tile", True), ("fpu avx512_bf16", False)]
)
def test_features_are_the_words_of_linux(monkeypatch, flags, tiles):
    text = f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\nflags\t\t: {flags}\n"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: text)
    assert flags in processor.features()
    assert processor.multiplies_bfloat16_in_tiles.__wrapped__() == tiles


def test_without_such_a_list_it_is_the_name_or_nothing(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(pathlib.Path, "read_text", missing)
    assert isinstance(processor.features(), str)
    assert not processor.multiplies_bfloat16_in_tiles.__wrapped__()
