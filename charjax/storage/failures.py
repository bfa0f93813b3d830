"""What goes wrong in Orbax and TensorStore, as one line."""

import contextlib
import gc
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def attempt(action: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `action` returns and None, or None and the reason for which it failed."""
    with _abandoned_work_silenced():
        try:
            return action(), None
        except Exception as error:
            reason = reason_for(error)
    # Outside the except clause, so that the traceback keeps no read or write alive.
    let_abandoned_work_end()
    return None, reason


def let_abandoned_work_end() -> None:
    """Gives what a failure left under way the time to end, without its complaints."""
    with _abandoned_work_silenced():
        gc.collect()
        time.sleep(0.2)
        gc.collect()


def reason_for(error: BaseException) -> str:
    """The first line of the error at the bottom of a chain, shortened.

    >>> reason_for(ValueError("no such array\\nSee the following pages"))
    'no such array'
    """
    while cause := error.__cause__ or error.__context__:
        error = cause
    line = (str(error).splitlines() or [""])[0]
    line = " ".join(line.split())
    # The reason may stand at the end, after a long path.
    shown = line if len(line) <= 400 else f"{line[:200]} ... {line[-200:]}"
    return shown or type(error).__name__


@contextlib.contextmanager
def _abandoned_work_silenced() -> Iterator[None]:
    # When one array cannot be read or written, Orbax abandons the others without
    # waiting for them, and each one that fails later prints pages on standard error.
    def hook(unraisable: Any) -> None:
        noise = (
            "Event loop is closed",
            "Encountered error while reading array",
            "coroutine ignored GeneratorExit",
            # An event loop for which there was no file descriptor left.
            "_ssock",
        )
        if not any(words in str(unraisable.exc_value) for words in noise):
            shown(unraisable)

    asyncio_log = logging.getLogger("asyncio")
    shown, level = sys.unraisablehook, asyncio_log.level
    sys.unraisablehook = hook
    asyncio_log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited")
            yield
    finally:
        sys.unraisablehook = shown
        asyncio_log.setLevel(level)
