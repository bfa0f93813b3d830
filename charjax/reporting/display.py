"""What a person sees while something goes on: how far it is, and messages.

Nothing shown here can stop a run: characters a terminal cannot show are replaced, control
characters are spelt out, and a terminal that has gone away is ignored.
"""

import contextlib
import unicodedata
from types import TracebackType

_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Display:
    """Shows nothing; the other displays are this one with something to see."""

    def draw(self, share: float, far: str, rest: str) -> None:
        """Show how far things are: a share from 0 to 1, the same in words, and the rest."""
        with contextlib.suppress(OSError, ValueError):
            self._draw(min(share, 1.0), far, rest)

    def message(self, text: str) -> None:
        """Print text of any kind above what is drawn."""
        with contextlib.suppress(OSError, ValueError):
            self._print(text)

    def __enter__(self) -> "Display":
        with contextlib.suppress(OSError, ValueError):
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stop()

    def _start(self) -> None:
        pass

    def _draw(self, share: float, far: str, rest: str) -> None:
        pass

    def _print(self, text: str) -> None:
        pass

    def _stop(self) -> None:
        pass


def printable(text: str, encoding: str | None = "utf-8") -> str:
    """Text that is safe to show: line ends and tabs stay, other controls are spelt out.

    >>> print(printable("a\\x1b[31m \\x00"))
    a\\x1b[31m \\x00
    >>> printable("naïve", "ascii")
    'na?ve'
    """
    shown = "".join(
        c.encode("unicode_escape").decode()
        if c not in "\n\t"
        and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDIRECTIONAL)
        else c
        for c in text.replace("\r\n", "\n")
    )
    encoding = encoding or "ascii"
    return shown.encode(encoding, "replace").decode(encoding)
