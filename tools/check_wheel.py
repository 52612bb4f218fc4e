"""Build the wheel, install it away from the checkout, and use it there as a newcomer would.

    python -m tools.check_wheel            # installs everything the package needs: minutes
    python -m tools.check_wheel --reuse    # borrows the packages of this Python: seconds

Prints one line a check. The first check that fails says why, and the exit code is 1.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = "ractd_jax"
COMMAND = "ractd"  # the console script
MISSING = "nowhere.hdf5"  # a file that the user names and that is not there
IMPORT = (
    f"import importlib.metadata as m, {PACKAGE} as p; "
    f"print(p.__file__, p.__version__, m.version('{PACKAGE}'), sep='\\n')"
)


class CheckError(Exception):
    """A check failed; the text is its line."""


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without paths that lead back to the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: str | Path, folder: Path, name: str) -> str:
    """Run a command that has to succeed, and return what it prints."""
    try:
        done = run(*command, folder=folder)
    except FileNotFoundError:
        raise CheckError(f"{name}: the wheel installs no such command") from None
    if done.returncode:
        raise CheckError(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def copy_checkout(target: Path) -> Path:
    """Copy the files that git knows or would add: an old build folder would get into the wheel."""
    listed = succeed(
        *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        folder=CHECKOUT,
        name="git ls-files",
    )
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():  # not one that is deleted, nor a link to a folder
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((CHECKOUT / name).read_bytes())
    return target


def build(folder: Path) -> Path:
    """Return the wheel of the checkout, built in `folder`."""
    source = copy_checkout(folder / "source")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    succeed(*pip, "--wheel-dir", folder, source, folder=folder, name="pip wheel")
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path, source: Path) -> None:
    """Check that the wheel holds the package, every file of it, and no other top-level name.

    Args:
        wheel: the wheel.
        source: the copy of the checkout that it was built from.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top = {name.partition("/")[0] for name in names}
    strangers = sorted(n for n in top if n != PACKAGE and not n.endswith(".dist-info"))
    if strangers:
        raise CheckError(f"contents: {', '.join(strangers)} would stand beside {PACKAGE}")
    wanted = {path.relative_to(source) for path in (source / PACKAGE).rglob("*") if path.is_file()}
    configs = (source / "configs").rglob("*.py")
    wanted |= {Path(PACKAGE) / path.relative_to(source) for path in configs}
    missing = sorted({path.as_posix() for path in wanted} - names)
    if missing:
        raise CheckError(f"contents: the wheel lacks {', '.join(missing)}")


def install(wheel: Path, folder: Path, reuse: bool) -> Path:
    """Install the wheel into a fresh environment, and return the folder of its commands."""
    venv.create(folder, with_pip=False)
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    wanted = ["--no-deps", wheel] if reuse else [wheel]
    succeed(*pip, *wanted, folder=folder, name="pip install")
    if reuse:  # only now, so that pip sees none of what is borrowed
        site = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        Path(site, "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    return scripts


def check_import(scripts: Path, empty: Path) -> None:
    """Check that the installed package is imported, and that both its versions agree."""
    name = f"import {PACKAGE}"
    shown = succeed(scripts / "python", "-c", IMPORT, folder=empty, name=name)
    file, version, of_wheel = shown.split("\n")[:3]
    if not Path(file).resolve().is_relative_to(scripts.parent.resolve()):
        raise CheckError(f"{name}: comes from {file}, not from the wheel")
    if version != of_wheel:
        raise CheckError(f"{name}: __version__ is {version}, of the wheel {of_wheel}")


def check_wrong_file(scripts: Path, empty: Path) -> None:
    """Check that a data file which is not there ends in one line and exit code 2."""
    argument = f"hopper_mr:data,source={MISSING}"
    done = run(scripts / COMMAND, argument, folder=empty)
    shown = done.stdout + done.stderr
    if done.returncode != 2 or not re.fullmatch(f"error: .*{MISSING}.*\n", shown):
        raise CheckError(
            f"{COMMAND} {argument}: wanted exit code 2 and one line that names {MISSING}; "
            f"exit code {done.returncode}\n{shown}"
        )


def checks(folder: Path, reuse: bool) -> Iterator[str]:
    """Yield the name of each check that has passed.

    Args:
        folder: an empty folder, where everything is made.
        reuse: borrow the packages of this Python, in the place of installing what is needed.

    Raises:
        CheckError: the first check that does not pass.
    """
    wheel = build(folder)
    yield f"built {wheel.name}"
    check_contents(wheel, folder / "source")
    yield f"contents: all of {PACKAGE} and nothing beside it"
    scripts = install(wheel, folder / "venv", reuse)
    yield f"installed, with {'borrowed' if reuse else 'its own'} packages"
    empty = folder / "empty"
    empty.mkdir()
    check_import(scripts, empty)
    yield f"import {PACKAGE}"
    for name, command in {
        f"{COMMAND} --help": (scripts / COMMAND, "--help"),
        f"python -m {PACKAGE} --help": (scripts / "python", "-m", PACKAGE, "--help"),
        f"help({PACKAGE}.load_policy)": (
            *(scripts / "python", "-c"),
            f"import {PACKAGE}; help({PACKAGE}.load_policy)",
        ),
    }.items():
        if not succeed(*command, folder=empty, name=name).strip():
            raise CheckError(f"{name}: prints nothing")
        yield name
    check_wrong_file(scripts, empty)
    yield f"{COMMAND}: a wrong file is one line, exit code 2"
    if left := sorted(path.name for path in empty.iterdir()):
        raise CheckError(f"these commands leave {', '.join(left)} behind")
    yield "no files left behind"


def main() -> int:
    """Run the checks, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--reuse",
        action="store_true",
        help="borrow the packages of the Python that runs this, in the place of installing them",
    )
    reuse = parser.parse_args().reuse
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in checks(Path(folder).resolve(), reuse):
                print(f"ok      {name}", flush=True)
        except CheckError as error:
            print(f"FAILED  {error}".rstrip())
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
