"""Noise levels, scalings, weights and distances shared by the teacher and its students.

Forward noising is variance exploding, x_t = x_0 + t eps, so a time *is* a noise level sigma and the
letters t > u > s of the papers are noise levels throughout.

    sigma_i = (a + i / (N - 1) (b - a))^rho, a = sigma_max^(1/rho), b = sigma_min^(1/rho)  `sigmas`
    c_skip, c_out, c_in                                                                  `scalings`
    c_noise(t) = 250 ln t                                                                 `c_noise`
    w(t) = (t^2 + sigma_data^2) / (t sigma_data)^2                                  `karras_weight`
    d(p, q)                                                                              `distance`
    how training draws t                                                    `log_normal`, `mixed`
    how it draws t > u > s on the grid                                  `triples`, `long_triples`
    x_T                                                                                   `initial`

Also here: the keys of a network's dropout, by the name of each call (`WithDropout`, `named`).

Source: Karras et al. 2022 (EDM), Kim et al. 2023 (CTM), Song et al. 2023 and the released code for
the "boundary" scalings.
"""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num, PRNGKeyArray

from ractd_jax import errors
from ractd_jax.types import Levels, Trajectory, Values

SCALINGS = ("boundary", "edm")


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise levels of a model, and how its network is preconditioned.

    Attributes:
        sigma_min: the "time 0" of the papers; levels end here, not at 0.
        sigma_max: T, the level from which sampling starts.
        rho: curvature of the grid of levels.
        bins: number of levels in the grid.
        sigma_last: level from which the last step of the grid leads to sigma_min at once. Its end
            is the mean of the data near by: the centre of a mode, without the noise around it
            (`sigmas`). 0 for a grid that goes down evenly, as published.
        sigma_data: standard deviation of the data.
        scaling: "boundary" (identity at sigma_min, as consistency models need) or "edm".
        initial_std: standard deviation of x_T: sigma_max, as the equations say, or 1, as the
            released sampler does.
        clamp: keep the levels that training draws within [sigma_min, sigma_max]. Below, the
            loss weight goes on growing as 1 / t^2 while the boundary scalings do not shrink, so
            one example in a hundred outweighs all others; the released code lets it.
        clip: clip every prediction of clean data to [-1, 1] when sampling.

    Raises:
        FieldError: a level or a deviation is not positive, the levels do not rise, or the grid has
            fewer than two of them.
    """

    sigma_min: float = 0.02
    sigma_max: float = 80.0
    rho: float = 7.0
    bins: int = 80
    sigma_last: float = 0.0
    sigma_data: float = 0.5
    scaling: str = "boundary"
    initial_std: float = 80.0
    clamp: bool = True
    clip: bool = True

    def __post_init__(self):
        for field in ("sigma_min", "rho", "sigma_data", "initial_std"):
            errors.above(field, getattr(self, field), 0)
        if not self.sigma_max > self.sigma_min:
            raise errors.FieldError(
                "sigma_max", f"{{field}} is {self.sigma_max}: above sigma_min, {self.sigma_min}"
            )
        errors.at_least("bins", self.bins, 3 if self.sigma_last else 2)
        if self.sigma_last and not self.sigma_min < self.sigma_last < self.sigma_max:
            raise errors.FieldError(
                "sigma_last",
                f"{{field}} is {self.sigma_last}: above sigma_min, {self.sigma_min}, and below "
                f"sigma_max, {self.sigma_max}, or 0",
            )
        errors.choose_field("scaling", self.scaling, SCALINGS)


def sigmas(noise: Noise, bins: Num[Array, "..."]) -> Float[Array, "..."]:
    """Return the level of each bin, from sigma_max (bin 0) to sigma_min (bin N - 1) (EDM Eq. 5).

    With `sigma_last` the curve ends there, at bin N - 2, and the last step is a long one. A step of
    Euler's from t to 0 ends at D(x, t), the mean of the data given x, and at t of the size of the
    gaps between modes that is the mean of one mode.

    Args:
        noise: ends, curvature and number of the levels.
        bins: places in the grid; between two bins lie levels between theirs, and past either end
            the level stays the last one.

    Returns:
        Levels, in the shape of `bins`.

    Example:
        >>> sigmas(Noise(), jnp.array([0, 40, 79])).round(2).tolist()
        [80.0, 3.859999895095825, 0.019999999552965164]
        >>> sigmas(Noise(bins=4, sigma_last=0.8), jnp.arange(4)).round(2).tolist()
        [80.0, 11.609999656677246, 0.7999999523162842, 0.019999999552965164]
    """
    end, steps = noise.sigma_last or noise.sigma_min, noise.bins - (2 if noise.sigma_last else 1)
    high, low = noise.sigma_max ** (1 / noise.rho), end ** (1 / noise.rho)
    level = jnp.clip((high + bins / steps * (low - high)) ** noise.rho, end, noise.sigma_max)
    return jnp.where(bins < noise.bins - 1, level, noise.sigma_min) if noise.sigma_last else level


def zero(noise: Noise) -> float:
    """Return the level at or below which a step of the ODE is not corrected, see `edm.heun`.

    Published grids end at sigma_min, above 0, and correct the step to it too; one that jumps there
    from `sigma_last` must not.
    """
    return noise.sigma_min if noise.sigma_last else 0.0


def scalings(
    noise: Noise, t: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return (c_skip, c_out, c_in) at noise level t (EDM Table 1; Song et al. 2023, App. C).

    Example:
        With the boundary scalings a denoiser is the identity at sigma_min:

        >>> c_skip, c_out, _ = scalings(Noise(sigma_min=0.5), jnp.array(0.5))
        >>> float(c_skip), float(c_out)
        (1.0, 0.0)
    """
    total = jnp.sqrt(t**2 + noise.sigma_data**2)
    above = t - noise.sigma_min if noise.scaling == "boundary" else t
    c_skip = noise.sigma_data**2 / (above**2 + noise.sigma_data**2)
    return c_skip, above * noise.sigma_data / total, 1 / total


def c_noise(t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return 250 ln t, the form in which networks see a noise level (CTM).

    Example:
        >>> float(c_noise(jnp.array(1.0)))
        0.0
    """
    return 250 * jnp.log(t + 1e-44)


def karras_weight(noise: Noise, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return EDM's loss weight (t^2 + sigma_data^2) / (t sigma_data)^2.

    Example:
        >>> float(karras_weight(Noise(sigma_data=0.5), jnp.array(0.5)))
        8.0
    """
    return (t**2 + noise.sigma_data**2) / (t * noise.sigma_data) ** 2


def expand(t: Levels) -> Float[Array, "batch 1 1"]:
    """Give a level for each example the rank of a trajectory.

    Example:
        >>> expand(jnp.ones(3)).shape
        (3, 1, 1)
    """
    return t[:, None, None]


def clip(noise: Noise, x_0: Trajectory) -> Trajectory:
    """Return a prediction of clean data within [-1, 1], the range of the data, if `noise` says so.

    Example:
        >>> clip(Noise(clip=True), jnp.full((1, 1, 1), 3.0)).item()
        1.0
    """
    return jnp.clip(x_0, -1, 1) if noise.clip else x_0


# ---- distances between clean trajectories -----------------------------------------------------


def _huber(e2: Trajectory, c: float) -> Trajectory:
    return jnp.sqrt(e2 + c**2) - c


def _released(e2: Trajectory, c: float) -> Trajectory:
    return jnp.sqrt(e2**2 + c**2) - c


def _squared(e2: Trajectory, c: float) -> Trajectory:
    del c
    return e2


# Each takes squared errors e^2 and the constant c.
DISTANCES = {"huber": _huber, "released": _released, "squared": _squared}


def distance(kind: str, p: Trajectory, q: Trajectory, c: float = 0.0) -> Values:
    """Return d(p, q) of each example, averaged over horizon and dimension.

    Args:
        kind: "huber": sqrt(e^2 + c^2) - c, the pseudo-Huber distance the paper names;
            "released": sqrt(e^4 + c^2) - c, what the published code computes, because it squares
            the error first; "squared": e^2.
        p: prediction.
        q: target.
        c: where the Huber distance turns from squared to absolute; 0 for the customary
            0.00054 sqrt(horizon dim).

    Returns:
        A distance for each example.

    Example:
        >>> distance("squared", jnp.full((2, 4, 1), 3.0), jnp.ones((2, 4, 1))).tolist()
        [4.0, 4.0]
    """
    c = c or 0.00054 * (p.shape[1] * p.shape[2]) ** 0.5
    return jnp.mean(DISTANCES[kind]((p - q) ** 2, c), axis=(1, 2))


# ---- how training draws noise levels ----------------------------------------------------------


def log_normal(noise: Noise, key: PRNGKeyArray, batch: int) -> Float[Array, " {batch}"]:
    """Draw ln t ~ N(-1.2, 1.2^2) (EDM, Table 1). 0.2 % lie above 10, 1.2 % below 0.02.

    Example:
        >>> log_normal(Noise(), jax.random.key(0), batch=4).shape
        (4,)
    """
    levels = jnp.exp(1.2 * jax.random.normal(key, (batch,)) - 1.2)
    return jnp.clip(levels, noise.sigma_min, noise.sigma_max) if noise.clamp else levels


def mixed(noise: Noise, key: PRNGKeyArray, batch: int) -> Float[Array, " {batch}"]:
    """Draw half the levels where sampling starts, half log-normal (CTM, App. C).

    The first ceil(batch / 2) lie on the grid's curve in [0.7588, sigma_max]. The published student
    learns DSM at these levels; a teacher needs them too, if it is asked for D(x, sigma_max).

    Example:
        >>> bool((mixed(Noise(), jax.random.key(0), batch=4)[:2] > 0.75).all())
        True
    """
    key_high, key_low = jax.random.split(key)
    upper = 0.7 * jax.random.uniform(key_high, ((batch + 1) // 2,)) * (noise.bins - 1)
    return jnp.concatenate([sigmas(noise, upper), log_normal(noise, key_low, batch // 2)])


LEVELS: dict[str, Callable[[Noise, PRNGKeyArray, int], Levels]] = {
    "log_normal": log_normal,
    "mixed": mixed,
}


def triples(
    noise: Noise, key: PRNGKeyArray, batch: int, max_jump: int
) -> tuple[Int[Array, " {batch}"], Int[Array, " {batch}"], Int[Array, " {batch}"]]:
    """Draw the bins of t, u and s of RACTD's Eq. 6 (a larger bin is a lower noise level).

    t is uniform on the grid, s uniform from t to one past the grid's end (sigma_min again), u
    uniform from t to s and then at most `max_jump` bins from t: the released procedure, which draws
    them one by one on the host.

    Example:
        >>> t, u, s = triples(Noise(), jax.random.key(0), batch=100, max_jump=1)
        >>> bool((t <= u).all() and (u <= s).all() and (u - t <= 1).all())
        True
    """
    key_t, key_s, key_u = jax.random.split(key, 3)
    t = jax.random.randint(key_t, (batch,), 0, noise.bins)
    s = jax.random.randint(key_s, (batch,), t, noise.bins + 1)
    u = jax.random.randint(key_u, (batch,), t, s + 1)
    return t, jnp.minimum(u, t + max_jump), s


def long_triples(
    noise: Noise, key: PRNGKeyArray, batch: int, max_jump: int
) -> tuple[Int[Array, " {batch}"], Int[Array, " {batch}"], Int[Array, " {batch}"]]:
    """Draw the bins of t, u and s as CTM does: u is drawn before s, and far from t.

    t is uniform above the lowest level, u = t + h with a probability in proportion to h, at most
    `max_jump`, and s uniform from u to sigma_min.

    Example:
        >>> t, u, s = long_triples(Noise(), jax.random.key(0), batch=100, max_jump=17)
        >>> bool((t < u).all() and (u <= s).all() and (u - t <= 17).all() and (s < 80).all())
        True
    """
    key_t, key_h, key_s = jax.random.split(key, 3)
    t = jax.random.randint(key_t, (batch,), 0, noise.bins - 1)
    longest = jnp.minimum(max_jump, noise.bins - 1 - t)
    # The share of jumps up to h is h (h + 1) / (longest (longest + 1)): the inverse of that.
    share = jax.random.uniform(key_h, (batch,)) * longest * (longest + 1)
    h = jnp.clip(jnp.ceil((jnp.sqrt(1 + 4 * share) - 1) / 2).astype(jnp.int32), 1, longest)
    return t, t + h, jax.random.randint(key_s, (batch,), t + h, noise.bins)


def initial(noise: Noise, keys: Key[Array, " batch"], shape: tuple[int, int]) -> Trajectory:
    """Draw x_T, one trajectory for each key, so that a row never depends on its neighbours.

    Args:
        noise: its standard deviation.
        keys: one for each trajectory.
        shape: (horizon, dim) of a trajectory.

    Example:
        >>> initial(Noise(), jax.random.split(jax.random.key(0), 5), (16, 3)).shape
        (5, 16, 3)
    """
    return noise.initial_std * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


# ---- dropout -------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=Callable[..., Trajectory])


@dataclasses.dataclass(frozen=True)
class WithDropout:
    """A denoiser or a jump whose network drops units: other ones in each call that has a name.

    Attributes:
        model: `(*inputs, key) -> trajectories`.
        key: from which the keys of all calls are made.
        name: of the call.
    """

    model: Callable[..., Trajectory]
    key: PRNGKeyArray
    name: str = ""

    def __call__(self, *inputs: Array) -> Trajectory:
        """Return what the model makes of the inputs."""
        number = zlib.crc32(self.name.encode())
        return self.model(*inputs, jax.random.fold_in(self.key, number))


def named(model: Model, name: str) -> Model:
    """Return a model that drops units of its own in the call of this name.

    A model without dropout is returned as it is. Names keep apart the calls of one model in an
    equation, so that neither their order nor their number matters to what is drawn.

    Args:
        model: a denoiser or a jump.
        name: of the call; names of names are joined.

    Example:
        >>> def masks(x, t, key):
        ...     return jax.random.normal(key, x.shape)
        >>> model, x, t = WithDropout(masks, jax.random.key(0)), jnp.ones((1, 1, 1)), jnp.ones(1)
        >>> bool(named(model, "second")(x, t) == model(x, t))
        False
    """
    if isinstance(model, WithDropout):
        return cast(Any, dataclasses.replace(model, name=f"{model.name}/{name}"))
    return model
