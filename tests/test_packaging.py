"""What is installed: every folder of the package with its data, the configurations, nothing else.

`tools.check_wheel` builds the wheel and uses it; here is what can be seen in pyproject.toml alone.
"""

import fnmatch
import pathlib
import tomllib

import pytest
from helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
PACKAGE = "ractd_jax"
IGNORED = {"__pycache__"}


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files below a folder, less what Python writes there."""
    paths = folder.rglob("*")
    return [path for path in paths if path.is_file() and not IGNORED & set(path.parts)]


def packages(folder: pathlib.Path, name: str) -> dict[str, pathlib.Path]:
    """Return every folder with Python files, by its dotted name."""
    folders = {path.parent for path in files(folder) if path.suffix == ".py"}
    return {".".join([name, *path.relative_to(folder).parts]): path for path in folders}


# Where each package lies in a checkout.
PACKAGES = packages(ROOT / PACKAGE, PACKAGE) | packages(ROOT / "configs", f"{PACKAGE}.configs")


def test_every_package_is_listed_once_and_no_other():
    assert sorted(SETUPTOOLS["packages"]) == sorted(PACKAGES)


def test_nothing_is_installed_beside_the_package():
    assert {name.partition(".")[0] for name in SETUPTOOLS["packages"]} == {PACKAGE}


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_is_found_where_setuptools_looks_for_it(name):
    places = SETUPTOOLS["package-dir"]
    assert ROOT / places.get(name, name.replace(".", "/")) == PACKAGES[name]
    assert (PACKAGES[name] / "__init__.py").is_file()


def test_data_files_come_along():
    data = SETUPTOOLS["package-data"]
    kept = {
        path
        for path in files(ROOT / PACKAGE)
        for name, patterns in data.items()
        if path.is_relative_to(PACKAGES[name])
        and any(
            fnmatch.fnmatch(path.relative_to(PACKAGES[name]).as_posix(), pattern)
            for pattern in patterns
        )
    }
    wanted = {path for path in files(ROOT / PACKAGE) if path.suffix != ".py"}
    assert wanted == kept


def test_the_command_and_the_version_are_those_of_the_package():
    module, _, function = PROJECT["project"]["scripts"]["ractd"].partition(":")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"def {function}(" in source.read_text()
    attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == f"{PACKAGE}.__version__"
    assert "__version__ = " in (ROOT / PACKAGE / "__init__.py").read_text()
