"""samples.txt: the text a run wrote on the way, under the steps it wrote it at."""

import re
from pathlib import Path

from charjax.storage.atomic import replacing

_HEADING = re.compile(rb"^--- step (\d{1,18}) ---$", re.MULTILINE)


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
