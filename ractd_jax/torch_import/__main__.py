"""`python -m ractd_jax.torch_import FILE` is `command`."""

import sys

from ractd_jax.torch_import import command

sys.exit(command.main(sys.argv))
