"""Every array that PyTorch gave us, by the published modules or by ours, is reproduced.

The files hold inputs, weights (w/...) and outputs; which is which is listed here, and a file with
an array that is in no list fails. `reference_*` is of our own PyTorch program, and written by
`PYTHONPATH=.:tests python tests/bench/test_torch_reference.py`.
"""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_cases import CASES, METHODS, REFERENCE, raveled
from helpers import DATA

from ractd_jax import ctm, ctm_losses, diffusion, edm, networks, reward, train_state
from ractd_jax.torch_import import convert
from ractd_jax.types import Batch

NOISE = diffusion.Noise()
EDM = diffusion.Noise(scaling="edm")


class Golden:
    """One file: its arrays, and the network with its weights (compiled once)."""

    def __init__(self, file):
        with np.load(DATA / f"{file}.npz") as z:
            self.arrays = {name: z[name] for name in z.files}
        weights = {k.removeprefix("w/"): v for k, v in self.arrays.items() if k.startswith("w/")}
        if not weights:
            return
        kind, fields, params = convert.params_from_torch(weights)
        assert kind == kind_of(file)
        network = networks.ReturnMLP if kind == "reward" else networks.ConditionalUnet1D
        self.module = network(**fields)
        self.params = jax.tree.map(jnp.asarray, params)
        self.apply = jax.jit(self.module.apply)  # so this object serves as a network

    def __getattr__(self, name):
        array = self.arrays[name]
        return jnp.asarray(array, jnp.int32 if array.dtype == np.int64 else jnp.float32)

    def denoise(self, x, t):
        return edm.denoise(self, self.params, NOISE, x, t, self.cond)

    def jump(self, x, t, s):
        return ctm.jump(self, self.params, NOISE, x, t, s, self.cond)

    def raw(self, *times):
        times = jnp.stack(times, axis=-1)
        return self.apply({"params": self.params}, self.x, times, self.cond)


@functools.cache
def golden(file):
    return Golden(file)


# ---- what each file holds ------------------------------------------------------------------------


def heun(g):
    levels = diffusion.sigmas(NOISE, g.heun_t_bin), diffusion.sigmas(NOISE, g.heun_u_bin)
    return edm.heun(g.denoise, g.heun_x, *levels)


def scaling(noise, index):
    return lambda g: diffusion.scalings(noise, g.times)[index]


def released_distance(g):
    return diffusion.distance("released", g.loss_pred, g.loss_target)


TEACHER = {
    "c_noise_t": lambda g: diffusion.c_noise(g.t),
    "c_noise_s": lambda g: diffusion.c_noise(g.s),
    "net_out": lambda g: g.raw(g.c_noise_t),
    "D": lambda g: g.denoise(g.x, g.t),
    "D_clamped": lambda g: jnp.clip(g.denoise(g.x, g.t), -1, 1),
    "heun_out": heun,
}
STUDENT = {
    "c_noise_t": lambda g: diffusion.c_noise(g.t),
    "c_noise_s": lambda g: diffusion.c_noise(g.s),
    "net_out": lambda g: g.raw(g.c_noise_t, g.c_noise_s),
    "G": lambda g: g.jump(g.x, g.t, g.s),
    "G_clamped": lambda g: jnp.clip(g.jump(g.x, g.t, g.s), -1, 1),
}
REWARD = {  # the model is given action and observation as the return model joins them
    "y": lambda g: reward.value(
        g.module,
        jax.tree.map(lambda w: w[None], g.params),
        reward.ReturnModel(),
        g.x[:, None, :3],
        g.x[:, 3:],
    )[:, None]
}
SCHEDULE = {
    "sigmas": lambda g: diffusion.sigmas(NOISE, g.bins),
    "boundary_c_skip": scaling(NOISE, 0),
    "boundary_c_out": scaling(NOISE, 1),
    "boundary_c_in": scaling(NOISE, 2),
    "edm_c_skip": scaling(EDM, 0),
    "edm_c_out": scaling(EDM, 1),
    "edm_c_in": scaling(EDM, 2),
    "karras_weight": lambda g: diffusion.karras_weight(NOISE, g.times),
    "loss_delta_minus1": lambda g: jnp.mean(released_distance(g)),
    "loss_delta_minus1_weighted": lambda g: jnp.mean(g.loss_weights * released_distance(g)),
    "loss_mse": lambda g: jnp.mean(diffusion.distance("squared", g.loss_pred, g.loss_target)),
}
INPUTS = {
    "teacher": {"x", "t", "s", "cond", "heun_t_bin", "heun_u_bin", "heun_x"},
    "student": {"x", "t", "s", "cond"},
    "reward": {"x"},
    "schedule": {"bins", "times", "loss_pred", "loss_target", "loss_weights"},
}
OUTPUTS = {"teacher": TEACHER, "student": STUDENT, "reward": REWARD, "schedule": SCHEDULE}


def kind_of(file):
    return file.split("_")[0]


FILES = sorted(path.stem for path in DATA.glob("*.npz") if kind_of(path.stem) != "reference")


# ---- tests ---------------------------------------------------------------------------------------


def test_no_golden_file_is_missing():
    assert sorted(path.stem for path in DATA.glob("*.npz")) == [
        *REFERENCE,
        "reward_mlp",
        "schedule_and_loss",
        "student_hopper_tiny",
        "student_maze_tiny",
        "teacher_hopper_tiny",
        "teacher_maze_tiny",
    ]


@pytest.mark.parametrize("file", FILES)
def test_every_array_of_a_file_is_an_input_a_weight_or_a_tested_output(file):
    recorded = {name for name in golden(file).arrays if not name.startswith("w/")}
    inputs, outputs = INPUTS[kind_of(file)], set(OUTPUTS[kind_of(file)])
    assert inputs | outputs == recorded
    assert not inputs & outputs


@pytest.mark.parametrize("file", [f for f in FILES if kind_of(f) != "schedule"])
def test_every_published_weight_has_its_place_and_no_place_is_left(key, file):
    g = golden(file)
    n_times = {"teacher": 1, "student": 2}.get(kind_of(file))
    example = (g.x[:1],) if n_times is None else (g.x[:1], jnp.zeros((1, n_times)), g.cond[:1])
    expected = jax.eval_shape(g.module.init, key, *example)["params"]
    shapes, expected_shapes = (
        jax.tree.map(lambda a: (a.shape, a.dtype), p) for p in (g.params, expected)
    )
    assert shapes == expected_shapes
    published = [v for k, v in g.arrays.items() if k.startswith("w/")]
    placed = jax.tree.leaves(g.params)
    assert len(placed) == len(published)
    # Layouts differ, numbers do not.
    np.testing.assert_array_equal(numbers(placed), numbers(published))


def numbers(arrays):
    return np.sort(np.concatenate([np.ravel(a) for a in arrays]))


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in FILES for name in OUTPUTS[kind_of(file)]]
)
def test_published_output_is_reproduced(file, name):
    g = golden(file)
    output, published = np.asarray(OUTPUTS[kind_of(file)][name](g)), g.arrays[name]
    assert output.shape == published.shape
    error = np.abs(output - published) / np.maximum(np.abs(published), 1)
    assert error.max() < 2e-5


@pytest.mark.parametrize("file", [f for f in FILES if kind_of(f) == "teacher"])
def test_heun_step_between_equal_bins_returns_its_input(file):
    g = golden(file)
    still = np.asarray(g.heun_t_bin == g.heun_u_bin)
    assert still.any()
    np.testing.assert_array_equal(np.asarray(heun(g))[still], np.asarray(g.heun_x)[still])


@pytest.mark.parametrize("file", [f for f in FILES if kind_of(f) == "student"])
def test_jump_of_no_length_returns_its_input(file):
    g = golden(file)
    still = np.asarray(g.t == g.s)
    assert still.any()
    jumped = np.asarray(g.jump(g.x, g.t, g.s))
    np.testing.assert_array_equal(jumped[still], np.asarray(g.x)[still])


def test_weights_of_no_published_network_are_refused():
    with pytest.raises(convert.UserError, match="no published network"):
        convert.params_from_torch({"conv.weight": np.zeros(3)})


# ---- our own PyTorch program: a network and the student's update ---------------------------------


def params_of(file, name):
    return raveled(file, 1 if name == "teacher" else 2)[1](getattr(golden(file), name))


@pytest.mark.parametrize(("name", "n_times"), [("teacher", 1), ("student", 2)])
@pytest.mark.parametrize("file", REFERENCE)
def test_residual_mlp_says_what_it_says_in_pytorch(file, name, n_times):
    g, params = golden(file), {"params": params_of(file, name)}
    output = networks.ResidualMLP(**REFERENCE[file]).apply(
        params, g.x, g.times[:, :n_times], g.cond
    )
    published = g.arrays[f"{name}_out"]
    np.testing.assert_allclose(output, published, atol=2e-5 * np.abs(published).max())


@pytest.mark.parametrize(("file", "preset"), CASES)
def test_students_loss_and_gradient_are_those_of_pytorch(
    file, preset, optimiser, sizes, monkeypatch
):
    g, adam, (noise, method) = golden(file), optimiser(), METHODS[preset]
    net, eps = networks.ResidualMLP(**REFERENCE[file]), iter((g.eps, g.dsm_eps))
    monkeypatch.setattr(
        ctm_losses, "triples", lambda *args: (g.t, jnp.minimum(g.u, g.t + method.max_jump), g.s)
    )
    monkeypatch.setattr(diffusion, "mixed", lambda *args: g.dsm_t)
    monkeypatch.setattr(jax.random, "normal", lambda *args: next(eps))
    algorithm = ctm.make_student(net, net, None, noise, method, adam, **sizes)
    frozen = {"teacher": params_of(file, "teacher")}
    state = train_state.create(params_of(file, "student"), adam, frozen)
    state = state.replace(ema=params_of(file, "average"))
    batch = Batch(g.x, g.cond, jnp.zeros(len(g.x)))
    after, metrics = jax.jit(algorithm.update)(state, batch, jax.random.key(0))
    assert float(metrics["loss"]) == pytest.approx(float(g.arrays[f"{preset}_loss"]), rel=1e-4)

    moment = jax.flatten_util.ravel_pytree(optax.tree.get(after.opt_state, "mu"))[0]
    theirs = g.arrays[f"{preset}_gradient"]
    length = np.linalg.norm(theirs)
    np.testing.assert_allclose(moment / (1 - adam.b1), theirs, atol=1e-3 * length)
