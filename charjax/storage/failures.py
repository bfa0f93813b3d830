"""What goes wrong in Orbax and TensorStore, as one line."""

import contextlib
import gc
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def attempt(
    action: Callable[[], Any],
    let_pass: Callable[[BaseException], bool] = lambda error: False,
) -> tuple[Any, str | None]:
    """What `action` returns and None, or None and the reason for which it failed; errors
    that `let_pass` says are raised."""
    with abandoned_work_silenced():
        try:
            return action(), None
        except Exception as error:
            if let_pass(error):
                raise
            reason = reason_for(error)
    # Outside the except clause, so that the traceback keeps no read or write alive.
    let_abandoned_work_end()
    return None, reason


def let_abandoned_work_end() -> None:
    """Gives what a failure left under way the time to end, without its complaints."""
    with abandoned_work_silenced():
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


# What Orbax and TensorStore complain of after a failure that has been told: when one array
# cannot be read or written, the others are abandoned without waiting for them.
_NOISE = (
    "Event loop is closed",
    "Encountered error while reading array",
    "coroutine ignored GeneratorExit",
    # An event loop for which there was no file descriptor left.
    "_ssock",
)


class _Silence:
    """Hooks that leave out the noise, in place while anyone of several threads asks."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._install()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._before.close()

    def _install(self) -> None:
        shown, printed, log = (
            sys.unraisablehook,
            sys.excepthook,
            logging.getLogger("asyncio"),
        )

        def unraisable_hook(unraisable: Any) -> None:
            if not _is_noise(unraisable.exc_value):
                shown(unraisable)

        def exception_hook(kind: Any, error: Any, traceback: Any) -> None:
            # Called for the callbacks of other threads, too.
            if not _is_noise(error):
                printed(kind, error, traceback)

        self._before.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        for owner, name, new in (
            (sys, "unraisablehook", unraisable_hook),
            (sys, "excepthook", exception_hook),
        ):
            self._before.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, new)
        self._before.callback(log.setLevel, log.level)
        log.setLevel(logging.CRITICAL)


abandoned_work_silenced = _Silence()


def _is_noise(error: object) -> bool:
    return any(words in str(error) for words in _NOISE)
