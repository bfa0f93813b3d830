"""What goes wrong in Orbax and TensorStore, as one line, and without what they add to it.

When one array cannot be read or written, they abandon the others without waiting for them.
The failure itself is raised, and charjax reports it; what the abandoned work writes to
standard error, at any later time, adds nothing.
"""

import logging
import sys
import warnings
from typing import Any

_NOISE = (
    "Event loop is closed",
    "Encountered error while reading array",
    "coroutine ignored GeneratorExit",
    # An event loop for which there was no file descriptor left.
    "_ssock",
    # Whose tasks fail unseen.
    "orbax/checkpoint",
    "OCDBT",
)
_COROUTINES = r"run_sync|AsyncCheckpointer|async_serialize|async_deserialize|_read_array\w*"


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


def silence_abandoned_work() -> None:
    """Leaves all that, and nothing else, out of what Python prints from now on."""
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def unraisable_hook(found: Any) -> None:
        # Of a coroutine that was never begun, only its code tells whose it is.
        code = getattr(found.object, "cr_code", None)
        if not (_is_noise(found.exc_value) or _is_noise(getattr(code, "co_filename", ""))):
            unraisable(found)

    def uncaught_hook(kind: Any, error: Any, traceback: Any) -> None:
        # Called for the callbacks of other threads, too.
        if not _is_noise(error):
            uncaught(kind, error, traceback)

    def is_news(record: logging.LogRecord) -> bool:
        # With its traceback: a future that nobody waited for names Orbax only there.
        printed = logging.Formatter().format(record)
        return not (_is_noise(record.pathname) or _is_noise(printed))

    sys.unraisablehook, sys.excepthook = unraisable_hook, uncaught_hook
    for name in ("asyncio", "absl"):
        logging.getLogger(name).addFilter(is_news)
    warnings.filterwarnings(
        "ignore", f"coroutine '({_COROUTINES})\\b.* was never awaited", RuntimeWarning
    )


def _is_noise(found: object) -> bool:
    return any(words in str(found) for words in _NOISE)
