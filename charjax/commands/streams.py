"""Standard streams as a command can rely on them, whatever was done to them before."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from charjax.reporting.display import Lenient

# Opened the wrong way round but for the last: what is read or written fails, and what is
# told to nobody is dropped.
_IN_THEIR_PLACE = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)


@contextlib.contextmanager
def reliable() -> Iterator[None]:
    """Makes closed streams harmless, and says it where a result could not be written.

    A file opened later would otherwise get the number of a closed stream, and be written
    to by whatever writes there. Messages that cannot be shown stop nothing.
    """
    for number, way in enumerate(_IN_THEIR_PLACE):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)
    with contextlib.ExitStack() as stack:
        if sys.stdout is None:
            stack.enter_context(contextlib.redirect_stdout(_Closed()))
        elif isinstance(output := sys.stdout, io.TextIOWrapper):
            # Names of files may hold what its encoding lacks.
            stack.callback(output.reconfigure, errors=output.errors)
            output.reconfigure(errors="backslashreplace")
        errors = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
        stack.enter_context(contextlib.redirect_stderr(Lenient(errors, "backslashreplace")))
        yield


class _Closed(io.TextIOBase):
    """Standard output where there is none; the same for bytes."""

    encoding = "utf-8"  # pyright: ignore

    @property
    def buffer(self) -> "_Closed":
        return self

    def write(self, data: object) -> int:
        raise OSError("standard output is closed: lead it to a file, a pipe or /dev/null.")
