"""`--help` fits on two screens; `--help=fields` explains every field that can be set."""

import re

import pytest

from ractd_jax import errors
from ractd_jax.cli import app, configs, flags, words
from ractd_jax.cli import help as help_text
from ractd_jax.methods import registry

SCREENS = 2 * 50
TASKS = [name for name in configs.names() if name != "suite"]


def explained(text):
    """Return the meaning of every field that a help text names; "" where it has none."""
    meanings, name = {}, ""
    for line in text.splitlines():
        field = re.fullmatch(r"  ([\w.]+) = .*", line)
        if field:
            name = field[1]
            meanings.setdefault(name, "")
        elif line.startswith("      ") and name:
            meanings[name] += line.strip()
        else:
            name = ""
    return meanings


def leaves(values, place):
    """Yield the full name of every field of nested dictionaries."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def test_the_overview_fits_on_two_screens():
    lines = help_text.overview().splitlines()
    assert len(lines) <= SCREENS
    assert max(map(len, lines)) <= help_text.WIDTH == 100


def test_the_overview_names_every_word():
    text = help_text.overview()
    flag_names = {f"--{name}" for name in flags.FLAGS}
    meanings = {*words.COMMANDS, *words.SIZES, *words.SOURCES, *words.PRESETS}
    for word in (flag_names | meanings | set(TASKS) | registry.records().keys()) - {"<path>"}:
        assert re.search(rf"(^|\s){re.escape(word)}\b|{re.escape(word)}(\s|$)", text), word


@pytest.mark.parametrize("stage", registry.records())
def test_every_field_of_a_stage_is_explained(stage):
    meanings = explained(help_text.fields(stage))
    assert f"{stage}.optimiser.learning_rate" in meanings
    assert [name for name, text in meanings.items() if not text] == []
    assert max(map(len, help_text.fields(stage).splitlines())) <= help_text.WIDTH
    noise = explained(help_text.fields("noise"))
    names = {"planner": "maze2d_umaze", "policy": "hopper_mr"}
    for kind in registry.get(stage).tasks:
        for size in ("demo", "paper"):
            config = configs.load(names[kind], f"student,size={size}").to_dict()
            for name in leaves(config[stage], f"{stage}."):
                shared = name.removeprefix(f"{stage}.")
                assert name in meanings or shared in noise, name


@pytest.mark.parametrize("section", help_text.SHARED)
def test_every_field_of_a_shared_section_is_explained(section):
    meanings = explained(help_text.fields(section))
    assert [name for name, text in meanings.items() if not text] == []
    config = configs.load("hopper_mr", "student").to_dict()
    assert meanings.keys() >= set(leaves(config[section], f"{section}."))


def test_without_a_section_all_sections_are_listed_and_the_fields_of_none(capsys):
    assert app.main(["main.py", "--help=fields"]) == 0
    out = capsys.readouterr().out
    for name in (*help_text.SHARED, *registry.records()):
        assert re.search(rf"\b{name}\b", out), name
    config = configs.load("hopper_mr", "student").to_dict()
    single = {name for name, value in config.items() if not isinstance(value, dict)}
    assert explained(out).keys() == single - set(help_text.NOT_SET)


def test_help_is_the_same_whatever_else_is_said(capsys):
    assert app.main(["main.py", "hopper_mr:student", "--help"]) == 0
    assert capsys.readouterr().out == help_text.overview() + "\n"
    assert app.main(["main.py", "--help=fields", "student", "noise"]) == 0
    expected = f"{help_text.fields('student')}\n{help_text.fields('noise')}\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help=feilds"], "Did you mean 'fields'"),
        (["--help=fields", "studnet"], "Did you mean 'student'"),
    ],
)
def test_help_on_what_there_is_not_is_refused(arguments, says, capsys):
    assert app.main(["main.py", *arguments]) == 2
    assert says in capsys.readouterr().err
    with pytest.raises(errors.UserError, match=says):
        help_text.show(arguments[0], arguments[1:])
