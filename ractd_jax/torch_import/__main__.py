"""`python -m ractd_jax.torch_import FILE` is `convert`."""

import sys

from ractd_jax.torch_import import convert

sys.exit(convert.main(sys.argv))
