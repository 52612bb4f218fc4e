"""ractd_jax: one-step diffusion policies for offline reinforcement learning.

python main.py --config=configs/hopper_mr.py:student
python main.py --config=configs/hopper_mr.py:all,size=demo,source=simulated

What follows the colon: a stage, then name=value for size, source, preset, seed and seeds.
Any field of the configuration can be set with --config.<section>.<field>=<value>.
"""

import sys

from absl import flags
from ml_collections import config_flags

from ractd_jax import cli, errors

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/<task>.py:<stage>[,...]")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the runs [runs/<task>/<...>]")
_RESUME = flags.DEFINE_bool("resume", False, "continue stopped runs, keep finished ones")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "train again where a run is")
_CLUSTER = flags.DEFINE_bool("cluster", False, "join the other processes of a cluster's job")
_RAY = flags.DEFINE_string("ray_address", None, "Ray cluster of a suite [one on this machine]")


def main() -> int:
    """Parse the flags, run, and turn what the user can put right into one line."""
    if {"--help", "-h", "--helpfull"} & set(sys.argv[1:]):
        with cli.quiet_pipe():
            cli.print_help(__doc__)
        return 0
    try:
        cli.parse(sys.argv)
        words = {"resume": _RESUME.value, "overwrite": _OVERWRITE.value, "cluster": _CLUSTER.value}
        cli.run(_CONFIG.value, _WORKDIR.value, ray_address=_RAY.value, **words)
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # anywhere but in training, which saves first
        print("stopped; with --resume the same command keeps what is trained", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
