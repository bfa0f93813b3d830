"""metrics.jsonl: one JSON object per line, for scripts and for the curves."""

import json
import math
import os
from pathlib import Path
from typing import Any

from charjax.errors import InputError
from charjax.storage.atomic import replacing


class MetricsFile:
    """A metrics file to append to; a context manager.

    Each line is in the file when `write` returns. One that could not be written is kept,
    and tried again with the next. JSON has no NaN and no infinities: they are null.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._waiting = b""

    def write(self, **fields: Any) -> None:
        """Append one line. Values may be numbers, NumPy and JAX scalars, and strings."""
        line = json.dumps({name: _plain(value) for name, value in fields.items()})
        self._waiting += line.encode() + b"\n"
        self._flush()

    def sync(self) -> None:
        """Bring all lines to the disk."""
        self._flush()
        os.fsync(self._file.fileno())

    def _flush(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._flush()
        except OSError:
            # Not in place of the error that is on its way.
            if error is None:
                raise
        finally:
            self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; empty if there is no file.

    A last line without its end, left by a run that was killed, is ignored. Raises
    InputError for any other line that is not a JSON object.
    """
    return [json.loads(line) for line in _whole_lines(path)]


def truncate_after(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and a last line that is half written."""
    if not path.exists():
        return
    kept = [line for line in _whole_lines(path) if json.loads(line).get("step", 0) <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8", newline="\n")


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    # Not splitlines, which also splits at characters that may stand in a string.
    data = path.read_bytes().split(b"\n")
    lines = []
    for number, line in enumerate(data[:-1], start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        # What everything that reads a line relies on.
        if (
            not isinstance(values, dict)
            or type(values.get("step", 0)) is not int
            or not isinstance(values.get("split", ""), str)
        ):
            raise InputError(
                f"{path}, line {number}, is damaged: delete this line, or start over "
                "with `fresh=True`."
            )
        lines.append(line.decode() + "\n")
    return lines


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
