"""The same networks, student update and samplers in PyTorch, to compare speed with.

Written as well as PyTorch allows without a compiler: noise levels drawn for the whole batch at
once, no value read back to the host within an update, AdamW in one fused kernel, inference mode for
acting, the target a view of the student's weights rather than a copy. `per_sample` draws the times
of the consistency loss as the published code does, one by one with `.item()`.

Modules have the names of those in JAX, so that weights go over by name. A linear weight is
transposed, a convolution's (width, in, out) becomes (out, in, width), a transposed convolution's
(in, out, width). The equations are those of `edm`, `ctm` and `ddpm`, where they are explained.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ractd_jax.ctm import Student, chain
from ractd_jax.diffusion import Noise
from ractd_jax.methods.ddpm import Ddpm, visited
from ractd_jax.methods.vp_schedule import alpha_bars
from ractd_jax.types import Params

# ---- networks ------------------------------------------------------------------------------------


class Condition(nn.Module):
    """Embed every noise level with one MLP and append the observation."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.dense0, self.dense1 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        rate = torch.log(torch.tensor(10_000.0)) / (dim // 2 - 1)
        frequencies = torch.exp(-torch.arange(dim // 2) * rate)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, times: Tensor, cond: Tensor) -> Tensor:
        angles = times[..., None] * self.frequencies
        e = self.dense1(F.mish(self.dense0(torch.cat([angles.sin(), angles.cos()], dim=-1))))
        return torch.cat([e.flatten(1), cond], dim=-1)


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, c_in: int, c_out: int, width: int, groups: int):
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, width, padding=width // 2)
        self.norm = nn.GroupNorm(groups, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.norm(self.conv(x)))


class FilmResidualBlock(nn.Module):
    """Two convolution blocks with a shortcut; the condition scales and shifts in between."""

    def __init__(self, c_in, c_out, c_dim, width, groups, dropout):
        super().__init__()
        self.block0 = ConvBlock(c_in, c_out, width, groups)
        self.block1 = ConvBlock(c_out, c_out, width, groups)
        self.film = nn.Linear(c_dim, 2 * c_out)
        self.shortcut = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.drop(self.block0(x))
        scale, shift = self.film(F.mish(c))[..., None].chunk(2, dim=1)
        return self.drop(self.block1(scale * h + shift) + self.shortcut(x))


class ConditionalUnet1D(nn.Module):
    """`networks.ConditionalUnet1D`."""

    def __init__(
        self, dim, cond, n_times, *, down_dims, embed_dim, width, groups, dropout, mid_dropout
    ):
        super().__init__()
        self.condition = Condition(embed_dim)
        c_dim, last = n_times * embed_dim + cond, len(down_dims) - 1

        def block(c_in: int, c_out: int, p: float = dropout) -> FilmResidualBlock:
            return FilmResidualBlock(c_in, c_out, c_dim, width, groups, p)

        self.levels, before = len(down_dims), dim
        for i, features in enumerate(down_dims):
            self.add_module(f"down{i}_block0", block(before, features))
            self.add_module(f"down{i}_block1", block(features, features))
            if i < last:
                sample = nn.Conv1d(features, features, 3, stride=2, padding=1)
                self.add_module(f"down{i}_sample", sample)
            before = features
        for j in range(2):
            self.add_module(f"mid_block{j}", block(before, before, mid_dropout))
        for i, features in enumerate(reversed(down_dims[:-1])):
            self.add_module(f"up{i}_block0", block(before + down_dims[last - i], features))
            self.add_module(f"up{i}_block1", block(features, features))
            sample = nn.ConvTranspose1d(features, features, 4, stride=2, padding=1)
            self.add_module(f"up{i}_sample", sample)
            before = features
        self.final_block = ConvBlock(before, down_dims[0], width, groups)
        self.final_conv = nn.Conv1d(down_dims[0], dim, 1)

    def forward(self, x: Tensor, times: Tensor, cond: Tensor) -> Tensor:
        c, x, skips = self.condition(times, cond), x.transpose(1, 2), []
        for i in range(self.levels):
            x = self.get_submodule(f"down{i}_block0")(x, c)
            x = self.get_submodule(f"down{i}_block1")(x, c)
            skips.append(x)
            if i < self.levels - 1:
                x = self.get_submodule(f"down{i}_sample")(x)
        for j in range(2):
            x = self.get_submodule(f"mid_block{j}")(x, c)
        for i in range(self.levels - 1):
            x = self.get_submodule(f"up{i}_block0")(torch.cat([x, skips.pop()], dim=1), c)
            x = self.get_submodule(f"up{i}_block1")(x, c)
            x = self.get_submodule(f"up{i}_sample")(x)
        return self.final_conv(self.final_block(x)).transpose(1, 2)


class ResidualMLP(nn.Module):
    """`networks.ResidualMLP`."""

    def __init__(
        self, horizon, dim, cond, n_times, *, hidden, blocks, embed_dim, dropout, frequencies=0
    ):
        super().__init__()
        self.blocks, c_dim = blocks, n_times * embed_dim + cond
        self.condition = Condition(embed_dim)
        self.frequencies, self.seen = frequencies, min(frequencies, horizon) or horizon
        if frequencies:
            transform = torch.from_numpy(scipy.fft.dct(np.eye(horizon), axis=0, norm="ortho"))
            self.register_buffer("transform", transform.float(), persistent=False)
            self.skip_gain = nn.Linear(c_dim, horizon * dim)
        self.input = nn.Linear(self.seen * dim + cond, hidden)
        for i in range(blocks):
            self.add_module(f"block{i}_film", nn.Linear(c_dim, 2 * hidden))
            self.add_module(f"block{i}_norm", nn.LayerNorm(hidden, eps=1e-6))
            self.add_module(f"block{i}_dense0", nn.Linear(hidden, hidden))
            self.add_module(f"block{i}_dense1", nn.Linear(hidden, hidden))
        self.output = nn.Linear(hidden, self.seen * dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, times: Tensor, cond: Tensor) -> Tensor:
        c = self.condition(times, cond)
        if self.frequencies:
            x = self.transform @ x
        h = F.mish(self.input(torch.cat([x[:, : self.seen].flatten(1), cond], dim=-1)))
        for i in range(self.blocks):
            scale, shift = self.get_submodule(f"block{i}_film")(c).chunk(2, dim=-1)
            r = self.get_submodule(f"block{i}_norm")(h) * (1 + scale) + shift
            r = self.drop(F.mish(self.get_submodule(f"block{i}_dense0")(r)))
            h = h + self.get_submodule(f"block{i}_dense1")(r)
        out = self.output(F.mish(h)).view(len(x), self.seen, -1)
        if self.frequencies:
            out = F.pad(out, (0, 0, 0, x.shape[1] - self.seen))
            out = self.transform.T @ (out + self.skip_gain(F.mish(c)).view_as(x) * x)
        return out


class InBfloat16(nn.Module):
    """`networks.InPrecision`: as PyTorch mixes precisions, by autocast."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, times: Tensor, cond: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.net(x, times, cond).float()


def network(
    fields: dict[str, Any],
    shape: tuple[int, int],
    cond_dim: int,
    n_times: int,
    params: Params,
    precision: str = "float32",
) -> nn.Module:
    """Return a network with our weights.

    Args:
        fields: section `network` of a stage.
        shape: (horizon, dim) of a trajectory.
        cond_dim: size of the condition.
        n_times: noise levels it sees: 1 a teacher, 2 a student.
        params: weights of the network of `networks` with the same fields.
        precision: it computes in: "float32" or "bfloat16".
    """
    fields = dict(fields)
    if fields.pop("kind") == "unet":
        module = ConditionalUnet1D(shape[1], cond_dim, n_times, **fields)
    else:
        module = ResidualMLP(*shape, cond_dim, n_times, **fields)
    module.load_state_dict(state_dict(params))
    return module if precision == "float32" else InBfloat16(module)


def state_dict(params: Params) -> dict[str, Tensor]:
    """Return our weights under PyTorch's names and in its layouts."""
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *parents, name = (step.key for step in path if step.key != "linear")
        weight = np.asarray(leaf)
        if weight.ndim == 2:
            weight = weight.T
        elif weight.ndim == 3:
            transposed = parents[-1].startswith("up") and parents[-1].endswith("_sample")
            weight = weight.transpose((1, 2, 0) if transposed else (2, 1, 0))
        name = "bias" if name == "bias" else "weight"
        state[".".join([*parents, name])] = torch.from_numpy(np.array(weight, order="C"))
    return state


# ---- noise levels and predictions ----------------------------------------------------------------


def _expand(t: Tensor) -> Tensor:
    return t[:, None, None]


def sigmas(noise: Noise, bins: Tensor) -> Tensor:
    """`diffusion.sigmas`."""
    high, low = noise.sigma_max ** (1 / noise.rho), noise.sigma_min ** (1 / noise.rho)
    level = (high + bins / (noise.bins - 1) * (low - high)) ** noise.rho
    return level.clamp(noise.sigma_min, noise.sigma_max)


def _predict(net, noise: Noise, x: Tensor, cond: Tensor, *times: Tensor) -> Tensor:
    """Return c_skip x + c_out F(c_in x, ...) at the first of `times`."""
    t = times[0]
    total = torch.sqrt(t**2 + noise.sigma_data**2)
    above = t - noise.sigma_min if noise.scaling == "boundary" else t
    c_skip = noise.sigma_data**2 / (above**2 + noise.sigma_data**2)
    c_out = above * noise.sigma_data / total
    seen = torch.stack([250 * torch.log(level + 1e-44) for level in times], dim=-1)
    return _expand(c_skip) * x + _expand(c_out) * net(_expand(1 / total) * x, seen, cond)


def denoise(net, noise: Noise, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """`edm.denoise`."""
    return _predict(net, noise, x, cond, t)


def jump(net, noise: Noise, x: Tensor, t: Tensor, s: Tensor, cond: Tensor) -> Tensor:
    """`ctm.jump`."""
    ratio = _expand(s / t)
    return ratio * x + (1 - ratio) * _predict(net, noise, x, cond, t, s)


def solve(denoiser: Callable, x: Tensor, levels: Tensor, solver: str) -> Tensor:
    """`edm.solve`."""
    for t, u in itertools.pairwise(levels):
        slope = (x - denoiser(x, t)) / _expand(t)
        after = x + _expand(u - t) * slope
        if solver == "heun":
            slope = (slope + (after - denoiser(after, u)) / _expand(u)) / 2
            after = x + _expand(u - t) * slope
        x = after
    return x


# ---- the student's update ------------------------------------------------------------------------


class Draws(NamedTuple):
    """What is random in an update besides dropout: bins and noise of L_CTM, levels of L_DSM."""

    t: Tensor
    u: Tensor
    s: Tensor
    eps: Tensor
    dsm_t: Tensor
    dsm_eps: Tensor


def draw(noise: Noise, method: Student, x_0: Tensor, *, per_sample: bool = False) -> Draws:
    """Draw what an update needs (`ctm.triples`, `diffusion.mixed`)."""
    n, batch, device = noise.bins, len(x_0), x_0.device
    t = torch.randint(n, (batch,), device=device)
    if per_sample:

        def tensor(values):
            return torch.tensor(list(values), device=device)

        s = tensor(torch.randint(a.item(), n + 1, ()).item() for a in t)
        u = tensor(
            torch.randint(a.item(), b.item() + 1, ()).item() for a, b in zip(t, s, strict=True)
        )
        u = tensor(min(a.item(), b.item() + method.max_jump) for a, b in zip(u, t, strict=True))
    else:
        a, b = torch.rand(2, batch, device=device)
        s = t + ((n + 1 - t) * a).long()
        u = torch.minimum(t + ((s - t + 1) * b).long(), t + method.max_jump)
    upper = 0.7 * (n - 1) * torch.rand((batch + 1) // 2, device=device)
    lower = torch.exp(1.2 * torch.randn(batch // 2, device=device) - 1.2)
    if noise.clamp:
        lower = lower.clamp(noise.sigma_min, noise.sigma_max)
    levels = torch.cat([sigmas(noise, upper), lower])
    return Draws(t, u, s, torch.randn_like(x_0), levels, torch.randn_like(x_0))


def distance(kind: str, p: Tensor, q: Tensor) -> Tensor:
    """`diffusion.distance`."""
    c = 0.00054 * (p.shape[1] * p.shape[2]) ** 0.5
    e2 = (p - q) ** 2
    if kind == "huber":
        e2 = torch.sqrt(e2 + c**2) - c
    elif kind == "released":
        e2 = torch.sqrt(e2**2 + c**2) - c
    return e2.mean(dim=(1, 2))


def student_loss(
    student: nn.Module,
    target: nn.Module,
    teacher: nn.Module,
    noise: Noise,
    method: Student,
    x_0: Tensor,
    cond: Tensor,
    draws: Draws,
) -> Tensor:
    """Return alpha L_CTM + beta L_DSM (RACTD Eqs. 5 to 7 and 9, without reward).

    The gradient goes through `target`, whose own weights must not ask for one.
    """

    def denoiser(x, t):
        return denoise(teacher, noise, x, t, cond)

    steps = torch.linspace(0, 1, method.solver_steps + 1, device=x_0.device)[:, None]
    levels = sigmas(noise, draws.t + steps * (draws.u - draws.t))
    t, u, s = levels[0], levels[-1], sigmas(noise, draws.s)
    zero = torch.full_like(t, noise.sigma_min)
    x_t = x_0 + _expand(t) * draws.eps
    with torch.no_grad():
        x_u = solve(denoiser, x_t, levels, method.solver)
        q = jump(target, noise, jump(target, noise, x_u, u, s, cond), s, zero, cond)
    p = jump(target, noise, jump(student, noise, x_t, t, s, cond), s, zero, cond)
    ctm = distance(method.distance, p, q).mean()

    t = draws.dsm_t
    x_t = x_0 + _expand(t) * draws.dsm_eps
    x = jump(student, noise, x_t, t, zero, cond)
    goal = x_0
    if method.dsm_goal == "teacher":
        with torch.no_grad():
            goal = denoiser(x_t, t)
    weight = (t**2 + noise.sigma_data**2) / (t * noise.sigma_data) ** 2
    dsm = (weight * distance(method.distance, x, goal)).mean()
    return method.ctm_weight * ctm + method.dsm_weight * dsm


def make_update(
    student: nn.Module,
    teacher: nn.Module,
    noise: Noise,
    method: Student,
    optimiser: dict[str, Any],
    *,
    per_sample: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `(x_0, cond) -> loss`, which trains the student in place.

    Args:
        student: network to train.
        teacher: frozen network.
        noise: noise levels and scalings.
        method: losses; what it says of a reward is ignored.
        optimiser: section `optimiser` of the stage.
        per_sample: see the head of this file.
    """
    decay = optimiser["ema"]
    average = copy.deepcopy(student).requires_grad_(False)
    target = average
    if method.target == "online":  # views of the live weights, out of the gradient's reach
        target = copy.deepcopy(student).requires_grad_(False)
        for view, live in zip(target.parameters(), student.parameters(), strict=True):
            view.data = live.data
    student.train()
    target.train(method.target_dropout)
    teacher.train(method.target_dropout).requires_grad_(False)
    live, averaged = list(student.parameters()), list(average.parameters())
    adam = torch.optim.AdamW(
        live,
        lr=optimiser["learning_rate"],
        betas=(optimiser["b1"], optimiser["b2"]),
        weight_decay=optimiser["weight_decay"],
        fused=True,
    )

    def update(x_0, cond):
        draws = draw(noise, method, x_0, per_sample=per_sample)
        loss = student_loss(student, target, teacher, noise, method, x_0, cond, draws)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, live, 1 - decay)
        return loss.detach()

    return update


# ---- samplers: (x_T, cond) -> x_0 ----------------------------------------------------------------


def _clip(noise: Noise, x: Tensor) -> Tensor:
    return x.clamp(-1, 1) if noise.clip else x


@torch.inference_mode()
def sample_student(net, noise: Noise, nfe: int, x: Tensor, cond: Tensor) -> Tensor:
    """`ctm.sample`, from x_T."""
    zero, t = x.new_full((len(x),), noise.sigma_min), x.new_full((len(x),), noise.sigma_max)
    x = _clip(noise, jump(net, noise, x, t, zero, cond))
    for level_bin in chain(noise, nfe):
        t = sigmas(noise, x.new_full((len(x),), level_bin))
        x = x + _expand(t) * torch.randn_like(x)
        x = _clip(noise, jump(net, noise, x, t, zero, cond))
    return x


@torch.inference_mode()
def sample_teacher(net, noise: Noise, levels: Tensor, solver: str, x: Tensor, cond: Tensor):
    """Follow the ODE from x_T through `levels` (bins,) (`edm.make_teacher`)."""

    def denoiser(x, t):
        return _clip(noise, denoise(net, noise, x, t, cond))

    return solve(denoiser, x, levels[:, None].expand(-1, len(x)), solver)


def make_sample_ddpm(method: Ddpm, noise: Noise) -> Callable:
    """Return `(net, x_T, cond) -> x_0` (`ddpm.sample`)."""
    steps = visited(method)
    a, numbers = np.asarray(alpha_bars(method.steps)[steps]).tolist(), np.asarray(steps).tolist()

    @torch.inference_mode()
    def sample(net, x: Tensor, cond: Tensor) -> Tensor:
        for t, a_t, a_s in zip(numbers[:-1], a[:-1], a[1:], strict=True):
            eps = net(x, x.new_full((len(x), 1), t), cond)
            x_0 = _clip(noise, (x - (1 - a_t) ** 0.5 * eps) / a_t**0.5)
            if method.sampler == "ddim":
                eps = (x - a_t**0.5 * x_0) / (1 - a_t) ** 0.5
                x = a_s**0.5 * x_0 + (1 - a_s) ** 0.5 * eps
                continue
            kept = a_t / a_s
            mean = a_s**0.5 * (1 - kept) * x_0 + kept**0.5 * (1 - a_s) * x
            deviation = ((1 - kept) * (1 - a_s) / (1 - a_t)) ** 0.5
            x = mean / (1 - a_t) + deviation * torch.randn_like(x)
        return x

    return sample
