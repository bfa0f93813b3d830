"""Text as a command takes it and prints it: with escapes, from a file, on any stream."""

import dataclasses
import re
import sys
from pathlib import Path

from charjax.errors import InputError
from charjax.sampling.options import SamplingOptions
from charjax.text.sources import is_stream


def unescaped(options: SamplingOptions) -> SamplingOptions:
    """The options with line ends and tabs in what they say in text."""
    texts = {}
    for name in ("ban", "allow", "stop"):
        given = getattr(options, name)
        if isinstance(given, str):
            texts[name] = plain(given)
        elif given is not None:
            texts[name] = plain(given[0]) if len(given) == 1 else tuple(map(plain, given))
    return dataclasses.replace(options, **texts)


def plain(text: str) -> str:
    """Text in which \\n, \\t and \\\\ stood for a line end, a tab and a backslash."""
    escapes = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
    return re.sub(r"\\[nt\\]", lambda found: escapes[found[0]], text)


def text_of_file(option: str, path: Path) -> str:
    """What a file holds, in UTF-8. Raises InputError, with the option's name, if it
    cannot be read."""
    try:
        # Nobody may ever write to a named pipe. One that is open already is read, such as
        # /dev/stdin or a shell's <(command).
        if not path.is_fifo() or is_stream(path):
            return path.read_text("utf-8-sig")
        problem = "it is a pipe; give a file, or /dev/stdin"
    except OSError as error:
        problem = error.strerror
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 at byte {error.start}"
    raise InputError(f"{option} is {path}: {problem}.")


def write(text: str) -> None:
    """To standard output: UTF-8 to a file or pipe, what a terminal can show to it."""
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    else:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
    sys.stdout.flush()
