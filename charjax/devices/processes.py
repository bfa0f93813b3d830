"""Several processes that train one model: how they meet, agree and stop together.

JAX's own runtime does the work. In a single process every function here does next to
nothing.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from charjax.errors import InputError

# Seconds to wait for the others at the start, and later for a sign of life from each.
TIMEOUT = 120
SILENCE = 60

# Seconds after which a warning says that the others keep this process waiting.
_PATIENCE = 20

# Bytes of an error's message that reach the other processes.
_MESSAGE_BYTES = 1000


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


def _parsed(how: str) -> dict[str, Any]:
    parts = how.split(",")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise InputError(
            f"`distributed` is {how!r}: give off, auto, or the coordinator's address, "
            "the number of processes and this one's index, as in 10.0.0.1:4321,2,0."
        )
    address, count, index = parts[0], int(parts[1]), int(parts[2])
    port = address.rpartition(":")[2]
    if not (":" in address and port.isdecimal() and 0 < int(port) < 2**16):
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


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Either all processes come through the block or none does: where one raises, the
    others raise an InputError with its message. They must not wait for each other inside.
    """
    if jax.process_count() == 1:
        yield
        return
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    message = "" if error is None else str(error) or type(error).__name__
    reason = message.encode(errors="backslashreplace")
    own = np.frombuffer(reason[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    found = np.asarray(multihost_utils.process_allgather(own))
    if error is not None:
        raise error
    for index, padded in enumerate(found):
        if words := padded.tobytes().rstrip(b"\0").decode(errors="replace"):
            raise InputError(f"process {index} was refused: {words}")


@contextlib.contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The first process comes through the block before the others go into it; either all
    come through or none does."""
    if not is_first():
        with all_or_none():
            pass
    with all_or_none():
        yield
    if is_first():
        with all_or_none():
            pass


@contextlib.contextmanager
def leaving_together(*errors: type[Exception]) -> Iterator[None]:
    """No process goes on until all have left the block, be it by one of these errors,
    which all raise or none."""
    try:
        yield
    except errors:
        wait("left")
        raise
    wait("left")


def check_agreement(values: Mapping[str, str]) -> None:
    """Refuses processes that do not agree; `values` maps what it is about to any text."""
    if jax.process_count() == 1:
        return
    hashes = [hashlib.sha256(value.encode()).digest()[:4] for value in values.values()]
    own = np.frombuffer(b"".join(hashes), np.int32)[None]
    found = np.asarray(multihost_utils.process_allgather(own, tiled=True))
    for column, what in enumerate(values):
        differing = np.flatnonzero(found[:, column] != found[0, column])
        if len(differing):
            raise InputError(
                f"process {differing[0]} has another {what} than process 0: start all of "
                "them with the same options, files and directory."
            )


@contextlib.contextmanager
def warning_of_silence() -> Iterator[None]:
    """For what waits for the other processes: a warning where that takes long.

    Where one of them died, the runtime may leave the others waiting until `SILENCE`
    seconds have passed, and then ends them with a report of its own.
    """
    if jax.process_count() == 1:
        yield
        return
    line = (
        f"warning: no step has ended for {_PATIENCE} seconds: if another process died, "
        f"this one ends {SILENCE} seconds after its last sign of life; start all of them "
        "again, and the run goes on from its last checkpoint."
    )
    timer = threading.Timer(_PATIENCE, print, [line], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error may come from another process that is gone."""
    return isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1


def preemption(
    interrupted: Callable[[], bool], heed_notices: Callable[[], None]
) -> Callable[[], bool]:
    """A `stop` for `fit`: True at the step on which all processes agree after one of them
    was asked to end: by SIGTERM, the cluster's own notice, or `interrupted` saying so.
    `heed_notices` is what `join` returned."""
    asked, passed_on = 0, False

    def stop() -> bool:
        nonlocal asked, passed_on
        if not asked:
            heed_notices()
        asked += 1
        if interrupted() and not passed_on:
            # What the runtime takes for a notice.
            signal.raise_signal(signal.SIGTERM)
            passed_on = True
        return multihost_utils.reached_preemption_sync_point(asked)

    return stop
