"""Configurations from dictionaries: every mistake is named as the user wrote it."""

import dataclasses

import pytest

from ractd_jax import config, errors, tasks
from ractd_jax.cli import configs
from ractd_jax.config import Selection, Training
from ractd_jax.methods import registry

TASKS = [name for name in configs.names() if name != "suite"]


def values(name="hopper_mr", argument="student,size=demo,source=simulated"):
    """Return a configuration as nested dictionaries."""
    return configs.load(name, argument).to_dict()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"candidats": 3}, "unknown field 'student.selection.candidats'. Did you mean"),
        ({"candidates": 0}, "student.selection.candidates is 0: at least 1"),
        ({"candidates": "many"}, "student.selection.candidates is 'many': a whole number"),
        ({"candidates": 1.5}, "student.selection.candidates is 1.5: a whole number"),
        ({"candidates": True}, "student.selection.candidates is True: a whole number"),
        ({"inverse_temperature": float("nan")}, "a finite number"),
        ({"critic": 3}, "student.selection.critic is 3: a word"),
    ],
)
def test_a_wrong_field_is_named_as_the_user_wrote_it(fields, says):
    with pytest.raises(errors.UserError) as caught:
        config.build(Selection, fields, "student.selection")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["teacher", "edm_bc", "ctd", "student"])
@pytest.mark.parametrize(
    ("section", "field", "value"),
    [("method", "distance", "foo"), ("optimiser", "b1", 1.5), ("optimiser", "learning_rate", -1.0)],
)
def test_the_section_of_an_error_is_the_stage_it_was_written_for(stage, section, field, value):
    wrong = values()
    wrong[stage][section][field] = value
    with pytest.raises(errors.UserError, match=rf"{stage}\.{section}\.{field}"):
        registry.configure(wrong)


def test_numbers_of_the_other_kind_are_taken_where_nothing_is_lost():
    assert config.build(Selection, {"inverse_temperature": 2}).inverse_temperature == 2.0
    rows = config.build(config.Eval, {"rows": ["student", "teacher"]}).rows
    assert rows == ("student", "teacher")


@pytest.mark.parametrize("name", TASKS)
def test_dictionaries_and_dataclasses_are_one_and_the_same(name):
    configured = registry.configure(values(name))
    assert registry.configure(registry.plain(configured)) == configured


def test_replace_reaches_nested_fields_of_sections_and_stages():
    configured = registry.configure(values())
    other = config.replace(configured, data__horizon=8, student__method__nfe=2, seed=3)
    assert (other.data.horizon, other.stages["student"].method.nfe, other.seed) == (8, 2, 3)
    assert configured.data.horizon != 8
    assert configured.stages["student"].method.nfe == 1
    assert other.stages["teacher"] == configured.stages["teacher"]


def test_every_field_of_the_shared_sections_is_explained():
    for kind in (config.Data, config.Eval, Training, config.Bench, config.Section, tasks.TaskSpec):
        assert {f.name for f in config.fields_of(kind)} <= config.documented(kind).keys(), kind


def test_nothing_changes_a_configuration():
    configured = registry.configure(values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        configured.seed = 1
