"""Texts as they are shown, and samples.txt: what a run wrote on the way, under the steps
it wrote it at."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from charjax.storage.atomic import replacing

RULE = f"\n\n{'-' * 40}\n"
"""Between two texts."""

_HEADING = re.compile(rb"^--- step (\d{1,18}) ---$", re.MULTILINE)


def laid_out(texts: Iterable[str], documents: bool = False) -> Iterator[str]:
    """Texts one after the other as they are shown, piece by piece, with a rule between
    two. Documents are one a line, with a rule where one of the two has line ends.

    >>> print("".join(laid_out(["Ada", "Grace"], documents=True)))
    Ada
    Grace
    """
    before = None
    for text in texts:
        if before is not None:
            yield RULE if not documents or "\n" in before + text else "\n"
        yield text
        before = text


def append(path: Path, step: int, text: str) -> None:
    """Add a sample under the heading `--- step N ---`.

    A line of the sample that reads like a heading gets a space in front.
    """
    data = _HEADING.sub(rb" \g<0>", text.encode("utf-8", "backslashreplace"))
    with open(path, "ab") as file:
        file.write(b"--- step %d ---\n%s\n\n" % (step, data))


def truncate_after(path: Path, step: int) -> None:
    """Drop the samples of steps after `step`."""
    if not path.exists():
        return
    data = path.read_bytes()
    for heading in _HEADING.finditer(data):
        if int(heading[1]) > step:
            with replacing(path) as temporary:
                temporary.write_bytes(data[: heading.start()])
            return
