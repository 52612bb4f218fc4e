"""The command line becomes options and fields, and what is wrong with it is named as written."""

import pytest

from ractd_jax import errors
from ractd_jax.cli import app, configs, fields, flags
from ractd_jax.methods import registry

NAME = "hopper_mr:student,size=demo"


def parse(*arguments):
    return flags.parse(["main.py", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        (f"--config=configs/{NAME.replace(':', '.py:')}",),
        ("--config", f"configs/{NAME.replace(':', '.py:')}"),
        (f"-config={NAME}",),
        (NAME,),
        ("--resume", NAME),
        (NAME, "--workdir", "runs/x"),
        ("--workdir", "runs/x", NAME),
    ],
)
def test_a_configuration_may_be_named_in_several_ways(arguments):
    options = parse(*arguments)
    assert options.config.to_dict() == configs.load("hopper_mr", "student,size=demo").to_dict()
    assert options.resume == ("--resume" in arguments)
    assert options.workdir == ("runs/x" if "--workdir" in arguments else None)
    assert not options.given


def test_flags_have_their_values():
    options = parse(NAME, "--workdir=a b", "--overwrite", "--cluster", "--ray_address=auto")
    assert (options.workdir, options.ray_address) == ("a b", "auto")
    assert (options.overwrite, options.cluster, options.resume) == (True, True, False)
    assert options.named == "hopper_mr"


def test_fields_follow_an_equals_sign_or_are_the_next_word():
    options = parse(NAME, "--config.student.method.nfe", "2", "--config.eval.summary=a=b.json")
    assert options.config.student.method.nfe == 2
    assert options.config.eval.summary == "a=b.json"
    assert options.given == ("student.method.nfe=2", "eval.summary=a=b.json")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("student.method.nfe", "3", 3),
        ("student.method.reward_weight", "2", 2.0),
        ("student.method.reward_weight", "1e-1", 0.1),
        ("student.method.warm_start", "false", False),
        ("student.method.warm_start", "True", True),
        ("reward.network.dims", "(8, 16)", [8, 16]),
        ("reward.network.dims", "[8]", [8]),
        ("eval.rows", "('student nfe=2',)", ["student nfe=2"]),
        ("eval.summary", "3.json", "3.json"),  # a word that begins as a number does
        ("eval.summary", "'table.json'", "table.json"),
        ("training.compilation_cache", "''", ""),
        ("training.compilation_cache", "", ""),
        ("critic", "iql", "iql"),
        ("reward.epochs", "None", None),
        ("task.return_min", "5", 5.0),  # was None
    ],
)
def test_values_are_written_as_in_python_and_words_need_no_quotes(name, text, value):
    config = configs.load("hopper_mr", "student,size=demo")
    fields.set_fields(config, [f"{name}={text}"])
    result = config.to_dict()
    for part in name.split("."):
        result = result[part]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("student.method.nfee=2", "no such field: student.method.nfee: unknown field 'nfee'. Did"),
        ("studnet.method.nfe=2", "Did you mean 'student'"),
        ("student.method.nfe.x=2", "nothing below it called x"),
        ("student.method=2", "--config.student.method is a section, of advantage, "),
        ("student.method.nfe", "it needs a value"),
        ("student.method.nfe=two", "--config.student.method.nfe=two: a whole number is needed"),
        ("student.method.nfe=1.5", "--config.student.method.nfe=1.5: a whole number is needed"),
        ("student.method.nfe=", "a whole number is needed"),
        ("student.method.reward_weight=x", "a number is needed"),
        ("student.method.warm_start=no", "True or False is needed"),
        ("eval.rows=student", "several values in brackets"),
        ("idql_eval.nfe=3", "several values in brackets"),
    ],
)
def test_a_field_that_cannot_be_set_is_named(field, says):
    with pytest.raises(errors.UserError) as caught:
        fields.set_fields(configs.load("hopper_mr", "student,size=demo"), [field])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truth_value_is_no_number():
    options = parse(NAME, "--config.student.method.nfe=True")
    with pytest.raises(errors.UserError, match=r"student\.method\.nfe is True: a whole number"):
        registry.configure(options.config.to_dict())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--config is missing"),
        (("--config=",), "--config is empty"),
        ((NAME, "walker2d_mr:student"), "'walker2d_mr:student' is one word too many"),
        ((f"--config={NAME}", NAME), "is one word too many"),
        ((NAME, "--resum"), "resume"),
        ((NAME, "--resume=maybe"), "resume"),
        ((NAME, "--workdir"), "workdir"),  # not the default folder
        (("eval",), "eval of what? Name a configuration, as in hopper_mr:eval, or the folder"),
        (("student",), "--workdir=RUN"),
        ((NAME, "--config.size=small"), "follow the colon"),
        ((NAME, "--config.preset", "paper"), "follow the colon"),
        ((NAME, "--method=no.py"), "--method=no.py: there is no such file"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, says):
    with pytest.raises(errors.UserError) as caught:
        parse(*arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_on_a_folder_where_nothing_is_trained_says_so(tmp_path):
    with pytest.raises(errors.UserError, match="nothing is trained in"):
        parse("eval", f"--workdir={tmp_path}")


def test_a_suite_has_words_of_its_own_which_are_set_as_fields():
    options = parse("--config=configs/suite.py:demo", "--config.size=small")
    assert options.config["size"] == "small"


def test_errors_are_one_line_and_with_debug_a_traceback(capsys):
    assert app.main(["main.py", NAME, "--config.foo=1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no such field: foo")
    assert err.count("\n") == 1
    assert app.main(["main.py", NAME, "--config.foo=1", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: no such field: foo")
