"""What training and acting may expect of every method, whichever there are.

The cases are made from the records of the registry through the configurations, so a new method is
tested here without a line being added. `VARIANTS` has further settings of some of them.
"""

import functools
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import shrink

from ractd_jax import config as configuration
from ractd_jax import errors, method
from ractd_jax.cli import configs, words
from ractd_jax.cli.words import Given
from ractd_jax.config import Config
from ractd_jax.data import episodes, normalization
from ractd_jax.method import Reads
from ractd_jax.methods import registry
from ractd_jax.tasks import TaskSpec
from ractd_jax.training import examples, shape_check

OBS, ACT, HORIZON, ROWS = 4, 2, 4, 32
PLANNER = {  # numbers that the mazes' configurations are given
    "horizon": HORIZON,
    "down_dims": (8,),
    "batch_size": ROWS,
    "diffuser_steps": 5,
    "demo_steps": (100, 100),
    "reward_weight": {"default": 0.1},
}
# Of a method's fields, so that it compiles in a blink.
FEW = {
    "horizon": HORIZON,
    "sample_bins": 4,
    "sample_steps": 4,
    "plans": 3,
    "flow_steps": 3,
    "steps": 5,
    "s1": 10,
}
# A name of its own: the stage, and fields of its method that differ.
VARIANTS = {
    "teacher, aware of the reward": ("teacher", {"reward_weight": 0.1}),
    "student, valued at the start, two calls": (
        "student",
        {"reward_on": "start", "advantage": 0.0, "nfe": 2},
    ),
    "student, as the teacher, started cold": (
        "student",
        {"dsm_goal": "teacher", "warm_start": False, "guide": "teacher", "dsm_stop": "zero"},
    ),
    "ddim": ("ddpm", {"sampler": "ddim"}),
    "fql, the smaller critic": ("fql", {"q_agg": "min"}),
}
RECORDS = registry.records()
STAGES = list(RECORDS)
NAMES = [*STAGES, *VARIANTS]


def record(name: str) -> method.Method:
    return RECORDS[VARIANTS.get(name, (name,))[0]]


def trains_otherwise(name: str) -> bool:
    """Tell if anything of a variant is about training, and not about acting alone."""
    return name not in VARIANTS or bool(VARIANTS[name][1].keys() - record(name).sampling_fields)


ACTING = [name for name in NAMES if record(name).acts]
TRAINING = [name for name in NAMES if trains_otherwise(name)]
VALUING = [name for name in STAGES if RECORDS[name].values]


class Case(NamedTuple):
    """A method, compiled, and the state it starts from."""

    config: Config
    stage: str
    act: Any
    update: Any
    value: Any
    batch: Any  # (key) -> a batch, as the method reads them
    state: Any
    params: Any  # what `act` takes
    modes: Any  # by "act" and "update", the values of `train` that its networks were called with


@functools.cache
def toy(kind: str) -> Config:
    """Return a configuration of a toy task with every stage of its kind, as small as it gets."""
    task = TaskSpec("toy", obs_dim=OBS, act_dim=ACT, kind=kind)
    numbers = PLANNER if kind == "planner" else {}
    given = Given(task, **words.parse("student,size=demo"), numbers=numbers)
    values = configs.complete(given, {"data": {"horizon": HORIZON}}).to_dict()
    for stage in registry.records():
        if stage in values:
            shrink(values[stage])
            network = values[stage]["network"]
            if "hidden" in network:  # wide enough to learn something in 150 updates
                network["hidden"] = [32] if isinstance(network["hidden"], list) else 32
            values[stage]["optimiser"] |= {
                "steps": 150, "batch_size": ROWS, "learning_rate": 3e-3, "warmup": 5,
            }  # fmt: skip
            fewer = {name: few for name, few in FEW.items() if name in values[stage]["method"]}
            values[stage]["method"] |= fewer
    values["ddpm"]["method"]["steps"] = 20
    return registry.configure(values)


def recorded(kind: str) -> episodes.Transitions:
    """Return episodes: actions follow the observation, the reward is the first action."""
    rng = np.random.default_rng(0)
    n, length = 1000, 20
    obs = rng.uniform(-1, 1, (n, OBS)).astype(np.float32)
    act = np.clip(0.5 * obs[:, :ACT] + 0.2 * rng.normal(size=(n, ACT)), -1, 1).astype(np.float32)
    ends = np.arange(n) % length == length - 1
    failed = ends & (np.arange(n) // length % 2 == 0)
    rewards = act[:, 0].copy()
    if kind == "planner":  # a maze's episodes end where rewards do
        rewards = np.float32(np.arange(n) % length < length - 2)
    return episodes.Transitions(obs, act, rewards, failed, ends & ~failed)


@functools.cache
def case(name: str) -> Case:
    """Return the case of a stage or a variant, made once."""
    stage, fields = VARIANTS.get(name, (name, {}))
    kind = RECORDS[stage].tasks[0]
    config = toy(kind)
    changed = {f"{stage}__method__{field}": value for field, value in fields.items()}
    config = configuration.replace(config, **changed)
    algorithm = registry.make(config, stage)
    data, normalizer = examples.build(config, stage, recorded(kind))
    frozen = {role: params_of(kind, need) for role, need in registry.needs(config, stage).items()}
    if algorithm.prepare:
        data = algorithm.prepare(frozen, data, jax.random.key(9))
    draw = functools.partial(
        algorithm.sample or examples.sampler(config, stage),
        batch_size=ROWS,
        horizon=registry.horizon(config, stage),
    )
    key = jax.random.key(STAGES.index(stage))
    state = jax.jit(algorithm.init)(key, *((frozen,) if frozen else ()))
    params = state.params
    if algorithm.inference_params:
        params = algorithm.inference_params(params, state.frozen, normalizer)
    modes = {"act": set(), "update": set()}
    return Case(
        config,
        stage,
        algorithm.act and jax.jit(noting(algorithm.act, modes["act"])),
        jax.jit(noting(algorithm.update, modes["update"])),
        algorithm.value,
        jax.jit(lambda key: draw(data, key)),
        state,
        params,
        modes,
    )


def noting(function: Any, seen: set) -> Any:
    """Return the function, which when it is compiled puts the values of `train` into `seen`."""
    apply = nn.Module.apply

    def noted(*args, **kwargs):
        seen.add(kwargs.get("train", False))
        return apply(*args, **kwargs)

    def noting(*args):
        with mock.patch.object(nn.Module, "apply", noted):
            return function(*args)

    return noting


@functools.cache
def params_of(kind: str, stage: str) -> Any:
    """Return weights of an untrained stage, far from the first weights of any other."""
    config = toy(kind)
    algorithm = registry.make(config, stage)
    needs = registry.needs(config, stage).items()
    frozen = {role: params_of(kind, need) for role, need in needs}
    state = jax.jit(algorithm.init)(jax.random.key(100), *((frozen,) if frozen else ()))
    params = jax.tree.map(lambda a: 2 * a, state.params)
    if algorithm.inference_params:
        normalizer = normalization.identity(OBS, ACT)
        params = algorithm.inference_params(params, state.frozen, normalizer)
    return params


def same(a: Any, b: Any) -> list[bool]:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [np.array_equal(x, y) for x, y in pairs]


# ---- the record ----------------------------------------------------------------------------------


def test_no_two_methods_look_alike():
    shown = [m for m in RECORDS.values() if m.label]
    for field in ("label", "colour", "order"):
        values = [getattr(m, field) for m in shown]
        assert len(set(values)) == len(values), field


@pytest.mark.parametrize("name", STAGES)
def test_record_is_whole(name):
    method = RECORDS[name]
    assert method.name == name
    assert method.help
    assert not method.help.endswith(".")
    assert method.label or not method.row
    assert set(method.sampling_fields) <= {f.name for f in configuration.fields_of(method.fields)}
    undocumented = {f.name for f in configuration.fields_of(method.fields)}
    assert undocumented <= configuration.documented(method.fields).keys()
    for network in method.network.values():
        fields = {f.name for f in configuration.fields_of(network)}
        assert fields <= configuration.documented(network).keys()


@pytest.mark.parametrize("name", NAMES)
def test_functions_fit_the_record(name):
    config, stage, *_ = case(name)
    shape_check.check(config, stage, registry.make(config, stage))


@pytest.mark.parametrize("reads", list(Reads))
def test_a_word_in_the_wrong_place_is_refused(monkeypatch, reads):
    """Cloning single actions said to read anything else: no other algorithm may be trained."""
    config, wrong = case("bc").config, configuration.replace(RECORDS["bc"], reads=reads)
    real = registry.get
    monkeypatch.setattr(registry, "get", lambda stage: wrong if stage == "bc" else real(stage))
    algorithm = registry.make(case("bc").config, "bc")
    if reads is Reads.TRANSITIONS:
        shape_check.check(config, "bc", algorithm)
        return
    with pytest.raises(errors.UserError, match="method 'bc'"):
        shape_check.check(config, "bc", algorithm)


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_first_state_is_at_step_zero_and_averages_its_own_weights(name):
    state = case(name).state
    assert state.step == 0
    assert all(same(state.ema, state.params))
    buffers = [a.unsafe_buffer_pointer() for a in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)  # or it could not be donated


@pytest.mark.parametrize("name", TRAINING)
def test_update_counts_moves_all_weights_and_keeps_everything_else(name):
    _, _, _, update, _, batch, before, *_ = case(name)
    after, metrics = update(before, batch(jax.random.key(0)), jax.random.key(1))
    assert all(same(after.params, before.params))  # the first learning rate of the warm-up is 0
    for i in range(3):  # a gradient may vanish by chance, at a corner of the data
        after, metrics = update(after, batch(jax.random.key(10 + i)), jax.random.key(2 + i))
    assert after.step == 4
    assert not any(same(after.params, before.params))
    assert all(same(after.frozen, before.frozen))

    def describe(state):
        return jax.tree.map(lambda a: (a.shape, a.dtype), state)

    assert describe(after) == describe(before)
    types = {a.dtype for a in jax.tree.leaves((before, after))}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert all(isinstance(word, str) and m.shape == () for word, m in metrics.items())
    assert all(np.isfinite(m) for m in metrics.values())


@pytest.mark.parametrize("name", TRAINING)
def test_update_is_a_function_of_its_key(name):
    _, _, _, update, _, batch, state, *_ = case(name)

    def after(seed):
        return update(state, batch(jax.random.key(0)), jax.random.key(seed))

    assert all(same(after(0), after(0)))


@pytest.mark.parametrize("name", TRAINING)
def test_loss_falls_on_a_toy(name):
    _, _, _, update, _, batch, state, *_ = case(name)

    def loss(state):  # always of the same examples with the same noise, dropout's too
        key = jax.random.key
        return np.mean([update(state, batch(key(i)), key(i))[1]["loss"] for i in range(20)])

    before = loss(state)
    for i in range(150):
        key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), i))
        state, _ = update(state, batch(key_batch), key_update)
    assert loss(state) < before - 0.01 * abs(before)  # noise is most of a value of noisy windows


# ---- acting --------------------------------------------------------------------------------------


def conditions(name: str, rows: int = 5) -> jax.Array:
    context = registry.context(case(name).config, case(name).stage)
    return jnp.linspace(-1, 1, rows * context.cond_dim).reshape(rows, context.cond_dim)


@pytest.mark.parametrize("name", ACTING)
def test_action_depends_on_weights_condition_and_key_of_its_row_only(name):
    act, params, rows = case(name).act, case(name).params, 32  # untrained, most lie on the bounds
    keys, cond = jax.random.split(jax.random.key(3), rows), conditions(name, rows)
    x = np.asarray(act(params, cond, keys))
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(act(params, cond, jax.random.clone(keys)), x)

    order = jnp.flip(jnp.arange(rows))
    again = act(params, cond[order], jax.random.clone(keys)[order])
    np.testing.assert_allclose(again, x[order], atol=1e-5)

    def moved(y):  # untrained ones may lie on the bounds, so not every row
        return np.abs(np.asarray(y) - x).max() > 1e-4

    assert moved(act(params, -cond - 0.1, jax.random.clone(keys)))
    assert moved(act(jax.tree.map(lambda a: a + 0.1, params), cond, jax.random.clone(keys)))
    y = act(params, cond, jax.random.split(jax.random.key(4), rows))
    assert moved(y) != record(name).deterministic


@pytest.mark.parametrize("name", ACTING)
def test_network_calls_are_those_that_the_record_counts(monkeypatch, name):
    config, stage, *_ = case(name)
    context, apply, counted = registry.context(config, stage), nn.Module.apply, []
    own = type(context.section.network)

    def counting(self, *args, **kwargs):
        if isinstance(self, own):
            counted.append(self)
        return apply(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "apply", counting)
    if not hasattr(own, "apply"):
        pytest.skip("several networks of shapes that its section describes")
    keys = jax.random.split(jax.random.key(3), 1)
    with jax.disable_jit():  # so that a loop's body counts each time
        act = registry.make(config, stage).act
        jax.eval_shape(act, case(name).params, conditions(name)[:1], keys)
    guides = stage == "diffuser"  # the value that guides it is called besides, by the same kind
    assert len(counted) == registry.calls(config, stage) or guides


@pytest.mark.parametrize("name", NAMES)
def test_networks_drop_units_in_training_and_never_in_acting(name):
    _, _, act, update, _, batch, state, params, modes = case(name)
    if name in TRAINING:
        update(state, batch(jax.random.key(0)), jax.random.key(1))
        dropout = getattr(case(name).config.stages[case(name).stage].network, "dropout", 0)
        assert True in modes["update"] or not dropout
        assert modes["update"]
    if act:
        act(params, conditions(name), jax.random.split(jax.random.key(2), 5))
        assert modes["act"] == {False}


@pytest.mark.parametrize("name", VALUING)
def test_critics_value_each_trajectory_by_itself(name):
    config, stage, _, _, value, _, state, *_ = case(name)
    cond = conditions(name)
    shape = registry.context(config, stage).shape
    x = jnp.linspace(-1, 1, 5 * int(np.prod(shape))).reshape(5, *shape)
    values = value(state.ema, x, cond)
    assert values.shape == (5,)
    order = jnp.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(value(state.ema, x[order], cond[order]), values[order], atol=1e-6)
    for others in (value(state.ema, -x - 0.1, cond), value(state.ema, x, -cond - 0.1)):
        assert (np.abs(others - values) > 1e-4).any()


BOUNDED = ("bc", "iql", "fql", "dql", "ctd", "student")  # never leave [-1, 1]


@pytest.mark.parametrize("name", BOUNDED)
def test_acts_within_the_range_of_actions(name):
    keys = jax.random.split(jax.random.key(3), 5)
    wild = jax.tree.map(lambda a: 20 * a, case(name).params)
    x = case(name).act(wild, conditions(name), keys)
    assert np.abs(x).max() <= 1
