"""What `import ractd_jax` offers explains itself, and is what does the work."""

import inspect
import re
import subprocess
import sys

import pytest
from helpers import ROOT

import ractd_jax
from ractd_jax.policies import load

PUBLIC = ("load_policy", "load_planner")


@pytest.mark.parametrize("name", PUBLIC)
def test_help_explains_every_argument(name):
    function = getattr(ractd_jax, name)
    section = re.search(r"Args:\n(.*?)\n\n", inspect.getdoc(function), re.DOTALL)[1]
    explained = [name.strip("*") for name in re.findall(r"^    (\*{0,2}\w+): ", section, re.M)]
    assert explained == list(inspect.signature(function).parameters)
    for part in ("Returns:", "Raises:", "Example:"):
        assert part in function.__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_arguments_are_those_of_the_function_that_loads(name):
    shown, real = (inspect.signature(getattr(m, name)).parameters for m in (ractd_jax, load))
    assert [(p.name, p.kind, p.default) for p in shown.values()] == [
        (p.name, p.kind, p.default) for p in real.values()
    ]


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, ractd_jax; print(sorted({'jax', 'numpy', 'flax'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert run.stdout.decode().strip() == "[]"
