"""What the pages name exists: files, anchors, functions and fields."""

import ast
import functools
import importlib
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping

import pages
from helpers import ROOT

from ractd_jax.cli import configs
from ractd_jax.methods import registry

PACKAGE = ROOT / "ractd_jax"
FILE = re.compile(r"[\w{},*<>./-]+\.(py|md|json|toml|txt|yml|html|png|gif)")
# Not of the repository: what a run writes, what a user brings, what others have.
FOREIGN = re.compile(
    r"(.*/)?(config|eval|timing|summary|bench|data|idql|table\d)\.json|figures/(data|map)\.png"
    r"|(d4rl/infos|mujoco_py/builder)\.py|runs/.*|my_.*|[/~].*"
)
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
FOREIGN_NAMES = {"nn.compact", "minari.MinariDataset"}  # of packages that a module is called after

# ---- links and files -----------------------------------------------------------------------------


@functools.cache
def files() -> list[str]:
    """Return every file and folder of the repository."""
    skip = {".git", ".venv", "__pycache__", "runs"}
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
    return [path.as_posix() for path in paths if not skip & set(path.parts)]


def alternatives(path: str) -> list[str]:
    """Return what a path with braces stands for, as a shell has it."""
    parts = re.split(r"\{([^}]*)\}", path)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def is_file(path: str, page: pathlib.Path) -> bool:
    """Tell if a path is in the repository, from its root, the package, the tests or its page."""
    pattern = re.escape(re.sub(r"<[^>]*>", "*", path)).replace(r"\*", "[^/]*")
    near = re.escape(page.parent.relative_to(ROOT).as_posix())
    prefix = rf"(ractd_jax/|tests/|docs/|{near}/)?" if "/" in path else "(.*/)?"
    return any(re.fullmatch(prefix + pattern, name) for name in files())


@pages.each_page
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in pages.anchors(target), link


def paths(page: pathlib.Path) -> Iterator[str]:
    """Yield the files that a page names between back-quotes, without those of `FOREIGN`."""
    for part in pages.quoted(page):
        path = part.partition(":")[0]
        if FILE.fullmatch(path) and not FOREIGN.fullmatch(path):
            yield from alternatives(path)


@pages.texts
def test_files_exist(texts):
    named = ((page, path) for page in texts for path in paths(page))
    pages.complain(f"{page}: {path}" for page, path in named if not is_file(path, page))


# ---- names of modules, functions and fields ------------------------------------------------------


@functools.cache
def modules() -> dict[str, list[str]]:
    """Return the dotted names of all modules, by the last word of each."""
    known: dict[str, list[str]] = {}
    for path in [*PACKAGE.rglob("*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        known.setdefault(parts[-1], []).append(".".join(parts))
    return known


@functools.cache
def defined() -> set[str]:
    """Return the names of all functions, classes and constants of the package."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def leaves(values: Mapping, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every field of a configuration, and of its sections."""
    for name, value in values.items():
        yield (*place, name)
        if isinstance(value, Mapping):
            yield from leaves(value, (*place, name))


@functools.cache
def fields() -> set[str]:
    """Return the fields that can be named, from the top or within a stage."""
    known = set()
    for task in ("hopper_mr", "maze2d_umaze", "kitchen_mixed", "suite"):
        for size in ("demo", "small"):
            arguments = None if task == "suite" else f"student,size={size}"
            for path in leaves(configs.load(task, arguments).to_dict()):
                known.add(".".join(path))
                if path[0] in registry.records():
                    known.add(".".join(path[1:]))
                if path[0] == "task":
                    known.add(".".join(path))
    return known


def resolves(name: str) -> bool:
    """Tell if a dotted name that begins in the package leads to something in it."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                return True  # the module of an extra that is not installed
            continue
        for part in parts[n:]:
            value = getattr(value, part, None) or getattr(value, "__annotations__", {}).get(part)
        return value is not None
    return False


def is_known(name: str) -> bool:
    """Tell if a dotted name stands for something here, or for something of somebody else's."""
    if name.startswith("."):  # a field beside the one before it, as `.seconds`
        return any(field.endswith(name) for field in fields())
    first, _, rest = name.partition(".")
    if first == "env":  # an environment
        return True
    if name in fields() | FOREIGN_NAMES or (first == "config" and rest in fields()):
        return True
    if first == "ractd_jax":
        return resolves(name)
    if first in modules():  # or an object of its class, as `policy.reset`
        options = (rest, f"{first.capitalize()}.{rest}")
        return any(resolves(f"{m}.{option}") for m in modules()[first] for option in options)
    if first in defined() and first[:1].isupper():  # a class
        return rest.partition(".")[0] in defined()
    return first not in {field.partition(".")[0] for field in fields()}


def dotted(page: pathlib.Path) -> Iterator[str]:
    """Yield the dotted names of a page; a field beside another one as `.name`."""
    field_before = False
    for part in pages.quoted(page):
        name = re.sub(r"(\(.*\)|=.*)$", "", part)
        name = re.sub(r"^(--config\.|python -m )", "", name)
        if field_before and re.fullmatch(r"\.[a-z]\w+", name):
            yield name
            continue
        field_before = part.startswith("--config.")
        if NAME.fullmatch(name) and not FILE.fullmatch(name):
            yield name
    yield from re.findall(r"\bractd_jax(?:\.[a-z_]+)+\b(?!/)", pages.text(page))


@pages.texts
def test_names_exist(texts):
    named = ((page, name) for page in texts for name in dotted(page))
    pages.complain(f"{page}: {name}" for page, name in named if not is_known(name))


@pages.each_page
def test_functions_of_equations_exist(page):
    names = itertools.chain.from_iterable(pages.tables(page, "function"))
    named = {name.rpartition(".")[2].rpartition(":")[2] for name in names}
    pages.complain(name for name in named if name.isidentifier() and name not in defined())
