"""A configuration that cannot work ends with one line before anything is computed."""

import math

import pytest

from ractd_jax import errors
from ractd_jax.cli import configs
from ractd_jax.evaluation.rows import parse_row
from ractd_jax.methods import registry
from ractd_jax.training import opening


def check(config, workdir):
    """Do what is done before anything is computed."""
    opened = opening.open_pipeline(registry.configure(config.to_dict()), workdir).config
    for text in opened.eval.rows:
        parse_row(opened, text)


@pytest.mark.parametrize(
    ("file", "fields", "text"),
    [
        ("hopper_mr", {"data.horizon": 0}, "data.horizon is 0: at least 1"),
        ("kitchen_mixed", {"data.history": 0}, "data.history is 0: at least 1"),
        ("maze2d_umaze", {"data.history": 2}, "data.history is 2: plans are made from the present"),
        ("hopper_mr", {"data.discount": 1.5}, "data.discount is 1.5: between 0 and 1"),
        ("maze2d_umaze", {"data.goal_relabel": -0.5}, "data.goal_relabel is -0.5: between 0 and 1"),
        ("maze2d_umaze", {"teacher.network.frequencies": -3}, "frequencies is -3: at least 0"),
        ("hopper_mr", {"diffuser.optimiser.steps": 0}, "diffuser.optimiser.steps is 0: at least 1"),
        ("hopper_mr", {"teacher.optimiser.batch_size": 0}, "teacher.optimiser.batch_size is 0"),
        ("hopper_mr", {"student.method.nfe": 0}, "student.method.nfe is 0: at least 1"),
        ("hopper_mr", {"eval.episodes": 0}, "eval.episodes is 0: at least 1"),
        ("hopper_mr", {"eval.first_seed": -4}, "eval.first_seed is -4: at least 0"),
        ("hopper_mr", {"eval.rows": ("",)}, "a row of eval.rows is empty"),
        ("hopper_mr", {"eval.rows": ("studnet",)}, "Did you mean 'student'"),
        ("hopper_mr", {"eval.rows": ("ddpm sample_steps=500",)}, "sample_steps"),
        ("maze2d_umaze", {"eval.rows": ("student candidates=4",)}, "not chosen among candid"),
        ("maze2d_umaze", {"eval.replan_every": -3}, "eval.replan_every is -3: at least 0"),
        ("maze2d_umaze", {"eval.follow": "invers"}, "Did you mean 'inverse'"),
        ("maze2d_umaze", {"eval.replan": ("studnet",)}, "Did you mean 'student'"),
        ("hopper_mr", {"training.keep": 0}, "training.keep is 0: at least 1"),
        ("hopper_mr", {"training.save_every": 0}, "training.save_every is 0: at least 1"),
        ("hopper_mr", {"eval.online": (3,)}, "eval.online is 3: a word is needed"),
        ("hopper_mr", {"eval.rows": (3,)}, "eval.rows is 3: a word is needed"),
        ("hopper_mr", {"eval.summary": "../table5.json"}, "the name of a file"),
        ("hopper_mr", {"eval.online": ("studnet",)}, "Did you mean 'student'"),
        ("hopper_mr", {"student.weights": "EMA"}, "unknown student.weights 'EMA'"),
        ("hopper_mr", {"fql.network.activation": "swish"}, "Choose from: gelu, mish, relu"),
        ("hopper_mr", {"fql.network.layer_norm": "befor"}, "Did you mean 'before'"),
        ("hopper_mr", {"iql.data.normalization": "minmx"}, "Did you mean 'minmax'"),
        ("hopper_mr", {"fql.network.hidden": ()}, "fql.network.hidden is empty"),
        ("hopper_mr", {"edm_bc.network.hidden": 0}, "edm_bc.network.hidden is 0: at least 1"),
        ("hopper_mr", {"teacher.network.embed_dim": 7}, "embed_dim is 7: even"),
        ("hopper_mr", {"teacher.network.embed_dim": 2}, "embed_dim is 2: even, .* at least 4"),
        ("hopper_mr", {"teacher.network.dropout": 1.5}, "network.dropout is 1.5: between 0 and 1"),
        ("hopper_mr", {"teacher.method.sample_bins": 1}, "sample_bins is 1: at least 2"),
        ("hopper_mr", {"eval.rows": ("teacher sample_bins=1",)}, "sample_bins is 1: at least"),
        ("hopper_mr", {"student.method.nfe": 11}, "nfe is 11: with noise.bins=20 at most 10"),
        ("hopper_mr", {"student.method.reward_weight": math.nan}, "reward_weight is nan: a finite"),
        ("hopper_mr", {"student.optimiser.learning_rate": -1.0}, "learning_rate is -1.0"),
        ("hopper_mr", {"student.optimiser.ema": 2.0}, "ema is 2.0: between 0 and 1"),
        ("hopper_mr", {"reward.method.pessimism": 1.0}, "pessimism is 1.0: .* not 1 of 6"),
        ("hopper_mr", {"reward.epochs": 0, "reward.optimiser.steps": 0}, "reward.epochs is 0: at"),
        ("hopper_mr", {"bench.batches": (0,)}, "bench.batches is 0: at least 1"),
        ("hopper_mr", {"bench.seconds": -1.0}, "bench.seconds is -1.0: at least 0"),
        ("hopper_mr", {"idql_eval.nfe": (0,)}, "idql_eval.nfe is 0: at least 1"),
        ("hopper_mr", {"seed": -1}, "seed is -1: at least 0"),
        ("maze2d_umaze", {"diffuser.method.guide_steps": 2}, "guide_steps is 2: .* nothing guides"),
        ("maze2d_umaze", {"critic": "iql"}, "unknown critic 'iql'"),
        ("hopper_mr", {"student.optimiser.learning_rate": 1e20}, "learning_rate is 1e"),
        ("hopper_mr", {"student.optimiser.b1": 1.5}, "student.optimiser.b1 is 1.5"),
    ],
)
def test_impossible_configuration_ends_in_one_line(tmp_path, file, fields, text):
    config = configs.load(file, "all,size=demo")
    config.update_from_flattened_dict(fields)
    with pytest.raises(errors.UserError, match=text) as caught:
        check(config, tmp_path)
    assert "\n" not in str(caught.value)


def test_horizon_must_fit_the_halvings_of_the_u_net(tmp_path):
    config = configs.load("hopper_mr", "all,size=small")
    parts = 2 ** (len(config.teacher.network.down_dims) - 1)
    config.data.horizon = 4 * parts + 1
    with pytest.raises(errors.UserError, match=f"multiple of {parts}: {4 * parts} or {5 * parts}"):
        check(config, tmp_path)
    config.data.horizon = 4 * parts
    check(config, tmp_path)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"down_dims": ()}, "teacher.network.down_dims is empty"),
        ({"groups": 7}, "do not make 7 equal groups"),
        ({"width": 4}, "network.width is 4: odd"),
        ({"groups": 0}, "teacher.network.groups is 0: at least 1"),
    ],
)
def test_channels_of_a_u_net_must_make_groups(tmp_path, fields, text):
    config = configs.load("hopper_mr", "all,size=small")
    config.teacher.network.update(fields)
    with pytest.raises(errors.UserError, match=text):
        check(config, tmp_path)


def test_channels_of_a_value_make_groups_to_its_last_level(tmp_path):
    config = configs.load("hopper_mr", "all,size=small")
    config.diffuser_value.network.down_dims = (16, 48)
    with pytest.raises(errors.UserError, match="down_dims: 12 channels do not make 8 equal groups"):
        check(config, tmp_path)
    config.diffuser_value.network.down_dims = (16, 64)
    check(config, tmp_path)
