"""Several processes that train one model together, on one machine or on many (`jax.distributed`).

Every process runs the same program on the same files; the devices of all share each batch. Only the
first one writes and speaks. With a single process, the usual case, nothing here does anything.
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from ractd_jax.errors import UserError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join(detect: bool = False) -> None:
    """Meet the other processes, if the environment or the user says that there are any.

    `JAX_COORDINATOR_ADDRESS=<host>:<port>`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say so by
    hand.

    Args:
        detect: ask the cluster (Slurm, Open MPI, Kubernetes, TPU), as JAX does.

    Raises:
        UserError: the words are no numbers, or the processes do not find each other.
    """
    if not detect and ADDRESS not in os.environ:
        return
    try:
        count, index = (
            int(os.environ[name]) if name in os.environ else None for name in (COUNT, INDEX)
        )
        jax.distributed.initialize(num_processes=count, process_id=index)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the processes do not find each other: {str(error).splitlines()[0]}; {ADDRESS}, "
            f"{COUNT} and {INDEX} say where, how many and which"
        ) from error


def several() -> bool:
    """Return whether there is more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Return whether this process is the one that writes."""
    return jax.process_index() == 0


def meet(where: str) -> None:
    """Wait until every process is here: what one has written before, all can read afterwards."""
    if several():
        multihost_utils.sync_global_devices(where)


def any_of(flag: bool) -> bool:
    """Return whether the flag is up in any process; all must ask."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag)))) if several() else flag
