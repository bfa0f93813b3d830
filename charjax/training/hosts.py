"""Several processes that train one model: how they meet, agree and stop together.

JAX's own runtime does the work; alone, every function here does next to nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from charjax.config import InputError

# Seconds to wait for the others at the start, and for a sign of life from each later on.
TIMEOUT = 120
SILENCE = 60


def join(how: str) -> None:
    """Joins the processes that train together.

    Args:
      how: `off`; `auto`, which asks the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU);
        or `address:port,count,index`, where the process of index 0 is the coordinator and
        listens at the address.

    Raises InputError for anything else, and where the others do not answer. Nothing may
    have asked JAX for devices before.
    """
    if how == "off":
        return
    options: dict[str, Any] = {
        "initialization_timeout": TIMEOUT,
        "heartbeat_timeout_seconds": SILENCE,
        # The others may never come: an error here is no reason to wait for long.
        "shutdown_timeout_seconds": 10,
    }
    if how != "auto":
        parts = how.split(",")
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            raise InputError(
                f"--distributed is {how!r}: give off, auto, or the coordinator's address, "
                "the number of processes and this one's index, as in 10.0.0.1:4321,2,0."
            )
        address, count, index = parts[0], int(parts[1]), int(parts[2])
        if ":" not in address or index >= count:
            raise InputError(
                f"--distributed is {how!r}: the address needs a port, and the index must "
                "be below the number of processes."
            )
        options |= {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": index,
        }
    try:
        jax.distributed.initialize(**options)
    except ValueError as error:
        raise InputError(
            f"--distributed is {how!r}: {error} If no cluster that JAX knows is running "
            "this process, give address:port,count,index."
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"--distributed is {how!r}: {str(error).splitlines()[0][:200]}: is the "
            f"coordinator's address right, and were all processes started within {TIMEOUT} "
            "seconds?"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes what only one may write."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns once all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(value: int) -> int:
    """The first process's value, on all."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def check_agreement(digests: Mapping[str, str]) -> None:
    """Refuses processes that do not agree; `digests` maps what it is about to a
    hexadecimal digest of it."""
    if jax.process_count() == 1:
        return
    own = np.array([[int(text[:7], 16) for text in digests.values()]], np.int32)
    found = np.asarray(multihost_utils.process_allgather(own, tiled=True))
    for column, what in enumerate(digests):
        differing = np.flatnonzero(found[:, column] != found[0, column])
        if len(differing):
            raise InputError(
                f"process {differing[0]} has another {what} than process 0: start all of "
                "them with the same options, files and directory."
            )


def preemption() -> Callable[[], bool]:
    """A `stop` for `fit`: True at the step on which all processes agree after one of them
    was asked to end (SIGTERM, or the cluster's own notice)."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return multihost_utils.reached_preemption_sync_point(asked)

    return stop
