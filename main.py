"""The command line: `python main.py --config=configs/hopper_mr.py:student`, see --help."""

import sys

from ractd_jax.cli import app

if __name__ == "__main__":
    sys.exit(app.main())
