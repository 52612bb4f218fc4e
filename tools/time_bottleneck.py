"""Time the three orders in which EDA's behaviour loss can be differentiated.

    python -m tools.time_bottleneck --hidden=128 --blocks=2 --widening=2

Its noise is a slope in x, its gradient a slope of that in the weights. With the residual d held
fixed, the gradient is that of df/dx d, a Jacobian-vector product, or that product of the gradient:

    reverse over reverse    grad_w of |-sigma grad_x f - eps|^2, as in `eda_behavior`
    reverse over forward    grad_w of jvp_x(f, d)
    forward over reverse    jvp_x of (grad_w f), along d
"""

import argparse
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp

from ractd_jax import diffusion
from ractd_jax.methods import eda_behavior, vp_schedule
from ractd_jax.nn import denoising_mlp
from ractd_jax.nn.cpu import matmul


def orders(net, x, t, cond, eps) -> dict:
    """Return `{name: weights -> gradient}`."""
    sigma = diffusion.expand(vp_schedule.sigma(t))

    def f(params, x):
        return eda_behavior.density(net, params, cond)(x, t)

    def noise(params):
        return eda_behavior.predict_noise(lambda x, t: f(params, x), x, t)

    def loss(params):
        return jnp.mean(jnp.sum((noise(params) - eps) ** 2, axis=(1, 2)))

    def direction(params):
        return -2 * sigma * (noise(params) - eps) / len(x)

    def over_forward(params):
        d = direction(params)
        return jax.grad(lambda p: jnp.sum(jax.jvp(lambda x: f(p, x), (x,), (d,))[1]))(params)

    def over_reverse(params):
        slope = jax.grad(lambda p, x: jnp.sum(f(p, x)))
        return jax.jvp(lambda x: slope(params, x), (x,), (direction(params),))[1]

    return {
        "reverse over reverse": jax.grad(loss),
        "reverse over forward": over_forward,
        "forward over reverse": over_reverse,
    }


def main() -> None:
    """Print the time of each; they take turns, so that all meet the same neighbours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    fields = {"hidden": 256, "blocks": 3, "widening": 4, "batch": 256, "act": 3, "obs": 11}
    for name, default in (fields | {"repeat": 100}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    net = denoising_mlp.Bottleneck(args.hidden, args.blocks, args.widening)
    keys = jax.random.split(jax.random.key(0), 4)
    x, eps = jax.random.normal(keys[0], (2, args.batch, 1, args.act))
    t = jax.random.uniform(keys[1], (args.batch,), minval=vp_schedule.T_MIN)
    cond = jax.random.normal(keys[2], (args.batch, args.obs))
    params = net.init(keys[3], x, t[:, None], cond)["params"]
    compiled = {name: jax.jit(run) for name, run in orders(net, x, t, cond, eps).items()}
    # The layers' own products have a rule for reverse mode alone.
    with mock.patch.object(matmul, "linear_of_many_rows", jnp.matmul):
        first = compiled["reverse over reverse"](params)
        for run in compiled.values():
            run(params)
    for name, run in compiled.items():
        gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), run(params), first)
        print(f"{name}: largest difference {max(map(float, jax.tree.leaves(gaps))):.1e}")
    taken = {name: [] for name in compiled}
    for _ in range(args.repeat):
        for name, run in compiled.items():
            begun = time.perf_counter()
            jax.block_until_ready(run(params))
            taken[name].append(1000 * (time.perf_counter() - begun))
    for name, times in taken.items():
        print(f"{name}: shortest {min(times):.2f} ms, median {statistics.median(times):.2f} ms")


if __name__ == "__main__":
    main()
