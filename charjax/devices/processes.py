"""Several processes that train one model: how they agree and stop together.

JAX's own runtime does the work. In a single process each function here does next to
nothing.
"""

import contextlib
import hashlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from charjax.errors import InputError

# Seconds without a sign of life after which a process counts as dead.
SILENCE = 60

# Seconds after which a warning says that the others keep this process waiting.
_PATIENCE = 20

# Bytes of an error's message that reach the other processes.
_MESSAGE_BYTES = 1000


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
    """The first process runs the block before the others do; either all come through or
    none does."""
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
    """No process goes on until all have left the block, normally or by one of these errors,
    which all of them raise or none."""
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
    `heed_notices` is what `meeting.join` returned."""
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
