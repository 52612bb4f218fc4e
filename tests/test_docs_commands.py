"""The commands that the pages show are understood: their configurations, options and tests."""

import ast
import functools
import pathlib
import re
import textwrap

import pages
import pytest
from helpers import ROOT

from ractd_jax import errors
from ractd_jax.cli import configs, flags, words
from ractd_jax.methods import registry

load_config = configs.load


@functools.cache
def made(name: str, argument: str):
    return load_config(name, argument)


@pytest.fixture
def load_once(monkeypatch):
    """Make a configuration once for all stages, sources and seeds, which its fields ignore."""

    def load(name, argument=None):
        if pathlib.Path(name).stem == "suite":
            return load_config(name, argument)
        values = words.parse(argument)
        config = made(name, f"size={values['size']},preset={values['preset']}")
        return config.copy_and_resolve_references()

    monkeypatch.setattr(configs, "load", load)


def check_config(arguments: list[str]) -> None:
    """Parse a command line as the program does, up to a configuration.

    Fields alone are looked for in a task's configuration, a maze's and a suite's.
    """
    if arguments[0] in words.COMMANDS:  # on finished runs
        arguments = [f"hopper_mr:{arguments[0]}", *arguments[1:]]
    if arguments[0].startswith("--config."):
        options = [["hopper_mr", *arguments], ["maze2d_umaze:student,size=demo", *arguments]]
        parse_any([*options, ["suite", *arguments]])
        return
    options = flags.parse(["main.py", *arguments])
    if "suite" not in options.config and options.given:
        registry.configure(options.config.to_dict())


def parse_any(options: list[list[str]]) -> None:
    """Parse the first of several command lines that can be parsed."""
    for i, arguments in enumerate(options):
        try:
            flags.parse(["main.py", *arguments])
            return
        except errors.UserError:
            if i == len(options) - 1:
                raise


def check_module(name: str, arguments: list[str]) -> None:
    """Look for a module, and for its options in its code."""
    if not (ROOT / name.partition(".")[0]).is_dir():
        return
    base = ROOT / name.replace(".", "/")
    path = base / "__main__.py" if base.is_dir() else base.with_suffix(".py")
    code = path.read_text()
    for argument in arguments:
        option = argument.partition("=")[0]
        assert not option.startswith("--") or option in code, f"{name} has no {option}"


def check_pytest(arguments: list[str]) -> None:
    """Look for test files, and for the tests that `-k` names."""
    paths = [a.partition("::")[0] for a in arguments if a.endswith(".py") or "/" in a]
    for path in paths:
        assert (ROOT / path).exists(), path
    if "-k" in arguments:
        word = arguments[arguments.index("-k") + 1]
        code = "".join((ROOT / path).read_text() for path in paths)
        assert word in code, word


def check(command: list[str]) -> None:
    """Check a command, or fields alone."""
    program, *arguments = command
    if program == "python" and arguments[:2] == ["-m", "pytest"]:
        program, arguments = "pytest", arguments[2:]
    if program == "python" and arguments[0] == "-m":
        check_module(arguments[1], arguments[2:])
    elif program == "python" and arguments[0] != "main.py":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    elif program == "pytest":
        check_pytest(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets, arguments
    else:
        skipped = {"python": 2, "ractd": 1}.get(program, 0)
        if not command[skipped].startswith("--help"):
            check_config(command[skipped:])


@pages.texts
def test_commands_are_understood(texts, load_once):
    faults = []
    for page in texts:
        for command in pages.commands(page):
            try:
                check(command)
            except (errors.UserError, AssertionError) as error:
                faults.append(f"{page}: {' '.join(command)}: {error}")
    pages.complain(faults)


def test_code_in_pages_is_python():
    for page in pages.PAGES:
        for block in pages.blocks(page, "python"):
            ast.parse(textwrap.dedent(block))


def test_the_record_that_is_shown_is_that_of_the_method():
    def record(code):
        calls = [n for n in ast.walk(ast.parse(textwrap.dedent(code))) if isinstance(n, ast.Call)]
        call = next(call for call in calls if ast.unparse(call.func) == "Method")
        return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}

    (shown,) = pages.blocks(ROOT / "docs" / "adding_a_method.md", "python")
    assert record(shown) == record((ROOT / "ractd_jax" / "methods" / "bc.py").read_text())
