"""A bar on a terminal, redrawn in place; messages scroll by above it."""

import contextlib
import io
import sys
from typing import Any, TextIO

from charjax.reporting.display import Display, printable


class Terminal(Display):
    """rich's bar, on standard error; `passing` bars leave nothing behind."""

    def __init__(self, passing: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._encoding = sys.stderr.encoding
        terminal: Any = _Lenient(sys.stderr)
        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            console=Console(file=terminal, highlight=False),
            refresh_per_second=4,
            expand=True,
            transient=passing,
            # Standard output is not ours to send elsewhere.
            redirect_stdout=False,
        )
        self._task = self._bar.add_task("" if passing else "compiling", total=1.0)

    def _start(self) -> None:
        self._bar.start()

    def _draw(self, share: float, far: str, rest: str) -> None:
        self._bar.update(self._task, completed=share, description=f"{far}  {rest}")

    def _print(self, text: str) -> None:
        self._bar.console.print(
            printable(text, self._encoding),
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )

    def _stop(self) -> None:
        self._bar.stop()


class _Lenient(io.TextIOBase):
    """A terminal that drops what it cannot encode or no longer take."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding or "ascii"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
