"""What a dataset is known by: its rows and a hash of its numbers, never its path.

The same numbers under another name are the same data; other numbers under the same name are not.
How a file stores them, packed or in another order of columns, makes no difference.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from ractd_jax.data import episodes

SHOWN = 12  # digits of a hash that a message shows


class Identity(NamedTuple):
    """What a dataset is known by.

    Attributes:
        rows: of its complete episodes.
        sha256: of all their numbers.
    """

    rows: int
    sha256: str

    def __str__(self) -> str:
        """Return it as a message shows it."""
        return f"{self.rows:,} rows, sha256 {self.sha256[:SHOWN]}"


def of(recorded: episodes.Transitions) -> Identity:
    """Return the identity of complete episodes.

    Example:
        >>> zeros, ends = np.zeros((2, 1), np.float32), np.array([False, True])
        >>> recorded = episodes.Transitions(zeros, zeros, zeros[:, 0], ends, ~ends)
        >>> str(of(recorded))
        '2 rows, sha256 a3d0876b0d9a'
        >>> of(recorded) == of(recorded._replace(actions=zeros + 1))
        False
    """
    digest = hashlib.sha256()
    for name, column in recorded._asdict().items():
        digest.update(f"{name} {column.dtype.str} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).data.cast("B"))
    return Identity(len(recorded.rewards), digest.hexdigest())
