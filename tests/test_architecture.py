"""The order of the rooms: each imports only what stands before it, and nothing goes in circles."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ractd_jax"
# From the ground up. Files of the top room stand alone, folders are rooms.
ORDER = (
    ("errors", "types", "console"),
    ("tasks", "diffusion", "train_state"),
    ("config",),
    ("method",),
    ("nn",),
    ("networks",),
    ("reward", "envs"),
    ("edm",),
    ("ctm_losses",),
    ("ctm",),
    ("methods", "data"),
    ("training",),
    ("policies", "report"),
    ("evaluation",),
    ("bench",),
    ("cli",),
    ("torch_import",),
    ("__main__", "__init__"),
)
FLAX = {"networks", "nn", "train_state"}  # the rooms that may know Flax


def modules() -> dict[str, pathlib.Path]:
    """Return every module of the package by its dotted name below it."""
    paths = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        paths[".".join(parts)] = path
    return paths


def imports(path: pathlib.Path, *, inside: bool = True) -> set[str]:
    """Return what a file imports, dotted; `inside` functions too."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def edges() -> dict[str, set[str]]:
    """Return which modules of the package each module imports when it is imported."""
    known = modules()
    names = {f"ractd_jax.{name}": name for name in known}
    return {
        name: {names[i] for i in imports(path, inside=False) if i in names}
        for name, path in known.items()
    }


def room(name: str) -> str:
    return name.partition(".")[0]


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(ORDER) if room(name) in rooms)


def test_every_room_has_its_place_in_the_order():
    assert {room(name) for name in modules()} == {name for rooms in ORDER for name in rooms}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_what_stands_before_its_room(name):
    for other in edges()[name]:
        if room(other) != room(name):
            assert floor(other) < floor(name), f"{name} imports {other}"


def test_no_circles():
    graph, heights = edges(), {}

    def height(name, path=()):
        assert name not in path, " > ".join((*path, name))
        if name not in heights:
            below = (height(other, (*path, name)) for other in graph[name])
            heights[name] = 1 + max(below, default=0)
        return heights[name]

    assert max(map(height, graph)) <= 11


def test_the_top_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 14


def test_flax_is_known_to_networks_alone():
    for name, path in modules().items():
        if any(i.partition(".")[0] == "flax" for i in imports(path)):
            assert room(name) in FLAX, name


def test_nothing_imports_the_configurations_by_name():
    for name, path in modules().items():
        assert not any(i.partition(".")[0] == "configs" for i in imports(path)), name


def test_no_test_imports_another():
    tests = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    for name, path in tests.items():
        assert not imports(path) & (tests.keys() - {name}), name
