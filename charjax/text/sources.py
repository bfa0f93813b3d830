"""Where a text comes from: memory, the built-in text, a named download, or paths."""

import difflib
import glob
import os
import platform
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import builtin, downloads
from charjax.text.watch import Watch, silent

# Bytes read from a file at a time; this bounds the memory of everything downstream.
CHUNK_BYTES = 4 * 2**20

# What a run's config has as the source of a text that was given in memory.
IN_MEMORY = "memory"

_AGAIN = "a text is read twice, and again by a later start; save it to a file and give that"

# Paths that mean another file in every process.
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")

# What other commands take for it.
_STANDARD_INPUT = "-"

NAMES = (builtin.NAME, builtin.NAMES, *downloads.DOWNLOADS)

Origin = str | bytes | tuple[Path, ...]
"""A text in memory, or the files to read one after the other."""


def locate(
    data: DataConfig, text: str | bytes | None = None, watch: Watch = silent
) -> tuple[Origin, tuple[str, ...]]:
    """Where to read a text, and the names of its sources.

    `text` is a text in memory, which takes the place of `data.source`. Raises InputError
    for what is not there.
    """
    if text is not None:
        if not isinstance(text, str | bytes):
            raise InputError(
                f"`text` is of type {type(text).__name__}: give a str or bytes, or None to "
                "read data.source."
            )
        return text, ("text in memory",)
    if data.sources == (builtin.NAME,):
        name = f"{builtin.NAME} (Python {platform.python_version()})"
        return builtin.python_reference(), (name,)
    if data.sources == (builtin.NAMES,):
        return builtin.names(), (builtin.NAMES,)
    paths = files(data.sources, watch)
    return paths, tuple(map(str, paths))


def size(origin: Origin) -> int:
    """The bytes of all files; 0 for a text in memory."""
    paths = origin if isinstance(origin, tuple) else ()
    return sum(path.stat().st_size for path in paths if path.exists())


def files(sources: tuple[str, ...], watch: Watch = silent) -> tuple[Path, ...]:
    """The regular files that `data.source` stands for, in reading order.

    A name is downloaded unless it was before. A directory stands for its `*.txt` files,
    including those of its subdirectories, sorted by path, and a pattern such as `*.txt` or
    `books/**/*.txt` for what it matches, sorted too. A name wins over a path that is spelt
    the same, write `./anna` for the path, and a path over a pattern. Raises InputError for
    whatever is missing, has no text or is not a regular file, and for an address.
    """
    named = [source for source in sources if source in NAMES]
    if named and len(sources) > 1:
        raise InputError(
            f"data.source is {' '.join(sources)!r}: {named[0]} is the name of a text and "
            f"stands alone; for a file of that name write ./{named[0]}."
        )
    if named:
        return (downloads.fetch(named[0], watch),)
    return tuple(path for source in sources for path in _expand(source))


def absolute(sources: tuple[str, ...]) -> list[str]:
    """Paths that mean the same from any folder, now and later: a pattern becomes the files
    that it matches. Names stay names, and so does `IN_MEMORY`.

    >>> absolute(("anna",))
    ['anna']
    """
    found: list[str] = []
    for source in sources:
        if source in (*NAMES, IN_MEMORY, _STANDARD_INPUT) or _is_address(source):
            found.append(source)
        else:
            paths = _matching(source) or [Path(os.path.expanduser(source))]
            found.extend(str(path.absolute()) for path in paths)
    return found


def _expand(source: str) -> Iterator[Path]:
    if _is_address(source):
        raise InputError(
            f"data.source is {source!r}: this is an address, and a text is read from "
            f"files, which stay the same: download it (curl -LO {source!r}) and give the "
            "file."
        )
    if source == _STANDARD_INPUT:
        raise InputError(
            f"data.source is {source!r}: standard input is there only once, and {_AGAIN}; "
            f"for a file of that name write ./{source}."
        )
    if (matching := _matching(source)) is not None:
        for path in matching:
            yield from _expand_path(str(path))
        return
    yield from _expand_path(source)


def _is_address(source: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def _matching(source: str) -> list[Path] | None:
    """What a pattern matches; None if it is a path, or matches nothing."""
    pattern = os.path.expanduser(source)
    if not glob.has_magic(pattern) or "\0" in pattern or os.path.lexists(pattern):
        return None
    return [Path(path) for path in sorted(glob.glob(pattern, recursive=True))] or None


def _expand_path(source: str) -> Iterator[Path]:
    path = Path(os.path.expanduser(source))
    try:
        mode = path.stat().st_mode
        check_stays(path, f"data.source is {source!r}")
    except FileNotFoundError:
        close = difflib.get_close_matches(source, NAMES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        missing = "there is no such file or directory, and no text of that name"
        if glob.has_magic(source):
            missing = "no file matches this pattern, and none has this name"
        raise InputError(
            f"data.source is {source!r}: {missing}.{hint} The names are {', '.join(NAMES)}."
        ) from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    if stat.S_ISREG(mode):
        yield path
        return
    # Walked to its end first, so that no unreadable subdirectory is passed over.
    found = sorted(_walk(path))
    if not found:
        raise InputError(
            f"data.source is {source!r}: this directory has no *.txt file; give the "
            "files by name."
        )
    yield from found


def is_stream(path: Path) -> bool:
    """Whether a path means a file that this process has open, as /dev/stdin does.

    >>> is_stream(Path("/dev/stdin")), is_stream(Path("stdin"))
    (True, False)
    """
    return str(path.absolute()).startswith(_STREAMS)


def check_stays(path: Path, subject: str) -> None:
    """Refuses what is there only once: pipes, devices, and files by way of a stream.

    `subject` is the field and its value. Raises OSError where nothing is there.
    """
    mode = path.stat().st_mode
    lasting = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    if not lasting or is_stream(path):
        raise InputError(
            f"{subject}: this is not a regular file but a pipe, socket or device, and "
            f"{_AGAIN}."
        )


def _walk(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(error.filename, error)

    for folder, _, names in os.walk(directory, onerror=refuse):
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".txt" and path.is_file():
                yield path


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, CHUNK_BYTES at a time; InputError if it cannot be read."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _unreadable(source: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"data.source is {source!r}: it cannot be read ({reason}); check the path and its "
        "permissions."
    )
