"""Ctrl-C while `fit` trains: noted, and acted on where nothing can be lost by it.

An exception in the middle of a step would lose everything: the state before it has been
given away, and the one after it does not exist yet.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Literal

import jax

from charjax.config.checks import refuse
from charjax.reporting.notebook import shell

OnInterrupt = Literal["return", "raise"]


class Interruption:
    """SIGINT (Ctrl-C, or a notebook's button) while `fit` runs.

    It raises KeyboardInterrupt at once, as ever. Once `stop` has been called, the first
    one makes it return True instead, and the second one raises.
    """

    def __init__(self) -> None:
        self.received = self._asked = False

    def stop(self) -> bool:
        """Whether training is to end here."""
        self._asked = True
        return self.received

    def handle(self, number: int, frame: Any) -> None:
        """What Python calls, between two instructions of the main thread."""
        if self.received or not self._asked:
            signal.default_int_handler(number, frame)
        self.received = True
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after this step; again to stop now\n")


@contextlib.contextmanager
def noted() -> Iterator[Interruption]:
    """Notes SIGINT instead of raising KeyboardInterrupt amid a step.

    Only on the main thread, where Python's own handler is in place, and in a process that
    trains alone: another handler belongs to somebody else, and of several processes all
    must stop at the same step.
    """
    interruption = Interruption()
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        or jax.process_count() > 1
    ):
        yield interruption
        return
    signal.signal(signal.SIGINT, interruption.handle)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_cell_stopped = False


def check_cell() -> None:
    """Raises KeyboardInterrupt where an interrupt has ended an earlier fit of this cell of
    a notebook: it was meant for the cell."""
    if _cell_stopped and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt(
            "the fit before this one was interrupted; with on_interrupt='return' the next "
            "one in the same cell begins all the same"
        )


def stop_cell() -> None:
    """Until the cell has ended, `check_cell` raises."""
    global _cell_stopped
    events = getattr(shell(), "events", None)
    if events is None:
        return

    def ended() -> None:
        global _cell_stopped
        _cell_stopped = False
        events.unregister("post_execute", ended)

    _cell_stopped = True
    events.register("post_execute", ended)


def resolved(on_interrupt: OnInterrupt | None) -> OnInterrupt:
    """What `fit` does once it has stopped: in IPython it returns, elsewhere it raises."""
    if on_interrupt not in ("return", "raise", None):
        refuse("`on_interrupt`", on_interrupt, "expected 'return', 'raise' or None")
    return on_interrupt or ("raise" if shell() is None else "return")


def exception(result: Any) -> KeyboardInterrupt:
    """What a `fit` that was interrupted raises: it carries what would be returned."""
    # No class of our own: Python and the shell above it know this very one.
    error: Any = KeyboardInterrupt(
        f"stopped after step {int(result.state.step):,}; the result of fit is in .result"
        + (f", and the run in {result.workdir}" if result.workdir else "")
    )
    error.result = result
    return error
