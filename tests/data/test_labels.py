"""What tables call the data; it costs no simulator to know."""

import subprocess
import sys

from helpers import ROOT

from ractd_jax import tasks
from ractd_jax.data import labels
from ractd_jax.data.generate import recipes
from ractd_jax.envs import choice


def test_labels_name_the_source():
    assert labels.label("simulated") == "simulated (shipped SAC snapshots)"
    assert labels.label("d4rl") == "D4RL"
    assert labels.label("gym-d4rl") == "D4RL (through gym + d4rl)"
    assert labels.label("minari:mujoco/hopper/medium-v0") == "Minari mujoco/hopper/medium-v0"
    assert labels.label("/some/where/mine.hdf5") == "file mine.hdf5"
    assert labels.label("robot:logs") == "file robot:logs"


def test_simulated_data_say_how_they_were_made():
    def label(name):
        return labels.label("simulated", tasks.get(name))

    assert label("hopper-medium-v2") == "simulated (D4RL v2, shipped SAC snapshots)"
    assert label("maze2d-umaze-v1") == "simulated (D4RL v1, D4RL's own procedure)"
    note = recipes.RECIPES["halfcheetah-medium-expert-v2"].note
    assert "D4RL's 10,656" in note
    assert label("halfcheetah-medium-expert-v2") == (
        f"simulated (D4RL v2, shipped SAC snapshots; {note})"
    )
    in_v4 = choice.choose(tasks.get("halfcheetah-medium-expert-v2"), "v4")
    assert labels.label("simulated", in_v4) == "simulated (Gymnasium v4, shipped SAC snapshots)"
    assert labels.label("d4rl", tasks.get("maze2d-umaze-v1")) == "D4RL"


def test_labels_and_the_place_of_made_files_load_nothing_heavy():
    program = (
        "import sys; from ractd_jax.data import cache, labels; "
        "print(sorted({'jax', 'mujoco', 'gymnasium', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
