"""A config.json of another program or another version ends in one line, not in a traceback."""

import contextlib
import copy
import json

import jax
import numpy as np
import pytest
from helpers import load

import ractd_jax
from ractd_jax import errors
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, restore, run_dir

FOREIGN = {
    "empty": {},
    "a list": [],
    "Hugging Face's": {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"},
    "no stage": {"config": {}},
    "a list of fields": {"config": [], "stage": "student"},
    "a list of stages": {"config": {}, "stage": ["student"]},
}
OTHER = {  # what another version has, or lacks: (path to it, its value, what is said)
    "field": (["config", "student", "method", "magic"], 1, "student.method.magic"),
    "noise": (["config", "noise"], None, "noise is missing"),
    "training": (["config", "training"], None, "training is missing"),
    "number": (["config", "student", "method", "nfe"], None, "student.method.nfe is missing"),
    "student": (["config", "student"], None, "a stage 'student'"),
    "teacher": (["config", "teacher"], None, "student needs teacher"),
    "kind": (["config", "student", "network", "kind"], None, "student.network.kind is missing"),
    "data": (["config", "data"], [], "data is []"),
    "settings": (["config", "training"], [], "training is []"),
}


@pytest.fixture
def meta():
    """Return what config.json says of a student."""
    config = registry.configure(load("hopper_mr", "student,size=demo")[1])
    return json.loads(json.dumps(run_dir.describe(config, "student")))


def changed(meta, path, value):
    """Return a copy with one value replaced, or removed."""
    meta = node = json.loads(json.dumps(meta))
    *parents, last = path
    for name in parents:
        node = node[name]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return meta


def refusals(run, saved):
    """Return what both loaders say of a folder with such a config.json."""
    checkpoints.write_json(run / checkpoints.CONFIG, saved)
    texts = set()
    for loader in (ractd_jax.load_policy, ractd_jax.load_planner):
        with pytest.raises(errors.UserError) as caught:
            loader(run)
        texts.add(str(caught.value))
    (text,) = texts
    assert str(run) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", FOREIGN)
def test_folder_of_another_program_is_refused(name, meta, tmp_path):
    assert "has no config and stage" in refusals(tmp_path, FOREIGN[name])
    with pytest.raises(errors.UserError, match="has no config and stage"):
        run_dir.check_same(tmp_path, registry.configure(meta["config"]), "student")


def test_a_stage_of_an_unknown_method_says_what_brings_it(meta, tmp_path):
    assert "--method=FILE" in refusals(tmp_path, changed(meta, ["stage"], "oracle"))


@pytest.mark.parametrize("name", OTHER)
def test_a_run_of_another_version_is_refused(name, meta, tmp_path):
    assert "no whole checkpoint" in refusals(tmp_path, meta)  # which is all that is wrong with it
    *change, says = OTHER[name]
    text = refusals(tmp_path, changed(meta, *change))
    assert "was written by another version of ractd_jax" in text
    assert says in text


def test_a_run_of_another_version_does_not_go_on(meta, tmp_path):
    config = registry.configure(meta["config"])
    for path in (["config", "student"], ["config", "noise"]):
        checkpoints.write_json(tmp_path / checkpoints.CONFIG, changed(meta, path, None))
        with pytest.raises(errors.UserError, match="another version") as caught:
            run_dir.check_same(tmp_path, config, "student")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "change", "says"),
    [
        ("student", {"size": "small"}, "size = demo, now it is small"),
        ("iql", {"preset": "paper"}, "preset = default, now it is paper"),
        ("iql", {"data": {"transitions": 9}}, "data.transitions = .*, now it is 9"),
        ("iql", {"data": {"discount": 0.5}}, ""),  # which the return-to-go alone heeds
        ("student", {"training": {"precision": "bfloat16"}}, "precision = float32"),
        ("iql", {"training": {"precision": "bfloat16"}}, ""),  # no denoising network
    ],
)
def test_changes_that_make_another_run_are_refused(stage, change, says, meta, tmp_path):
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, meta | {"stage": stage})
    config = copy.deepcopy(meta["config"])
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    context = pytest.raises(errors.UserError, match=says) if says else contextlib.nullcontext()
    with context:
        run_dir.check_same(tmp_path, registry.configure(config), stage)


@pytest.mark.parametrize(
    ("stage", "field", "value", "says"),
    [
        ("student", "teacher.method.distance", "released", "teacher.method.distance = squared"),
        ("student", "reward.network.layer_norm", False, "reward.network.layer_norm = True"),
        ("cd", "edm_bc.noise.sigma_max", 40.0, "edm_bc.noise.sigma_max = 80.0, now it is 40.0"),
        ("eda", "eda_critic.method.expectile", 0.5, "eda_critic.method.expectile"),
        ("student", "teacher.method.sample_bins", 30, ""),  # how the teacher itself acts
        ("student", "edm_bc.optimiser.batch_size", 1, ""),  # which it does not need
        ("reward", "teacher.method.distance", "released", ""),
        ("diffuser_value", "diffuser.method.steps", 50, "diffuser.method.steps"),
        ("diffuser_value", "diffuser.method.guide_scale", 9.0, ""),  # the planner's alone
    ],
)
def test_a_run_is_of_the_models_that_it_was_trained_from(stage, field, value, says, meta, tmp_path):
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, meta | {"stage": stage})
    path = ["config", *field.split(".")]
    config = changed(meta, path, value)["config"]
    assert config != meta["config"]
    context = pytest.raises(errors.UserError, match=says) if says else contextlib.nullcontext()
    with context:
        run_dir.check_same(tmp_path, registry.configure(config), stage)


def test_a_finished_run_may_act_in_another_precision(meta, tmp_path):
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, meta)
    checkpoints.mark_finished(tmp_path)
    config = meta["config"] | {"training": meta["config"]["training"] | {"precision": "bfloat16"}}
    run_dir.check_same(tmp_path, registry.configure(config), "student")


def test_run_without_a_section_that_acting_needs_is_refused(meta, tmp_path):
    config = registry.configure(meta["config"])
    like = restore.stage_template(config, "teacher")
    item = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    store = checkpoints.Checkpoints(tmp_path)
    store.save(0, item, {"step": np.zeros((), np.int32)}, {"step": 0})
    store.close()
    meta |= {"stage": "teacher"}
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, meta)
    assert ractd_jax.load_policy(tmp_path).history == 1
    lacks = changed(meta, ["config", "teacher", "network", "hidden"], None)
    checkpoints.write_json(tmp_path / checkpoints.CONFIG, lacks)
    with pytest.raises(errors.UserError, match=r"another version .*teacher\.network\.hidden"):
        ractd_jax.load_policy(tmp_path)
