"""What the pages of the project say: their links, back-quoted names and commands."""

import functools
import io
import pathlib
import re
import shlex
import tokenize
from collections.abc import Iterable, Iterator

import pytest
from helpers import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")])
FOLDERS = ("ractd_jax", "configs", "benchmarks", "tools")  # of code
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_COMMAND = re.compile(
    r"(python ([\w/]+\.py|-m) |ractd |pytest |make [\w-]+$|eval --|--config=|--config\.[\w.]+=\S)"
)
_PLACEHOLDER = re.compile(r"<[^>]+>|\.\.\.|[{$]|\b(PATH|RUN|DIR|CONFIG)\b")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
_code = [sorted((ROOT / folder).rglob("*.py")) for folder in FOLDERS]
texts = pytest.mark.parametrize(  # a page each, and the code of a folder together
    "texts",
    [*([page] for page in PAGES), *_code],
    ids=[*(page.name for page in PAGES), *FOLDERS],
)


@functools.cache
def text(path: pathlib.Path) -> str:
    """Return a page; of a Python file its comments and strings."""
    if path.suffix != ".py":
        return path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    kinds = {tokenize.STRING, tokenize.COMMENT}
    return "\n".join(token.string for token in tokens if token.type in kinds)


def blocks(path: pathlib.Path, language: str) -> list[str]:
    """Return a page's blocks of code in one language."""
    return [block for _, name, block in _BLOCK.findall(text(path)) if name == language]


def prose(path: pathlib.Path) -> str:
    """Return a page without its blocks of code."""
    return _BLOCK.sub("", text(path))


def links(path: pathlib.Path) -> list[str]:
    """Return the targets of a page's links that lie in the repository, with their anchors."""
    return [link for link in _LINK.findall(prose(path)) if not re.match(r"\w+:", link)]


@functools.cache
def anchors(path: pathlib.Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", prose(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        copies = sum(1 for known in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", known))
        names.add(f"{name}-{copies}" if copies else name)
    return names


def quoted(path: pathlib.Path) -> list[str]:
    """Return what a page's prose has between back-quotes, on one line each."""
    return [" ".join(part.split()) for part in re.findall(r"`([^`]+)`", prose(path))]


def tables(path: pathlib.Path, column: str) -> list[list[str]]:
    """Return what is back-quoted in the cells of every table's column of that name."""
    cells, index = [], None
    for line in prose(path).splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("|"):
            index = None
        elif index is None:
            index = row.index(column) if column in row else -1
        elif index > 0:
            cells.append(re.findall(r"`([^`]+)`", row[index]))
    return cells


def commands(path: pathlib.Path) -> Iterator[list[str]]:
    """Yield a page's commands, in words: of its blocks, and those between back-quotes.

    Of a Python file every line counts, up to two spaces. Left out are commands with a
    placeholder.
    """
    shown = text(path) if path.suffix == ".py" else "\n".join(blocks(path, "bash"))
    for line in [*re.sub(r"\\+\n\s*", " ", shown).splitlines(), *quoted(path)]:
        command = line.strip()
        if path.suffix == ".py":
            command = re.split(r" {2,}", command)[0]
        if _COMMAND.match(command) and not _PLACEHOLDER.search(command):
            yield shlex.split(command, comments=True)


def complain(faults: Iterable[str]) -> None:
    """Fail with what a page says that is not so, one fault a line."""
    faults = sorted(set(faults))
    assert not faults, "\n".join(faults)
