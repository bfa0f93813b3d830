"""Plain lines now and then, where standard error is a file or a pipe."""

import sys
import time

from charjax.reporting.display import Display, Lenient, printable


class Lines(Display):
    """A line each twentieth of the way, but some seconds apart, and each half minute."""

    def __init__(self, apart: float) -> None:
        self._apart, self._stream = apart, Lenient(sys.stderr)
        self._shown: tuple[float, float] | None = None

    def draw(self, share: float, far: str, rest: str) -> None:
        now = time.monotonic()
        if self._shown is not None and share < 1:
            then, before = self._shown
            if now - then < (30 if 0 <= share - before < 0.05 else self._apart):
                return
        self._shown = now, share
        self.message(f"{far} ({int(100 * share)}%)  {rest}")

    def message(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)
