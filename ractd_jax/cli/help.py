"""`--help`, on two screens, and `--help=fields <stage>`, which explains every field."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.cli import configs, flags, words
from ractd_jax.config import Config, Section, Selection, Steps
from ractd_jax.method import Reads
from ractd_jax.methods import registry
from ractd_jax.train_state import Optimiser

USAGE = """ractd_jax: one-step diffusion policies for offline reinforcement learning.
  python main.py --config=configs/hopper_mr.py:student        or   ractd hopper_mr:student
  python main.py --config=configs/hopper_mr.py:all,size=demo,source=simulated
  ractd eval --workdir=runs/demo
What follows the colon: a stage or a command, then name=value for size, source, env, preset, seed,
seeds.
Any field is set with --config.<section>.<field>=<value>; --help=fields [section] explains them.
"""
WIDTH, INDENT = 100, "      "
SHARED = {
    field: kind
    for field, kind in Config.__annotations__.items()
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
}

NOT_SET = ("stage", "size", "preset", "stages")  # they follow the colon, or are sections


def show(word: str, topics: list[str]) -> None:
    """Print the help that was asked for.

    Args:
        word: the flag, "--help" or "--help=fields".
        topics: the other words of the command line.

    Raises:
        UserError: there is no such topic.
    """
    _, _, topic = word.partition("=")
    if not topic:
        print(overview())
        return
    errors.choose("help", topic, ("fields",))
    if not topics:
        print("sections, for --help=fields <section>:")
        print(f"  shared: {', '.join(SHARED)}")
        print(f"  stages: {', '.join(registry.records())}")
        print("fields of no section:")
        print("\n".join(_fields_of("", Config, leave=(*SHARED, *NOT_SET))))
        return
    for name in topics:
        print(fields(name))


def overview() -> str:
    """Return usage, the words of the command line and the flags, on two screens."""
    methods = registry.records().values()
    main = {m.name: m.help for m in methods if m.trained_by_all}
    rest = [f"{m.name} ({m.label})" for m in methods if not m.trained_by_all]
    tasks = [name for name in configs.names() if name != "suite"]
    lines = [*USAGE.rstrip().splitlines(), *_wrapped("tasks", tasks)]
    lines += ["stages", *_columns(main), *_wrapped("  other methods", rest)]
    for title, meanings in (
        ("commands", words.COMMANDS),
        ("size=", words.SIZES),
        ("source=", words.SOURCES),
        ("env=", words.ENVS),
        ("preset=", words.PRESETS),
        ("flags", {f"--{name}": text for name, (_, text) in flags.FLAGS.items()}),
    ):
        lines += [title, *_columns(meanings)]
    return "\n".join(lines)


def _columns(meanings: dict[str, str]) -> list[str]:
    return [f"  {word:13} {text}" for word, text in meanings.items()]


def _wrapped(title: str, items: list[str]) -> list[str]:
    text = f"{title}: {', '.join(items)}"
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def fields(section: str) -> str:
    """Return every field of a section: its name, its default and what it means.

    Args:
        section: a stage, or a shared section.

    Raises:
        UserError: there is none of that name.
    """
    errors.choose("section", section, [*SHARED, *registry.records()])
    if section in SHARED:
        return "\n".join(_fields_of(f"{section}.", SHARED[section]))
    method = registry.get(section)
    lines = [f"{section}: {method.help}", "defaults; configs/methods/ has numbers by task and size"]
    lines += _fields_of(f"{section}.method.", method.fields)
    for kind, network in method.network.items():
        if len(method.network) > 1:
            lines += [f"  {section}.network.kind = {kind}", f"{INDENT}with these fields:"]
        lines += _fields_of(f"{section}.network.", network)
    lines += _fields_of(f"{section}.optimiser.", Optimiser)
    leave = ["method", "network", "optimiser", "data", "selection"]
    if method.reads is Reads.TRANSITIONS:
        lines += _fields_of(f"{section}.data.", Steps)
    if method.row and method.acts and not method.deterministic:
        lines += _fields_of(f"{section}.selection.", Selection)
    return "\n".join(lines + _fields_of(f"{section}.", Section, leave))


def _fields_of(place: str, kind: type, leave: Sequence[str] = ()) -> list[str]:
    """Return two or more lines for each field of a dataclass: name, default and meaning."""
    defaults, meanings = configuration.defaults(kind), configuration.documented(kind)
    lines = []
    for field in configuration.fields_of(kind):
        if field.name not in leave:
            lines.append(f"  {place}{field.name} = {defaults.get(field.name, '-')}")
            lines += textwrap.wrap(
                meanings.get(field.name, ""), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
            )
    return lines


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Stop without a word when nobody reads on, as in `main.py --help | head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Let what is still buffered go nowhere, for the interpreter flushes once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
