"""`python -m ractd_jax` does what `main.py` and the command `ractd` do."""

import sys

from ractd_jax.cli import app

if __name__ == "__main__":
    sys.exit(app.main())
