"""A method that does not keep its record's word is not trained, nor anything computed for it.

That every method here keeps its own, and that a wrong `reads` is refused, tests/methods says.
"""

import jax
import jax.numpy as jnp
import pytest
from run_helpers import tiny_config, tiny_pipeline, train

from ractd_jax import config as configuration
from ractd_jax import errors
from ractd_jax.methods import registry
from ractd_jax.training import checkpoints, shape_check

STAGES = ("bc", "reward", "teacher", "student", "diffuser")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config("hopper_mr", tmp_path_factory.mktemp("data"))


def refusal(config, stage, algorithm):
    with pytest.raises(errors.UserError) as caught:
        shape_check.check(config, stage, algorithm)
    assert str(caught.value).startswith(f"method '{stage}': ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(algorithm, change):
    """Return the algorithm whose update's result is changed."""

    def update(state, batch, key):
        state, metrics = algorithm.update(state, batch, key)
        return change(state, metrics)

    return algorithm._replace(update=update)


@pytest.fixture
def compiled():
    """Names of what JAX has done that takes a compiler."""
    events = []

    def note(name, *args, **kwargs):
        if "backend_compile" in name:
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield events
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_computed(config, stage, compiled):
    algorithm = registry.make(config, stage)
    compiled.clear()
    shape_check.check(config, stage, algorithm)
    assert compiled == []
    jax.jit(lambda x: jnp.sin(x) + len(stage))(1.0)
    assert compiled


def test_a_model_that_acts_or_values_otherwise_than_its_record_says_is_refused(config):
    bc, critic = registry.make(config, "bc"), registry.make(config, "reward")
    assert "acts=True" in refusal(config, "bc", bc._replace(act=None))
    assert "values=False" in refusal(config, "bc", bc._replace(value=critic.value))
    assert "acts=False" in refusal(config, "reward", critic._replace(act=bc.act))
    assert "values=True" in refusal(config, "reward", critic._replace(value=None))


def test_metrics_without_a_loss_are_refused(config):
    algorithm = registry.make(config, "bc")
    text = refusal(config, "bc", changed(algorithm, lambda s, m: (s, {"error": m["loss"]})))
    assert "no loss: error" in text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda x: x[:, 0], "(3,)"),  # no horizon
        (lambda x: jnp.concatenate([x, x], axis=1), "(2, 3)"),  # two actions
        (lambda x: x[..., :1], "(1, 1)"),
        (lambda x: x[:1], ""),  # one answer for all observations
    ],
)
def test_actions_of_another_shape_are_refused(config, answer, says):
    algorithm = registry.make(config, "bc")

    def act(params, cond, keys):
        return answer(algorithm.act(params, cond, keys))

    assert f"acts in shapes {says}" in refusal(config, "bc", algorithm._replace(act=act))


def test_an_update_that_reads_what_its_batches_lack_is_refused(config):
    algorithm = registry.make(config, "teacher")

    def update(state, batch, key):
        return algorithm.update(state, batch._replace(x=batch.rewards), key)

    text = refusal(config, "teacher", algorithm._replace(update=update))
    assert "does not take batches of windows" in text
    assert "rewards" in text


def test_a_section_that_says_how_steps_are_seen_is_of_methods_that_see_steps(config):
    steps = configuration.Steps()
    other = configuration.replace(config, teacher__data=steps)
    assert "`data`" in refusal(other, "teacher", registry.make(config, "teacher"))


def test_what_is_refused_leaves_the_run_that_was_there(tmp_path, monkeypatch):
    job = tiny_pipeline("hopper_mr", tmp_path)
    train(job, "bc")
    record, real = registry.get("bc"), registry.get
    wrong = configuration.replace(record, acts=False)
    monkeypatch.setattr(registry, "get", lambda stage: wrong if stage == "bc" else real(stage))
    with pytest.raises(errors.UserError, match="method 'bc'"):
        train(job, "bc", overwrite=True)
    assert checkpoints.run_status(job.run("bc")) == checkpoints.FINISHED


def test_functions_that_fail_while_traced_are_told_in_one_line(config):
    algorithm = registry.make(config, "iql")

    def fail(*args):
        raise KeyError("actor\nnetwork")

    for name in ("act", "value", "update", "init"):
        assert f"its {name} does not take" in refusal(
            config, "iql", algorithm._replace(**{name: fail})
        )


def test_values_of_another_shape_than_one_an_example_are_refused(config):
    algorithm = registry.make(config, "iql")

    def value(params, x, cond):
        return algorithm.value(params, x, cond)[:, None]

    assert "its values of 3 examples" in refusal(config, "iql", algorithm._replace(value=value))
