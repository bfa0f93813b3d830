"""How processes that train together meet: by a cluster's means, or at an address.

JAX's own runtime does the work.
"""

import ctypes
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import jax

from charjax.devices.backend import require_devices
from charjax.devices.processes import SILENCE, all_or_none
from charjax.errors import InputError

# Seconds to wait for the others.
TIMEOUT = 120


def join(how: str) -> Callable[[], None]:
    """Joins the processes that train together.

    Args:
      how: `off`; `auto`, which asks the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU);
        or `address:port,count,index`, where the process of index 0 is the coordinator and
        listens at the address.

    Returns what makes SIGTERM a notice to all of them, for `preemption`. Until that is
    called it does what it did before.

    Raises InputError for anything else, and where the processes differ in their number of
    devices. Where the others do not answer within `TIMEOUT` seconds it says so and ends
    this process with 2; JAX's own runtime would end it with a stack trace. Nothing may
    have asked JAX for devices before.
    """
    if how == "off":
        return lambda: None
    # Without it no process would learn of a preemption.
    jax.config.update("jax_enable_preemption_service", True)
    options: dict[str, Any] = {
        "initialization_timeout": 2 * TIMEOUT,
        "heartbeat_timeout_seconds": SILENCE,
        # The others may never come: an error here is no reason to wait for long.
        "shutdown_timeout_seconds": 10,
    }
    if how != "auto":
        options |= _parsed(how)
    patience = threading.Timer(TIMEOUT, _give_up, [how])
    patience.daemon = True
    patience.start()
    before = _sigterm_handler()
    try:
        jax.distributed.initialize(**options)
        notice = _sigterm_handler()
        # JAX's handler would swallow it until training asks.
        _set_sigterm_handler(before)
        _meet()
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        reason = str(error)[:200].partition("\n")[0].rstrip(".")
        advice = (
            ": if no cluster that JAX knows is running this process, give "
            "address:port,count,index"
        )
        raise InputError(
            f"`distributed` is {how!r}: {reason}{advice if how == 'auto' else ''}."
        ) from error
    finally:
        patience.cancel()
    return lambda: _set_sigterm_handler(notice)


def _meet() -> None:
    require_devices()
    counts = [0] * jax.process_count()
    for device in jax.devices():
        counts[device.process_index] += 1
    if len(set(counts)) > 1:
        raise InputError(
            f"the processes have {', '.join(map(str, counts))} devices: give each the same "
            "number."
        )
    # Now, while all are at the same place: gloo does not wait long for a first meeting.
    with all_or_none():
        pass


def _is_count(text: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None


def _parsed(how: str) -> dict[str, Any]:
    parts = how.split(",")
    if len(parts) != 3 or not (_is_count(parts[1]) and _is_count(parts[2])):
        raise InputError(
            f"`distributed` is {how!r}: give off, auto, or the coordinator's address, "
            "the number of processes and this one's index, as in 10.0.0.1:4321,2,0."
        )
    address, count, index = parts[0], int(parts[1]), int(parts[2])
    port = address.rpartition(":")[2]
    if not (":" in address and _is_count(port) and 0 < int(port) < 2**16):
        raise InputError(
            f"`distributed` is {how!r}: the address needs a port from 1 to 65535, as in "
            "10.0.0.1:4321,2,0."
        )
    if index >= count:
        raise InputError(
            f"`distributed` is {how!r}: the index counts from 0 and must be below the "
            "number of processes."
        )
    if index == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise InputError(
                f"`distributed` is {how!r}: this process cannot listen at port {port} "
                f"({error.strerror}): is another run still going? Give another port to all."
            ) from error
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
    }


# Handlers in C, which Python's signal module does not show. JAX's runtime has one.


def _sigterm_handler() -> int | None:
    get = ctypes.pythonapi.PyOS_getsig
    get.restype = ctypes.c_void_p
    return get(ctypes.c_int(signal.SIGTERM))


def _set_sigterm_handler(handler: int | None) -> None:
    put = ctypes.pythonapi.PyOS_setsig
    put.restype = ctypes.c_void_p
    put(ctypes.c_int(signal.SIGTERM), ctypes.c_void_p(handler))


def _give_up(how: str) -> None:
    line = (
        f"error: --distributed is {how!r}: after {TIMEOUT} seconds not all processes have "
        "met: is the coordinator's address right, can all reach it, and were all of them "
        "started, each with its own index?\n"
    )
    os.write(2, line.encode())
    os._exit(2)
