"""Published checkpoints become finished stages: the same weights and normalizer, or one line."""

import json
import re

import h5py
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_builder
from helpers import ROOT
from run_helpers import train, update
from torch_builder import golden, normalizer_of, prefixed

import ractd_jax
from ractd_jax import errors, tasks
from ractd_jax.console import Progress, make_console
from ractd_jax.methods import registry
from ractd_jax.torch_import import __main__ as command
from ractd_jax.torch_import import convert
from ractd_jax.torch_import.weights import kind_of, params_from_torch
from ractd_jax.training import checkpoints, opening, restore, run_dir

TASK = "hopper-medium-replay-v2"
SMALL = [  # the sizes of the golden networks
    *(f"--config.{s}.network.down_dims=(8,16,32)" for s in ("teacher", "ctd", "student")),
    *(f"--config.{s}.network.embed_dim=16" for s in ("teacher", "ctd", "student")),
    "--config.reward.network.dims=(16,32,64)",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return the path of 20 episodes of noise in D4RL's schema."""
    path = tmp_path_factory.mktemp("data") / "noise.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as f:
        f["observations"] = rng.normal(size=(1000, 11)).astype(np.float32)
        f["actions"] = rng.uniform(-1, 1, (1000, 3)).astype(np.float32)
        f["rewards"] = rng.uniform(size=1000).astype(np.float32)
        f["terminals"] = np.arange(1000) % 50 == 49
        f["timeouts"] = np.zeros(1000, bool)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the path of a checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("published")
    own = {
        "teacher": prefixed("model.", golden("teacher_hopper_tiny")),
        "reward": prefixed("model.", golden("reward_mlp")),
        "ctd": prefixed("model.", golden("student_hopper_tiny")),
    }
    own["student"] = (
        own["ctd"]
        | prefixed("model_ema.", golden("teacher_maze_tiny"))
        | prefixed("teacher.", golden("teacher_hopper_tiny"))
        | prefixed("reward.", golden("reward_mlp"))
    )
    averaged = {"teacher": {k: v + 1 for k, v in own["teacher"].items()}}
    for kind, weights in own.items():
        torch_builder.checkpoint(folder / kind, weights, averaged=averaged.get(kind))
    return folder


def config(arg="preset=released", **changes):
    """Return the configuration of a hopper, with fields replaced as `run_helpers.update` does."""
    _, values = helpers.load("hopper_mr", arg)
    update(values, changes)
    return registry.configure(values)


def saved(run):
    """Return weights and normalizer of a stage, whatever its folder is called."""
    written, stage = run_dir.read(run)
    return restore.restore(run, restore.stage_template(written, stage))


def same(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def silent(text):
    del text


# ---- translation -------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "obs"), [(128, 11), (128, 60), (256, 8), (256, 60)])
def test_teacher_and_student_are_told_apart_at_the_published_sizes(width, obs):
    for kind, times in (("teacher", 1), ("student", 2)):
        weights = {
            "final_conv.1.weight": np.zeros((3, 8, 1)),
            "diffusion_step_encoder.3.bias": np.zeros(width),
            "mid_modules.0.cond_encoder.1.weight": np.zeros((16, times * width + obs)),
        }
        assert kind_of(weights) == kind


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"down_modules.0.0.unheard_of.weight": np.zeros((2, 2))}, "unheard_of"),
        ({"final_conv.1.bias": None, "final_conv.0.block.0.weight": None}, "published teacher"),
        ({"mid_modules.0.cond_encoder.1.weight": None}, "no published network"),
        ({"condition": np.zeros(3)}, "published teacher"),
        ({"final_conv.1.weight": np.zeros((1, 1, 1, 1))}, "published teacher"),
    ],
)
def test_weights_that_are_not_those_of_the_network_are_refused(change, said):
    weights = golden("teacher_hopper_tiny") | change
    weights = {k: v for k, v in weights.items() if v is not None}
    with pytest.raises(errors.UserError, match=said):
        params_from_torch(weights)


def test_the_convolutional_return_model_is_named():
    with pytest.raises(errors.UserError, match="convolutional return model"):
        kind_of({"final_block.0.weight": np.zeros((2, 2))})


# ---- a file becomes a stage --------------------------------------------------------------------

CASES = [  # file, stage asked for, stage written, golden file
    ("teacher", None, "teacher", "teacher_hopper_tiny"),
    ("reward", None, "reward", "reward_mlp"),
    ("student", None, "student", "student_hopper_tiny"),
    ("ctd", None, "ctd", "student_hopper_tiny"),
    ("student", "teacher", "teacher", "teacher_hopper_tiny"),
    ("student", "reward", "reward", "reward_mlp"),
    ("student", "ctd", "ctd", "student_hopper_tiny"),
]


@pytest.mark.parametrize(("file", "asked", "stage", "source"), CASES)
def test_weights_and_normalizer_of_a_file_are_those_of_the_folder(
    files, tmp_path, file, asked, stage, source
):
    run = convert.import_checkpoint(
        files / file, config=config(), stage=asked, out=tmp_path / "run", say=silent
    )
    item = saved(run)
    assert run_dir.read(run)[1] == stage
    assert checkpoints.run_status(run) == "finished"
    params = params_from_torch(golden(source))[2]
    same(item["params"], jax.tree.map(lambda w: w[None], params) if stage == "reward" else params)
    published = normalizer_of(0)
    for field in ("observations", "actions"):
        for part in ("scale", "offset"):
            array = getattr(getattr(item["normalizer"], field), part)
            wanted = published[f"normalizer.params_dict.{field}.{part}"]
            np.testing.assert_array_equal(array, wanted)
    scale = published["normalizer.params_dict.rewards.scale"]
    assert item["normalizer"].returns.scale == scale[0]


MAZE = (("observations", 4), ("actions", 2), ("rewards", 1))


@pytest.mark.parametrize("kind", ["teacher", "reward", "ctd"])
def test_planners_are_imported_too(tmp_path, kind):
    file = {"teacher": "teacher_maze_tiny", "ctd": "student_maze_tiny"}.get(kind, "reward_mlp")
    weights = golden(file)
    if kind == "reward":  # of a planner, it sees a state alone
        for name in ("blocks.0.0.blocks.0.weight", "blocks.0.0.residual_linear.weight"):
            weights[name] = np.ascontiguousarray(weights[name][:, :4])
    torch_builder.checkpoint(
        tmp_path / "file", prefixed("model.", weights), normalizer_of(0, MAZE), "maze2d-umaze-v1"
    )
    run = convert.import_checkpoint(tmp_path / "file", out=tmp_path / "run", say=silent)
    item, (written, stage) = saved(run), run_dir.read(run)
    assert (stage, written.task.name) == (kind, "maze2d-umaze-v1")
    params = params_from_torch(weights)[2]
    same(item["params"], jax.tree.map(lambda w: w[None], params) if kind == "reward" else params)


def test_without_config_the_task_named_in_the_file_chooses_it(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the configurations are found from any folder
    said = []
    run = convert.import_checkpoint(files / "teacher", out=tmp_path / "teacher", say=said.append)
    written, _ = run_dir.read(run)
    assert (written.task.name, written.preset) == (TASK, "released")
    assert f"--workdir={tmp_path}" in said[-1]
    path = re.search(r"--config=(\S+):student,preset=released", said[-1])[1]
    assert (tmp_path / path).resolve() == ROOT / "configs" / "hopper_mr.py"
    # What it says to run next is what the folder was configured with.
    assert {f"'{flag}'" if "(" in flag else flag for flag in SMALL[:6]} <= set(said[-1].split())
    policy = ractd_jax.load_policy(run, sample_bins=2)
    assert np.isfinite(policy(np.zeros((2, 11)))).all()


def test_a_student_is_evaluated_next_as_its_folder_says(files, tmp_path):
    said = []
    run = convert.import_checkpoint(files / "student", out=tmp_path / "student", say=said.append)
    assert said[-1] == f"next: python main.py eval --workdir={tmp_path}"
    assert run_dir.read(run)[0].stages["student"].network.down_dims == (8, 16, 32)
    policy = ractd_jax.load_policy(run)
    assert np.isfinite(policy(np.zeros((2, 11)))).all()


def test_fields_are_set_on_the_configuration_that_the_file_chooses(files, tmp_path):
    run = convert.import_checkpoint(
        files / "ctd", given=["--config.ctd.method.nfe=3"], out=tmp_path / "ctd", say=silent
    )
    assert run_dir.read(run)[0].stages["ctd"].method.nfe == 3


@pytest.mark.parametrize(("weights", "added"), [("live", 0), ("ema", 1)])
def test_the_configuration_chooses_live_or_averaged_weights(files, tmp_path, weights, added):
    chosen = config(teacher={"weights": weights})
    run = convert.import_checkpoint(
        files / "teacher", config=chosen, out=tmp_path / "teacher", say=silent
    )
    params = params_from_torch(golden("teacher_hopper_tiny"))[2]
    same(saved(run)["params"], jax.tree.map(lambda w: w + np.float32(added), params))


def test_a_file_without_normalizer_gets_that_of_the_data(tmp_path, data):
    archive = torch_builder.Archive()  # the network's state dict alone
    path = archive.write(tmp_path / "x", archive.state_dict(golden("reward_mlp"), parameter=True))
    chosen = config(f"reward,preset=released,source={data}")
    run = convert.import_checkpoint(path, config=chosen, out=tmp_path / "reward", say=silent)
    with h5py.File(data) as f:
        span = np.ptp(f["observations"][()], axis=0)
    scale = saved(run)["normalizer"].observations.scale
    np.testing.assert_allclose(scale, 2 / span, rtol=1e-5)


def one_level():
    """Return the weights of a U-Net with one level, which compiles in a third of the time."""
    weights = golden("teacher_hopper_tiny")
    kept = ("diffusion_step_encoder.", "down_modules.0.0.", "down_modules.0.1.", "final_conv.")
    made = {k: v for k, v in weights.items() if k.startswith(kept)}
    for name in [k for k in made if k.startswith("down_modules.0.1.")]:
        for block in "01":
            made[name.replace("down_modules.0.1", f"mid_modules.{block}")] = made[name]
    return made


def test_a_student_is_distilled_in_the_normalizer_of_its_teacher(tmp_path, data):
    arg = f"student,preset=released,source={data}"
    short = {
        "training": {"updates_per_dispatch": 1},
        "student": {  # DSM and reward: half the compilation
            "method": {"ctm_weight": 0.0},
            "optimiser": {"steps": 1, "batch_size": 2, "warmup": 1},
        },
    }
    other = torch_builder.checkpoint(
        tmp_path / "other", prefixed("model.", golden("reward_mlp")), normalizer=normalizer_of(1)
    )
    teacher = torch_builder.checkpoint(tmp_path / "teacher", prefixed("model.", one_level()))
    for stage, file in (("teacher", teacher), ("reward", other)):
        convert.import_checkpoint(
            file, config=config(arg, **short), stage=stage, out=tmp_path / "run" / stage, say=silent
        )
    sizes = {"network": {"down_dims": [8], "embed_dim": 16}}
    stages = dict.fromkeys(("teacher", "ctd"), sizes)
    stages |= {"student": short["student"] | sizes, "reward": {"network": {"dims": [16, 32, 64]}}}
    console = make_console(record=True, width=200)
    chosen = config(arg, **short | stages)
    train(opening.open_pipeline(chosen, tmp_path / "run", Progress(console)), "student")
    assert "normalizers of teacher and reward differ" in console.export_text()
    student, distilled_from, critic = (
        saved(tmp_path / "run" / stage)["normalizer"] for stage in ("student", "teacher", "reward")
    )
    # An advantage is a difference of returns, so they are in the unit of the model that predicts.
    same(student, distilled_from._replace(returns=critic.returns))


# ---- what is refused ---------------------------------------------------------------------------


def refusal(path, out, **options):
    options.setdefault("config", config())
    with pytest.raises(errors.UserError) as caught:
        convert.import_checkpoint(path, out=out, say=silent, **options)
    assert not out.exists() or checkpoints.run_status(out) == "finished"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_for_another_task_are_refused(files, tmp_path):
    _, values = helpers.load("walker2d_m", "preset=released")
    walker = registry.configure(values)
    for kind, numbers in (("teacher", "condition 11, output 3"), ("reward", "inputs 14")):
        text = refusal(files / kind, tmp_path / "run", config=walker)
        assert numbers in text
        assert "walker2d-medium-v2" in text


SHALLOW = {s: {"network": {"down_dims": [8, 16]}} for s in ("teacher", "ctd", "student", "ddpm")}
HORIZON = {"data": {"horizon": 18}}


@pytest.mark.parametrize(
    ("arg", "changes", "said"),
    [
        ("preset=released,size=demo", {}, "not a U-Net"),
        ("preset=released", HORIZON, "halve 18 steps"),
        ("preset=released", HORIZON | SHALLOW, "needs a horizon"),
        ("preset=released", {"teacher": {"network": {"groups": 8}}}, None),
    ],
)
def test_a_configuration_that_cannot_be_theirs_is_refused(files, tmp_path, arg, changes, said):
    chosen = config(arg, **changes)
    if said is None:
        convert.import_checkpoint(
            files / "teacher", config=chosen, out=tmp_path / "run", say=silent
        )
    else:
        assert said in refusal(files / "teacher", tmp_path / "run", config=chosen)


def test_a_stage_that_the_file_does_not_hold_is_refused(files, tmp_path):
    text = refusal(files / "teacher", tmp_path / "run", stage="student")
    assert "holds a teacher, no student" in text
    assert "Choose from" in refusal(files / "teacher", tmp_path / "run", stage="all")


def test_a_run_is_replaced_only_when_asked(files, tmp_path):
    for overwrite in (False, True):
        convert.import_checkpoint(
            files / "reward", config=config(), out=tmp_path / "r", overwrite=overwrite, say=silent
        )
        assert "--overwrite" in refusal(files / "reward", tmp_path / "r")


def test_checkpoints_of_the_released_code_are_never_replaced(files, tmp_path):
    released = tmp_path / "checkpoints" / "latest.ckpt"
    released.parent.mkdir()
    released.write_bytes((files / "reward").read_bytes())
    for overwrite in (False, True):
        with pytest.raises(errors.UserError, match="not ours"):
            convert.import_checkpoint(
                released, config=config(), out=tmp_path, overwrite=overwrite, say=silent
            )
    assert released.exists()


@pytest.mark.parametrize("known", [False, True])
def test_a_task_without_configuration_is_asked_for(tmp_path, known, monkeypatch):
    named = "walker2d-medium-v9"
    if known:
        monkeypatch.setitem(tasks.TASKS, named, tasks.get("walker2d-medium-v2"))
    path = torch_builder.checkpoint(tmp_path / "x", golden("reward_mlp"), task=named)
    assert "--config=configs/" in refusal(path, tmp_path / "run", config=None)


@pytest.mark.parametrize(
    "change", ["nan", "shape", "missing", "groups", "normalizer", "nothing", "list"]
)
def test_weights_that_do_not_fit_their_network_are_refused(tmp_path, change):
    weights, normalizer, said = golden("teacher_hopper_tiny"), normalizer_of(0), "do not fit"
    film = "down_modules.0.0.cond_encoder.1.weight"
    if change == "nan":
        weights[film] = weights[film] * np.nan
        said = "NaN"
    elif change == "shape":
        weights[film] = np.ascontiguousarray(weights[film][:, 1:])
    elif change == "missing":
        del weights[film]
    elif change == "groups":  # the width of a level is that of this bias
        bias = "down_modules.0.0.blocks.0.block.0.bias"
        weights[bias], said = weights[bias][:5].copy(), "5 channels do not make 8 equal groups"
    elif change == "normalizer":
        normalizer = normalizer_of(0, (("observations", 12), ("actions", 3), ("rewards", 1)))
    elif change == "nothing":
        weights, said = {}, "no published network"
    path = tmp_path / "x"
    if change == "list":
        torch_builder.Archive().write(path, [1, 2])
        said = "state_dicts"
    else:
        torch_builder.checkpoint(path, prefixed("model.", weights), normalizer)
    assert said in refusal(path, tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "kept", "said"),
    [
        ("teacher_hopper_tiny", r"(?!final_conv\.1\.bias)", "final_conv/bias is missing"),
        ("reward_mlp", r"final_linear\.", "level0_block0_dense0/linear/kernel is missing"),
    ],
)
def test_missing_layer_is_named(tmp_path, file, kept, said):
    weights = {k: v for k, v in golden(file).items() if re.match(kept, k)}
    path = torch_builder.checkpoint(tmp_path / "x", prefixed("model.", weights))
    text = refusal(path, tmp_path / "run")
    assert text.startswith("the weights do not fit the network that they imply: ")
    assert said in text


# ---- the command -------------------------------------------------------------------------------


def run_command(capsys, *arguments):
    code = command.main(["torch_import", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_command_writes_where_main_looks_for_the_stage(files, tmp_path, monkeypatch, capsys):
    name = f"{ROOT}/configs/hopper_mr.py:reward,preset=released,seed=3"
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(capsys, files / "student", f"--config={name}", *SMALL[-1:])
    assert code == 0, err
    run = tmp_path / "runs" / TASK / "paper-released-seed3" / "reward"
    assert json.loads((run / "config.json").read_text())["imported"]["file"] == "student"
    assert f"{name.replace(':reward', ':student')}" in out.splitlines()[-1]
    assert out.count("network.dims") == 1  # the flag was given, and the next command needs it too
    value = jnp.asarray(saved(run)["params"]["output"]["linear"]["bias"])
    assert value.shape == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which file"),
        (["nowhere.ckpt"], "cannot read nowhere.ckpt"),
        (["a", "b"], "'b' is one file too many"),
        (["a", "--config=configs/hoper_mr.py"], "hopper_mr"),
        (["a", "--outt=x"], "outt"),
    ],
)
def test_wrong_words_end_with_one_line(arguments, said, capsys):
    code, out, err = run_command(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_help_names_every_flag(capsys):
    code, out, _ = run_command(capsys, "--help")
    assert code == 0
    for word in ("FILE", "--config", "--out", "--overwrite", "normalizer"):
        assert word in out
