"""What a person sees while something goes on: how far it is, and messages.

Nothing here can stop a run: characters that a terminal cannot show are replaced, control
characters are escaped, and a terminal that has gone away is ignored.
"""

import contextlib
import io
import unicodedata
from typing import Any, TextIO

_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Display:
    """Shows nothing; the other displays are this one with something to see."""

    def draw(self, share: float, far: str, rest: str) -> None:
        """Show how far things are: a share from 0 to 1, the same in words, and the rest."""

    def message(self, text: str) -> None:
        """Print text of any kind above what is drawn."""

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class Lenient(io.TextIOBase):
    """A stream that replaces what it cannot encode, and drops what it cannot write."""

    def __init__(self, stream: TextIO, errors: str = "replace") -> None:
        self._stream, self._errors = stream, errors

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._stream.encoding or "ascii"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            shown = text.encode(self.encoding, self._errors).decode(self.encoding)
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


def printable(text: str) -> str:
    """Text that is safe to show: line ends and tabs stay, other controls are escaped.

    >>> print(printable("a\\x1b[31m \\x00"))
    a\\x1b[31m \\x00
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if c not in "\n\t"
        and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDIRECTIONAL)
        else c
        for c in text.replace("\r\n", "\n")
    )
