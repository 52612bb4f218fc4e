"""Let the shipped SAC actors learn on, in D4RL's physics, until they are experts.

    python -m tools.train_experts --out DIR --env hopper --steps 500000
    python -m tools.evaluate_snapshots --env hopper --folder DIR/snapshots

D4RL's experts are fully trained SAC (Fu et al. 2020); the shipped snapshots end before. Their
replay was not kept, so it is filled anew: `FILL` steps of the snapshots, half of them of the best,
the expert of `recipes`. Its actor goes on from there. Its critics first learn `WARM` updates what
it is worth, and as they know little beside the old data, a pull that fades keeps the actor near
what it was for `HELD` steps. Apart from that this is SAC (Haarnoja et al. 2018) with an update
every other step and two departures: critics normalise their hidden layers (without it they overrate
what the data lack; Ball et al. 2023), and products of float32 are rounded to bfloat16 first where
the processor multiplies these faster. `--scratch` has neither old actor nor old data.

In DIR: `snapshots/<step>.npz` in the format of `sac_rollout.act` every 10,000 steps, `log.jsonl`
with a line for each, and `checkpoint.npz`, which the same command with more steps continues from.
Needs PyTorch.
"""

import argparse
import json
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch.nn import functional

from ractd_jax import tasks
from ractd_jax.data import cache
from ractd_jax.data.generate import sac_rollout, simulated
from ractd_jax.envs.make import make_env

ENVS = {"hopper": "Hopper", "walker2d": "Walker2d", "halfcheetah": "HalfCheetah"}
FILL, WARM = 200_000, 20_000  # steps, updates
PULL, FADE, HELD = 0.1, 15_000, 120_000  # of the size of a value; steps until 1 / e; steps
FREE, LEAST_ALPHA = 0.01, 0.003  # pull under which the temperature learns, and never is below
EVERY, SAVE_EVERY = 10_000, 50_000  # steps between snapshots, and between checkpoints
RATE, BATCH, GAMMA, TAU = 3e-4, 256, 0.99, 0.005
NARROW, WIDE = 128, 256  # hidden layers of the actor, as it ships, and of the critics
STEPS_AN_UPDATE = 2  # of the environment, which costs a twentieth of an update
EPISODES = 3  # episodes of the actor without noise, at every snapshot
LAYERS = ("hidden0", "hidden1", "mean", "log_std")

Tensors = dict[str, torch.Tensor]


class Replay:
    """What has been seen, with room for `size` steps."""

    def __init__(self, size: int, obs_dim: int, act_dim: int):
        widths = {"obs": obs_dim, "act": act_dim, "reward": 1, "next": obs_dim, "done": 1}
        self.columns = {name: torch.zeros(size, width) for name, width in widths.items()}
        self.size = 0

    def add(self, **rows: np.ndarray) -> None:
        """Append rows, each (n, width)."""
        count = len(rows["obs"])
        for name, values in rows.items():
            self.columns[name][self.size : self.size + count] = torch.from_numpy(
                np.ascontiguousarray(values, np.float32)
            )
        self.size += count

    def sample(self, rng: np.random.Generator) -> Tensors:
        """Return a minibatch, drawn uniformly."""
        rows = torch.from_numpy(rng.integers(0, self.size, BATCH))
        return {name: column.index_select(0, rows) for name, column in self.columns.items()}


class Learner:
    """Soft actor-critic: actor, two critics side by side, their slow copies, a temperature."""

    def __init__(self, obs_dim: int, act_dim: int, seed: int):
        torch.manual_seed(seed)
        shapes = (obs_dim, NARROW), (NARROW, NARROW), (NARROW, act_dim), (NARROW, act_dim)
        self.actor: Tensors = {}
        for name, shape in zip(LAYERS, shapes, strict=True):
            self.actor[f"{name}/kernel"], self.actor[f"{name}/bias"] = _dense(*shape)
        self.critics: Tensors = {}
        for i, shape in enumerate(((obs_dim + act_dim, WIDE), (WIDE, WIDE), (WIDE, 1))):
            pair = [_dense(*shape) for _ in range(2)]
            self.critics[f"kernel{i}"] = torch.stack([kernel for kernel, _ in pair])
            self.critics[f"bias{i}"] = torch.stack([bias[None] for _, bias in pair])
        self.slow = {name: value.clone() for name, value in self.critics.items()}
        self.log_alpha = torch.zeros(())
        self.entropy = -float(act_dim)
        self.start()

    def start(self) -> None:
        """Make optimisers for the weights as they are."""
        for value in (*self.actor.values(), *self.critics.values(), self.log_alpha):
            value.requires_grad_(True)

        def adam(values):
            return torch.optim.Adam(list(values), RATE, fused=True)

        self.optimisers = {
            "actor": adam(self.actor.values()),
            "critics": adam(self.critics.values()),
            "alpha": adam([self.log_alpha]),
        }

    def update(
        self,
        batch: Tensors,
        *,
        critics_only: bool = False,
        hold: tuple[Tensors, float] | None = None,
    ) -> None:
        """Make one update of all; of the critics alone if `critics_only`.

        Args:
            batch: of the replay.
            critics_only: leave actor and temperature as they are.
            hold: an old actor to stay near, and how much (of the size of a value).
        """
        loss = _critic_loss(self.critics, self.slow, self.actor, self.log_alpha.detach(), batch)
        self._step("critics", loss)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.slow.values()), list(self.critics.values()), TAU)
        if critics_only:
            return
        alpha = self.log_alpha.detach()
        loss, log_prob = _actor_loss(self.critics, self.actor, alpha, batch["obs"])
        if hold is not None:
            old, weight = hold
            loss = loss + weight * loss.detach().abs() * _distance(self.actor, old, batch["obs"])
        self._step("actor", loss)
        if hold is None or hold[1] < FREE:  # held, it has the old one's entropy in any case
            self._step("alpha", -self.log_alpha * (log_prob + self.entropy))
            with torch.no_grad():
                self.log_alpha.clamp_(min=np.log(LEAST_ALPHA))

    def weights(self) -> dict[str, np.ndarray]:
        """Return the actor in the format of `sac_rollout.act`; the arrays change as it learns."""
        return {name: value.detach().numpy() for name, value in self.actor.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that an update changes."""
        tensors = {f"actor/{name}": value for name, value in self.actor.items()}
        tensors |= {f"critics/{name}": value for name, value in self.critics.items()}
        tensors |= {f"slow/{name}": value for name, value in self.slow.items()}
        tensors["log_alpha"] = self.log_alpha
        for name, optimiser in self.optimisers.items():
            for i, state in optimiser.state_dict()["state"].items():
                tensors |= {f"adam/{name}/{i}/{key}": value for key, value in state.items()}
        return {name: value.detach().numpy() for name, value in tensors.items()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `arrays` returned."""
        groups = {"actor": self.actor, "critics": self.critics, "slow": self.slow}
        with torch.no_grad():
            for group, weights in groups.items():
                for name, value in weights.items():
                    value.copy_(torch.from_numpy(arrays[f"{group}/{name}"]))
            self.log_alpha.copy_(torch.from_numpy(arrays["log_alpha"]))
        for name, optimiser in self.optimisers.items():
            state = optimiser.state_dict()
            for key, value in arrays.items():
                if key.startswith(f"adam/{name}/"):
                    _, _, i, field = key.split("/")
                    state["state"].setdefault(int(i), {})[field] = torch.tensor(value)
            optimiser.load_state_dict(state)

    def _step(self, name: str, loss: torch.Tensor) -> None:
        self.optimisers[name].zero_grad()
        loss.backward()
        self.optimisers[name].step()


def train(folder: Path, env_name: str, steps: int, seed: int, scratch: bool) -> None:  # noqa: PLR0915
    """Train up to `steps` environment steps beyond the old data, continuing what is there."""
    env_id = f"ractd_jax/{ENVS[env_name]}-v2"
    task = tasks.get(f"{env_name}-medium-v2")
    learner = Learner(task.obs_dim, task.act_dim, seed)
    replay = Replay((0 if scratch else FILL) + steps, task.obs_dim, task.act_dim)
    with np.load(simulated.SNAPSHOTS / f"{env_name}.npz") as archive:
        shipped = dict(archive)
    best = list(simulated.RECIPES[f"{env_name}-medium-expert-v2"].shares)[-1]
    last = simulated.actor(shipped, best)
    assert last is not None
    old = {name: torch.from_numpy(value) for name, value in last.items()}
    saved = folder / "checkpoint.npz"
    step = filled = 0
    if saved.exists():
        with np.load(saved) as archive:
            arrays = dict(archive)
        learner.load(arrays)
        replay.add(**{name: arrays[f"replay/{name}"] for name in replay.columns})
        step, filled = int(arrays["step"]), int(arrays["filled"])
    elif not scratch:
        _begin(learner, replay, env_id, shipped, best, seed)
        filled = replay.size
    rng = np.random.default_rng((seed, step))
    env, returns, begun = make_env(env_id), [], time.time()
    obs, total = env.reset(seed=seed + step)[0], 0.0
    weights = learner.weights()
    while step < steps:
        if scratch and step < 10_000:
            action = rng.uniform(-1.0, 1.0, task.act_dim).astype(np.float32)
        else:
            noise = rng.standard_normal((1, task.act_dim), np.float32)
            action = sac_rollout.act(weights, obs[None].astype(np.float32), noise)[0]
        after, reward, fell, timed_out, _ = env.step(action)
        row = {"obs": obs, "act": action, "reward": [reward], "next": after, "done": [fell]}
        replay.add(**{name: np.asarray(value)[None] for name, value in row.items()})
        obs, total, step = after, total + float(reward), step + 1
        if fell or timed_out:
            returns.append(total)
            obs, total = env.reset()[0], 0.0
        if step % STEPS_AN_UPDATE == 0 and (not scratch or step >= 10_000):
            hold = None
            if step < HELD and not scratch:
                hold = old, PULL * np.exp(-step / FADE)
            learner.update(replay.sample(rng), hold=hold)
        if step % EVERY == 0 or step == steps:
            _write(folder / "snapshots" / f"{step}.npz", weights)
            line = {
                "step": step,
                "episodes": len(returns),
                "return": float(np.mean(returns)) if returns else None,
                "return_mean_action": _mean_action_return(env_id, weights),
                "alpha": float(learner.log_alpha.detach().exp()),
                "steps_a_second": round(EVERY / (time.time() - begun)),
            }
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
            returns, begun = [], time.time()
        if step % SAVE_EVERY == 0 or step == steps:
            columns = {f"replay/{n}": c[: replay.size].numpy() for n, c in replay.columns.items()}
            _write(saved, learner.arrays() | columns | {"step": step, "filled": filled})


def _begin(
    learner: Learner, replay: Replay, env_id: str, shipped: dict, best: int, seed: int
) -> None:
    """Fill the replay with the snapshots' steps, take over the best one, learn its value."""
    saved_at = shipped["steps"].tolist()
    for at in (best, *(at for at in reversed(saved_at) if at != best)):
        steps = FILL // 2 if at == best else FILL // 2 // (len(saved_at) - 1)
        block = sac_rollout.Block(env_id, simulated.actor(shipped, at), steps, (seed, at))
        for episode in sac_rollout.collect(block):
            columns = "observations", "actions", "rewards", "next_observations", "terminals"
            columns = (episode[name].reshape(len(episode["rewards"]), -1) for name in columns)
            rows = dict(zip(replay.columns, columns, strict=True))
            room = FILL - replay.size
            replay.add(**{name: values[:room] for name, values in rows.items()})
    last = simulated.actor(shipped, best)
    assert last is not None
    with torch.no_grad():
        for name, value in learner.actor.items():
            value.copy_(torch.from_numpy(last[name]))
        learner.log_alpha.fill_(np.log(0.05))
    rng = np.random.default_rng(seed)
    for _ in range(WARM):
        learner.update(replay.sample(rng), critics_only=True)


def _mean_action_return(env_id: str, weights: dict[str, np.ndarray]) -> float:
    """Return the mean return of a few episodes of the actor's mean action."""
    env, returns = make_env(env_id), []
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    no_noise = np.zeros((1, *env.action_space.shape), np.float32)
    for seed in range(EPISODES):
        obs, total, done = env.reset(seed=10_000 + seed)[0], 0.0, False
        while not done:
            action = sac_rollout.act(weights, obs[None].astype(np.float32), no_noise)[0]
            obs, reward, fell, timed_out, _ = env.step(action)
            total, done = total + float(reward), fell or timed_out
        returns.append(total)
    env.close()
    return float(np.mean(returns))


def _dense(inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return kernel (inputs, outputs) and bias of a layer, as PyTorch begins them."""
    layer = torch.nn.Linear(inputs, outputs)
    return layer.weight.detach().T.contiguous(), layer.bias.detach().clone()


def _spread(actor: Tensors, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and log standard deviation before the tanh, (batch, act) each."""
    hidden = torch.relu(torch.addmm(actor["hidden0/bias"], obs, actor["hidden0/kernel"]))
    hidden = torch.relu(torch.addmm(actor["hidden1/bias"], hidden, actor["hidden1/kernel"]))
    mean = torch.addmm(actor["mean/bias"], hidden, actor["mean/kernel"])
    log_std = torch.addmm(actor["log_std/bias"], hidden, actor["log_std/kernel"]).clamp(-20, 2)
    return mean, log_std


def _sample(actor: Tensors, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return actions (batch, act) and their log densities (batch, 1)."""
    mean, log_std = _spread(actor, obs)
    noise = torch.randn_like(mean)
    raw = mean + log_std.exp() * noise
    density = -0.5 * noise.square() - log_std - 0.5 * np.log(2 * np.pi)
    squash = 2.0 * (np.log(2.0) - raw - functional.softplus(-2.0 * raw))  # log(1 - tanh^2)
    return torch.tanh(raw), (density - squash).sum(1, keepdim=True)


@torch.compile
def _distance(actor: Tensors, old: Tensors, obs: torch.Tensor) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of an actor's actions from an old one's."""
    with torch.no_grad():
        old_mean, old_log_std = _spread(old, obs)
    mean, log_std = _spread(actor, obs)
    ratio = log_std - old_log_std
    far = (mean - old_mean).square() * torch.exp(-2.0 * old_log_std)
    return (0.5 * (torch.exp(2.0 * ratio) + far - 1.0) - ratio).sum(1).mean()


def _values(critics: Tensors, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Return both critics' values, (2, batch, 1)."""
    hidden = torch.cat([obs, action], 1).expand(2, -1, -1)
    for i in range(2):
        hidden = torch.baddbmm(critics[f"bias{i}"], hidden, critics[f"kernel{i}"])
        hidden = torch.relu(functional.layer_norm(hidden, (WIDE,)))
    return torch.baddbmm(critics["bias2"], hidden, critics["kernel2"])


@torch.compile
def _critic_loss(
    critics: Tensors, slow: Tensors, actor: Tensors, log_alpha: torch.Tensor, batch: Tensors
) -> torch.Tensor:
    with torch.no_grad():
        action, log_prob = _sample(actor, batch["next"])
        value = _values(slow, batch["next"], action).amin(0) - log_alpha.exp() * log_prob
        goal = batch["reward"] + GAMMA * (1.0 - batch["done"]) * value
    error = _values(critics, batch["obs"], batch["act"]) - goal
    return 0.5 * error.square().mean(1).sum()


@torch.compile
def _actor_loss(
    critics: Tensors, actor: Tensors, log_alpha: torch.Tensor, obs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    action, log_prob = _sample(actor, obs)
    fixed = {name: weight.detach() for name, weight in critics.items()}
    loss = log_alpha.exp() * log_prob - _values(fixed, obs, action).amin(0)
    return loss.mean(), log_prob.detach().mean()


def _write(path: Path, arrays: dict) -> None:
    with cache.atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--env", default="hopper", choices=sorted(ENVS), help="[hopper]")
    parser.add_argument("--steps", type=int, required=True, help="environment steps in all")
    parser.add_argument("--seed", type=int, default=0, help="[0]")
    parser.add_argument("--scratch", action="store_true", help="begin with nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    train(args.out, args.env, args.steps, args.seed, args.scratch)


if __name__ == "__main__":
    main()
