"""What charjax raises of its own, and words that many messages share."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong usage, config or input: the commands print it as one short line and exit 2.

    The message names the field or file, the value found and the remedy. Arguments stand
    in backquotes, as `workdir` or `fresh=True`; the commands print --workdir and --fresh.
    """


class DirectoryGone(OSError):
    """The directory of a run was renamed or deleted while it trained."""


class OutOfMemory(MemoryError):
    """Too little memory, where it is known what would help."""


class Diverged(RuntimeError):
    """Update after update was skipped; the last checkpoint is from before them."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The closest known name, or all of them.

    >>> suggestion("ana", ["anna", "default"]), suggestion("x", ["anna", "default"])
    ('did you mean anna?', 'known are anna, default.')
    """
    close = difflib.get_close_matches(name, known := list(known), n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."


def listed(items: Iterable[object], word: str) -> str:
    """Several things in a row, at least one.

    >>> listed([1, 2, 4], "or"), listed([1], "or")
    ('1, 2 or 4', '1')
    """
    *others, last = map(str, items)
    return f"{', '.join(others)} {word} {last}" if others else last


def counted(number: int, plural: str) -> str:
    """A number of things.

    >>> counted(1, "devices"), counted(1600, "steps")
    ('1 device', '1,600 steps')
    """
    return f"{number:,} {plural.removesuffix('s') if number == 1 else plural}"
