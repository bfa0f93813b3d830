"""Plain lines on standard error now and then, where it leads to a file or a pipe."""

import sys
import time

from charjax.reporting.display import Display, printable


class Lines(Display):
    """A line for each twentieth of the way, some seconds apart, or each half minute."""

    def __init__(self, apart: float) -> None:
        self._apart = apart
        self._shown: tuple[float, float] | None = None

    def _draw(self, share: float, far: str, rest: str) -> None:
        now = time.monotonic()
        if self._shown is not None and share < 1:
            then, before = self._shown
            if now - then < (30 if 0 <= share - before < 0.05 else self._apart):
                return
        self._shown = now, share
        self._print(f"{far} ({int(100 * share)}%)  {rest}")

    def _print(self, text: str) -> None:
        print(printable(text, sys.stderr.encoding), file=sys.stderr, flush=True)
