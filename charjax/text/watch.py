"""How far long work is, told to whoever shows it."""

from collections.abc import Callable

Watch = Callable[[str, int, int], None]
"""Called with what is being done, and how many bytes (of texts that are written,
characters) of how many are done; the latter is 0 where it is not known."""


def silent(what: str, done: int, total: int) -> None:
    """The watch that shows nothing."""


def counter(watch: Watch, what: str, total: int) -> Callable[[int], None]:
    """A function that is called with the size of each piece, and tells the watch the sum.

    >>> advance = counter(print, "reading", 30)
    >>> advance(10), advance(20)
    reading 10 30
    reading 30 30
    (None, None)
    """
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        watch(what, done, total)

    return advance
