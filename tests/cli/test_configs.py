"""Configurations are found by name and by path from any folder, and a user's own are as good."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT, write_episodes

from ractd_jax import errors, tasks
from ractd_jax.cli import configs
from ractd_jax.training import checkpoints

OWN = """from ractd_jax.configs import custom


def get_config(arg=None):
    config = custom.get_config(arg)
    config.student.optimiser.steps = 5
    {line}
    return config
"""
METHOD = '''
"""Acts with the mean action of the data, whatever it sees."""

import dataclasses

import jax.numpy as jnp

from ractd_jax import train_state
from ractd_jax.method import Method, Reads
from ractd_jax.types import Algorithm


@dataclasses.dataclass(frozen=True)
class Mean:
    """Fields.

    Attributes:
        rate: of learning.
    """

    rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Nothing:
    """It has no network."""


def make(context, optimiser):
    dim, rate = context.shape[1], context.section.method.rate

    def init(key):
        return train_state.create({"mean": jnp.zeros(dim)}, optimiser)

    def update(state, batch, key):
        goal = batch.x[:, 0].mean(axis=0)
        gradient = {"mean": rate * (state.params["mean"] - goal)}
        loss = jnp.sum((state.params["mean"] - goal) ** 2)
        return train_state.apply_gradients(state, gradient, optimiser), {"loss": loss}

    def act(params, cond, keys):
        return jnp.broadcast_to(params["mean"], (len(cond), 1, dim))

    return Algorithm(init, update, act)


METHODS = (
    Method(
        name="mean", help="act with the mean action", make=make, fields=Mean,
        network={"none": Nothing}, reads=Reads.TRANSITIONS, label="Mean", colour="#123456",
        deterministic=True, tasks=("policy",),
    ),
)


def get_sections(given):
    return {"mean": {"optimiser": {"steps": 20, "batch_size": 16}, "weights": "live"}}
'''


def python(*arguments, cwd):
    """Run Python in a folder, with the package of this checkout."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def own(folder, line="pass"):
    """Write a configuration of one's own, of which the seventh line is given."""
    path = folder / "robot.py"
    path.write_text(OWN.replace("{line}", line))
    return path


# ---- finding them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["hopper_mr", "configs/hopper_mr.py", str(ROOT / "configs" / "hopper_mr.py")]
)
def test_a_configuration_is_found_by_name_and_path_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.find(name).resolve() == ROOT / "configs" / "hopper_mr.py"
    assert configs.load(name, "student").task.name == "hopper-medium-replay-v2"


def test_names_are_those_of_files_that_are_configurations():
    known = configs.names()
    assert {"hopper_mr", "custom", "suite"} <= set(known)
    for shared in ("base", "locomotion", "maze2d", "kitchen"):
        assert shared not in known
        with pytest.raises(errors.UserError, match=f"unknown configuration '{shared}'"):
            configs.find(shared)


def test_a_file_of_ones_own_goes_before_one_of_that_name_that_ships(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    path = own(tmp_path / "configs")
    path = path.rename(path.with_name("hopper_mr.py"))
    monkeypatch.chdir(tmp_path)
    assert configs.find("configs/hopper_mr.py").resolve() == path
    assert configs.load("configs/hopper_mr.py").task.name == "custom"
    assert configs.load("hopper_mr").task.name == "hopper-medium-replay-v2"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hoper_mr", "Did you mean 'hopper_mr'"),
        ("configs/hoper_mr.py", "there is no configuration configs/hoper_mr.py in"),
        ("no/such/hopper_mr.py", "there is no configuration no/such/hopper_mr.py in"),
        ("robt.py", "Did you mean 'robot.py'"),
        ("empty.py", "unknown configuration 'empty.py'. Choose from: robot.py"),
        ("", "unknown configuration ''"),
    ],
)
def test_what_is_not_found_is_said_and_what_is_near(name, says, tmp_path, monkeypatch):
    own(tmp_path)
    (tmp_path / "empty.py").touch()  # it has no get_config
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UserError) as caught:
        configs.find(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- one's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["from ractd_jax.configs import", "from . import"])
def test_a_configuration_of_ones_own_builds_on_those_that_ship(start, tmp_path):
    path = own(tmp_path)
    path.write_text(path.read_text().replace("from ractd_jax.configs import", start))
    config = configs.load(str(path), "student,size=demo")
    assert config.student.optimiser.steps == 5
    assert config.size == "demo"
    path.write_text(path.read_text().replace("= 5", "= 6"))  # a file is read anew
    assert configs.load(str(path), "student,size=demo").student.optimiser.steps == 6


def test_a_configuration_of_ones_own_may_have_dataclasses(tmp_path):
    path = own(tmp_path)
    numbers = (
        "from __future__ import annotations\nimport dataclasses\n\n\n"
        "@dataclasses.dataclass\nclass Numbers:\n    steps: int = 3\n\n\n"
    )
    path.write_text(numbers + path.read_text().replace("= 5", "= Numbers().steps"))
    assert configs.load(str(path)).student.optimiser.steps == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("config.studnt.optimiser.steps = 5", "AttributeError: 'studnt' Did you mean"),
        ('config.student.optimiser.steps = "5" + 5', "TypeError"),
        ('config.student.optimiser.steps = "5"', "TypeError"),
        ('int("ten")', "ValueError: invalid literal"),
        ("custom.get_config(5)", "Error"),  # it fails in a file that ships
        ("return {}", "not a ConfigDict"),
        ("if", "SyntaxError"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one two"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_an_error_in_ones_own_file_names_its_own_line(line, says, tmp_path):
    path = own(tmp_path, line)
    with pytest.raises(errors.UserError) as caught:
        configs.load(str(path), "student,size=demo")
    text = str(caught.value)
    assert text.startswith(str(path))
    assert says in text
    assert "\n" not in text
    assert "line 7" in text or "ConfigDict" in says


def test_an_error_where_it_is_imported_names_its_own_line(tmp_path):
    path = own(tmp_path)
    path.write_text("import no_such_module\n" + path.read_text())
    with pytest.raises(errors.UserError, match=r"robot.py, line 1: ModuleNotFoundError: No module"):
        configs.load(str(path))


def test_wrong_words_after_the_colon_are_not_blamed_on_the_file(tmp_path):
    with pytest.raises(errors.UserError) as caught:
        configs.load(str(own(tmp_path)), "studnet")
    assert str(caught.value).startswith("unknown stage 'studnet'")


def test_a_package_of_ones_own_called_configs_does_no_harm(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('of the project')\n")
    program = (
        "import sys\nfrom ractd_jax.cli import configs\n"
        "print(configs.load('configs/hopper_mr.py', 'student').task.name)\n"
        "print('configs' in sys.modules)\n"
    )
    code, out, err = python("-c", program, cwd=tmp_path)
    assert code == 0, err
    assert out.split() == ["hopper-medium-replay-v2", "False"]
    code, out, err = python("-m", "ractd_jax", "configs/hopper_mr.py:studnet", cwd=tmp_path)
    assert code == 2
    assert err.startswith("error: unknown stage 'studnet'")


# ---- a method of one's own -----------------------------------------------------------------------


def test_a_method_of_ones_own_trains_and_evaluates(tmp_path):
    write_episodes(tasks.get("hopper-medium-replay-v2"), tmp_path / "data.hdf5")
    (tmp_path / "mean.py").write_text(METHOD)
    given = ["-m", "ractd_jax", "--method=mean.py", "--workdir=run"]
    name = "hopper_mr:mean,size=demo,source=data.hdf5"
    code, _, err = python(*given, name, "--config.mean.method.rate=0.25", cwd=tmp_path)
    assert code == 0, err
    run = tmp_path / "run" / "mean"
    assert checkpoints.run_status(run) == checkpoints.FINISHED
    section = json.loads((run / checkpoints.CONFIG).read_text())["config"]["mean"]
    assert section["method"] == {"rate": 0.25}
    assert section["optimiser"]["steps"] == 20  # of its own get_sections

    code, out, err = python(*given, "eval", "--config.eval.episodes=1", cwd=tmp_path)
    assert code == 0, err
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["stage"] for entry in entries] == ["dataset", "mean"]
    assert entries[-1]["nfe"] == 1
    assert "Mean" in out or "mean" in out

    # Without the file its run is one of an unknown method, and says what brings it.
    code, _, err = python("-m", "ractd_jax", "eval", "--workdir=run", cwd=tmp_path)
    assert code == 2
    assert "--method=FILE" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("METHODS = (", "OTHERS = ("), "it has no METHODS"),
        (('name="mean"', 'name="bc"'), "both bring a method 'bc': rename one of them"),
        (
            ("import dataclasses\n", "import no_such_module\n"),
            "mean.py, line {line}: ModuleNotFound",
        ),
        (("= 0.5\n", "= 'x\n"), "mean.py, line {line}: SyntaxError"),
        (('"steps": 20', '"steps": 20 / None'), "mean.py, line {line}: TypeError"),
        (('"steps": 20', '"stepz": 20'), "unknown field 'mean.optimiser.stepz'"),
    ],
)
def test_a_file_that_brings_no_method_is_refused(change, says, tmp_path):
    text = METHOD.replace(*change)
    assert text != METHOD
    (tmp_path / "mean.py").write_text(text)
    arguments = ["--method=mean.py", "hopper_mr:mean,size=demo,source=data.hdf5"]
    code, _, err = python("-m", "ractd_jax", *arguments, cwd=tmp_path)
    assert code == 2, err
    assert err.startswith("error: ")
    assert says.replace("{line}", str(text[: text.index(change[1])].count("\n") + 1)) in err
    assert err.count("\n") == 1


def test_a_method_that_does_not_fit_its_record_is_not_trained(tmp_path):
    write_episodes(tasks.get("hopper-medium-replay-v2"), tmp_path / "data.hdf5")
    (tmp_path / "mean.py").write_text(METHOD.replace("Reads.TRANSITIONS", "Reads.WINDOWS"))
    arguments = ["--method=mean.py", "hopper_mr:mean,size=demo,source=data.hdf5", "--workdir=run"]
    code, _, err = python("-m", "ractd_jax", *arguments, cwd=tmp_path)
    assert code == 2, err
    assert "method 'mean': it acts in shapes (1, 3), but its record says" in err
    assert err.count("\n") == 1
    assert checkpoints.run_status(tmp_path / "run" / "mean") is None
