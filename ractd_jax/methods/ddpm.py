"""DDPM on the same network: the baseline of RACTD's tables, with its DDPM and DDIM samplers.

Ho et al. 2020; Song, Meng and Ermon 2021 (DDIM); schedule of Nichol and Dhariwal 2021. Settings are
those of Diffusion Policy, which RACTD's code base builds on: 100 steps, squared-cosine schedule,
the network predicts the noise, predictions of clean data are clipped.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps                      `vp_schedule.add_noise`
    L   = E |F(x_t, t, cond) - eps|^2                            `loss`
    q(x_s | x_t, x_0) is normal, s < t                           `posterior`
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps(x_t, x_0)            `ddim`

Times are step numbers here: `noise.clip` is the only field of the section `noise` that a DDPM
reads.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from ractd_jax import diffusion, errors, networks, train_state
from ractd_jax.method import Context, Method, Reads
from ractd_jax.methods import vp_schedule
from ractd_jax.types import Algorithm, Batch, Network, Params, Trajectory, Values

Steps = Int[Array, " batch"]  # the step of the schedule that each trajectory is at
Predictor = Callable[[Trajectory, Steps], Trajectory]  # (x_t, t) -> eps
Share = Float[Array, ""]  # of the data's variance that is left


@dataclasses.dataclass(frozen=True)
class Ddpm:
    """How a DDPM learns and samples.

    Attributes:
        steps: of the schedule it is trained with.
        sampler: "ddpm", with noise, or "ddim", without.
        sample_steps: network calls per action, spread evenly over the schedule.
        schedule: of the noise, see `vp_schedule.SCHEDULES`.

    Raises:
        FieldError: a word is unknown, or there are more calls than steps.

    Example:
        >>> Ddpm(sampler="ddim", sample_steps=10).steps
        100
    """

    steps: int = 100
    sampler: str = "ddpm"
    sample_steps: int = 100
    schedule: str = "cosine"

    def __post_init__(self):
        errors.at_least("steps", self.steps, 1)
        errors.choose_field("sampler", self.sampler, SAMPLERS)
        errors.choose_field("schedule", self.schedule, vp_schedule.SCHEDULES)
        if not 1 <= self.sample_steps <= self.steps:
            raise errors.FieldError(
                "sample_steps",
                f"{{field}} is {self.sample_steps}: between 1 and steps, which is {self.steps}",
            )


def visited(ddpm: Ddpm) -> Int[Array, " sample_steps_1"]:
    """Return the steps that sampling goes through, from `steps`, where x is noise, down to 0.

    Example:
        >>> visited(Ddpm(steps=9, sample_steps=2)).tolist()
        [9, 4, 0]
    """
    return jnp.round(jnp.linspace(ddpm.steps, 0, ddpm.sample_steps + 1)).astype(jnp.int32)


# ---- loss ----------------------------------------------------------------------------------------


def loss(predictor: Predictor, ddpm: Ddpm, x_0: Trajectory, key: PRNGKeyArray) -> Values:
    """Return the squared error of the predicted noise at a random step (Ho et al. 2020, Eq. 14).

    Args:
        predictor: of the noise.
        ddpm: the schedule.
        x_0: clean trajectories.
        key: of steps and noise.

    Example:
        >>> loss(lambda x, t: x, Ddpm(), jnp.zeros((5, 16, 3)), jax.random.key(0)).shape
        (5,)
    """
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, ddpm.steps + 1)
    eps = jax.random.normal(key_eps, x_0.shape)
    a = vp_schedule.alpha_bars(ddpm.steps, ddpm.schedule)[t]
    error = predictor(vp_schedule.add_noise(jnp.sqrt(a), jnp.sqrt(1 - a), x_0, eps), t) - eps
    return jnp.mean(error**2, axis=(1, 2))


# ---- samplers: (x_t, x_0, a_t, a_s) -> (mean of x_s, its standard deviation) ---------------------


def posterior(
    x: Trajectory, x_0: Trajectory, a: Share, a_next: Share
) -> tuple[Trajectory, Float[Array, ""]]:
    """Return mean and standard deviation of q(x_s | x_t, x_0) (Ho et al. 2020, Eqs. 6 and 7).

    Steps may be skipped: what matters of t and s is how much variance they leave.

    Args:
        x: noisy trajectories at step t.
        x_0: the clean trajectories that are seen in them.
        a: share of the data's variance at t.
        a_next: at s.
    """
    kept = a / a_next
    mean = jnp.sqrt(a_next) * (1 - kept) * x_0 + jnp.sqrt(kept) * (1 - a_next) * x
    return mean / (1 - a), jnp.sqrt((1 - kept) * (1 - a_next) / (1 - a))


def ddim(
    x: Trajectory, x_0: Trajectory, a: Share, a_next: Share
) -> tuple[Trajectory, Float[Array, ""] | None]:
    """Return x_s with the very noise that x_t holds besides x_0 (Song et al. 2021, Eq. 12).

    The noise is worked out from x_0 after clipping, so that the two always add up to x_t. Nothing
    is drawn, so there is no deviation. Arguments are those of `posterior`.
    """
    eps = (x - jnp.sqrt(a) * x_0) / jnp.sqrt(1 - a)
    return jnp.sqrt(a_next) * x_0 + jnp.sqrt(1 - a_next) * eps, None


SAMPLERS = {"ddpm": posterior, "ddim": ddim}


def sample(
    predictor: Predictor,
    ddpm: Ddpm,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
    *,
    clip: bool,
) -> Trajectory:
    """Draw one trajectory a key with `sample_steps` network calls.

    Args:
        predictor: of the noise.
        ddpm: schedule and sampler.
        keys: one for each row.
        shape: (horizon, dim) of a trajectory.
        clip: clip every prediction of x_0 to [-1, 1].

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> sample(lambda x, t: x, Ddpm(sample_steps=3), keys, (16, 3), clip=True).shape
        (5, 16, 3)
    """
    steps, sampler = visited(ddpm), SAMPLERS[ddpm.sampler]
    a = vp_schedule.alpha_bars(ddpm.steps, ddpm.schedule)[steps]

    def draw(t):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape))(keys)

    def step(x, now):
        t, t_next, a, a_next = now
        eps = predictor(x, jnp.full(x.shape[0], t))
        x_0 = (x - jnp.sqrt(1 - a) * eps) / jnp.sqrt(a)
        x, deviation = sampler(x, jnp.clip(x_0, -1, 1) if clip else x_0, a, a_next)
        return x if deviation is None else x + deviation * draw(t_next), None

    pairs = steps[:-1], steps[1:], a[:-1], a[1:]
    return jax.lax.scan(step, draw(steps[0]), pairs)[0]


# ---- the algorithm -------------------------------------------------------------------------------


def make_ddpm(
    net: Network,
    noise: diffusion.Noise,
    ddpm: Ddpm,
    optimiser: train_state.Optimiser,
    *,
    shape: tuple[int, int],
    cond_dim: int,
) -> Algorithm:
    """Make the DDPM.

    Args:
        net: a network of `networks`; its `times` are the numbers of the steps.
        noise: of which `clip` says whether samples stay in [-1, 1].
        ddpm: schedule and sampler.
        optimiser: how to train.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.

    Example:
        >>> net, optimiser = networks.ResidualMLP(hidden=8), train_state.Optimiser(steps=10)
        >>> noise, ddpm = diffusion.Noise(), Ddpm(sample_steps=2)
        >>> algorithm = make_ddpm(net, noise, ddpm, optimiser, shape=(16, 3), cond_dim=11)
        >>> params = algorithm.init(jax.random.key(0)).params
        >>> keys = jax.random.split(jax.random.key(1), 5)
        >>> algorithm.act(params, jnp.zeros((5, 11)), keys).shape
        (5, 16, 3)
    """

    def predict(params: Params, x, t, cond, **kwargs):
        return net.apply({"params": params}, x, t[:, None].astype(x.dtype), cond, **kwargs)

    def init(key):
        x, cond = jnp.zeros((1, *shape)), jnp.zeros((1, cond_dim))
        return train_state.create(net.init(key, x, jnp.zeros((1, 1)), cond)["params"], optimiser)

    def update(state, batch: Batch, key):
        key_loss, key_dropout = jax.random.split(key)

        def loss_fn(params):
            def predictor(x, t):
                rngs = {"dropout": key_dropout}
                return predict(params, x, t, batch.cond, train=True, rngs=rngs)

            return jnp.mean(loss(predictor, ddpm, batch.x, key_loss))

        value, grads = jax.value_and_grad(loss_fn)(state.params)
        return train_state.apply_gradients(state, grads, optimiser), {"loss": value}

    def act(params, cond, keys):
        def predictor(x, t):
            return predict(params, x, t, cond)

        return sample(predictor, ddpm, keys, shape, clip=noise.clip)

    return Algorithm(init, update, act)


def make(context: Context, optimiser: train_state.Optimiser) -> Algorithm:
    """Make the DDPM of a configuration."""
    section = context.section
    net = networks.in_precision(section.network, context.config.training.precision)
    return make_ddpm(net, context.noise, section.method, optimiser, **context.sizes)


METHODS = (
    Method(
        name="ddpm",
        help="train a DDPM, a rival that `all` leaves out; `eval` shows it once it is trained",
        make=make,
        fields=Ddpm,
        network={"unet": networks.ConditionalUnet1D, "mlp": networks.ResidualMLP},
        reads=Reads.WINDOWS,
        label="DDPM",
        colour="#205182",
        order=50,
        uses_history=True,
        sampling_fields=("sampler", "sample_steps"),
        calls=lambda fields: fields.sample_steps,
        heeds_precision=True,
    ),
)
