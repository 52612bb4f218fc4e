"""Tables and progress read well in a terminal, in a pipe and in a log."""

import io

import pytest
from rich.console import Console

from ractd_jax.console import WIDTH, Progress, make_console
from ractd_jax.report import tables

ENTRY = {
    "task": "hopper-medium-replay-v2",
    "source": "simulated",
    "physics": "D4RL v2 (of a test)",
    "stage": "student",
    "size": "demo",
    "preset": "default",
    "nfe": 1,
    "candidates": 1,
    "selection": "last",
    "seeds": list(range(50)),
    "returns": [1000.0] * 50,
    "score_mean": 47.83,
    "score_se": 3.61,
    "score_median": 33.24,
    "score_ci95": [41.2, 54.9],
    "score_released": 60.0,
    "action_ms": 0.2411,
}
TEACHER = ENTRY | {"stage": "teacher", "nfe": 159, "score_mean": 21.6, "action_ms": 35.21}
NOTHING = {
    "physics": None,
    "nfe": None,
    "candidates": None,
    "selection": None,
    "action_ms": None,
    "seeds": [],
}
DATASET = ENTRY | NOTHING | {"stage": "dataset", "score_se": None, "score_ci95": None}


def lines_of(console):
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_table_holds_the_numbers(width):
    console = Console(file=io.StringIO(), width=width)
    tables.print_results([DATASET, TEACHER, ENTRY], console)
    lines = lines_of(console)
    student = next(line for line in lines if line.startswith("RACTD student"))
    for figure in ("47.8 ± 3.6", "41.2 to 54.9", "33.2", " 1 ", "0.241", "104.9"):
        assert figure in student
    teacher = next(line for line in lines if line.startswith("teacher"))
    assert "159" in teacher
    assert "35.2" in teacher
    text = "\n".join(lines)
    for shared in (
        "hopper-medium-replay-v2",
        "simulated",
        "physics: D4RL v2 (of a test)",
        "size demo",
        "default",
        "last",
        "50 episodes",
    ):
        assert text.count(shared) == 1
    assert "…" not in text
    assert "None" not in text
    assert "60.0" not in text  # the released runner's figure is never shown as a score


def test_table_names_all_sources_where_they_differ():
    console = Console(file=io.StringIO(), width=100)
    tables.print_results([ENTRY, TEACHER | {"source": "d4rl"}], console)
    assert "simulated, d4rl" in console.file.getvalue()


def test_console_of_a_pipe_is_wide_and_plain():
    console = make_console(file=io.StringIO())
    assert console.width == WIDTH
    tables.print_results([ENTRY, TEACHER], console)
    assert "\x1b" not in console.file.getvalue()


def test_table_fits_an_ascii_output():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    tables.print_results([ENTRY, TEACHER], make_console(file=file))
    file.seek(0)
    assert "47.8 +- 3.6" in file.read()


def work(console, interval=10.0, steps=200):
    with Progress(console, interval).task("teacher", steps) as task:
        for step in range(1, steps + 1):
            task.update(step, loss=1 / step, reward=-0.45)


def test_log_gets_few_plain_lines():
    console = make_console(file=io.StringIO())
    work(console)
    (line,) = lines_of(console)
    assert line.startswith("teacher  200/200  in 00:00")
    assert line.endswith("loss 0.005  reward -0.45")


def test_log_gets_a_line_after_each_interval():
    console = make_console(file=io.StringIO())
    work(console, interval=0.0, steps=4)
    lines = lines_of(console)
    assert len(lines) == 5
    assert lines[1].startswith("teacher  50%  2/4  ETA 00:00")


def test_terminal_gets_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={})
    work(console)
    text = console.file.getvalue()
    assert "100 %" in text
    assert "━" in text
    assert "reward -0.45" in text


def test_interrupted_work_says_where_it_stopped():
    console = make_console(file=io.StringIO())

    def interrupted():
        with Progress(console).task("[x]", 100, completed=40) as task:
            task.update(60, loss=float("nan"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (line,) = lines_of(console)
    assert line.startswith("[x]  stopped at 60/100")
    assert line.endswith("loss nan")
