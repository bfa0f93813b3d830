"""Where text comes from: built into Python, paths, or a named download."""

import contextlib
import dataclasses
import difflib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charjax.errors import InputError

BUILT_IN = "python-reference"

# Bytes read from a file at a time; what bounds the memory of everything downstream.
CHUNK_BYTES = 4 * 2**20


@dataclasses.dataclass(frozen=True)
class Download:
    """A public text: its address, its name in the cache, and its checksums.

    `checksum` is of the text itself, as "algorithm:hex digest". Where the address is a
    zip archive with the text as a member of the same name, `archive_checksum` is the
    archive's, so nothing unverified is ever unpacked.
    """

    description: str
    url: str
    filename: str
    checksum: str
    archive_checksum: str | None = None


_GITHUB = "https://raw.githubusercontent.com"

DOWNLOADS = {
    "tinyshakespeare": Download(
        "1.1 MB of Shakespeare's plays, as in char-rnn",
        f"{_GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "tinyshakespeare.txt",
        "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "anna": Download(
        "2 MB, Tolstoy's Anna Karenina in English",
        f"{_GITHUB}/udacity/deep-learning-v2-pytorch/master"
        "/recurrent-neural-networks/char-rnn/data/anna.txt",
        "anna.txt",
        "sha256:568bb39fc78aca98e9db91c4329dcd1aa5ec4c3df3aca2064ce5d6f023ae16c9",
    ),
    "mysterious-island": Download(
        "1.2 MB, Verne's The Mysterious Island in English, from Project Gutenberg",
        f"{_GITHUB}/rasbt/machine-learning-book/main/ch15/1268-0.txt",
        "mysterious_island.txt",
        "sha256:355bfdc3f9b5e384b1918e817dd086ce0df97f4d294c69f032fb70b95c1e737c",
    ),
    "enwik8": Download(
        "the first 100 MB of the English Wikipedia's XML dump of 2006",
        "https://mattmahoney.net/dc/enwik8.zip",
        "enwik8",
        "sha256:2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
        "sha256:547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    ),
    "text8": Download(
        "100 MB of Wikipedia reduced to 26 letters and the space",
        "https://mattmahoney.net/dc/text8.zip",
        "text8",
        "md5:3bea1919949baf155f99411df5fada7e",
        "sha256:a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    ),
}

# What a run's config says of a text that was given as such.
IN_MEMORY = "memory"

NAMES = {BUILT_IN: "0.4 MB, Python's own language reference, which ships with Python"} | {
    name: download.description for name, download in DOWNLOADS.items()
}


def cache_directory() -> Path:
    """Where downloads and token caches lie: $CHARJAX_CACHE_DIR, or the user's cache folder.

    The folder need not exist.
    """
    if chosen := os.environ.get("CHARJAX_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("charjax"))


def python_reference() -> str:
    """Python's language reference as one text, about 0.4 MB, for any Python the same kind.

    Many topics quote one another, so every paragraph that occurred before is dropped:
    otherwise the end, where validation is cut, could be recited from the start. Sections
    are in the order of the SHA-256 of their headings, so that the end is like the rest
    though a few topics are a quarter of all.
    Raises InputError where the Python at hand came without its documentation.

    >>> "while_stmt ::=" in " ".join(python_reference().split())
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputError(
            f"data.source is {BUILT_IN!r}, but this Python came without the module "
            "pydoc_data.topics: install Python's documentation package (python3-doc or "
            "libpython3-stdlib), or give a text of your own."
        ) from None
    sections = [
        section
        for name in sorted(topics)
        for section in _sections(re.split(r"\n\s*\n", topics[name].strip("\n")))
    ]
    sections.sort(key=lambda section: hashlib.sha256(section[0].encode()).digest())
    seen: set[str] = set()
    kept: list[str] = []
    for section in sections:
        paragraphs = [paragraph.rstrip() for paragraph in section]
        fresh: list[bool] = []
        for paragraph in paragraphs:
            fresh.append(paragraph not in seen)
            seen.add(paragraph)
        kept.append(_without_orphans(paragraphs, fresh))
    return "\n\n\n".join(section for section in kept if section) + "\n"


def _sections(paragraphs: list[str]) -> Iterator[list[str]]:
    """Paragraphs cut before each heading."""
    starts = [0, *(k for k, text in enumerate(paragraphs) if k and _is_heading(text))]
    for start, stop in zip(starts, [*starts[1:], len(paragraphs)], strict=True):
        yield paragraphs[start:stop]


def _is_heading(paragraph: str) -> bool:
    lines = paragraph.split("\n")
    return len(lines) == 2 and re.fullmatch(r"([*=~^-])\1+", lines[1]) is not None


def _without_orphans(paragraphs: list[str], fresh: list[bool]) -> str:
    """The fresh paragraphs, less the headings and lead-ins that have lost what follows."""
    kept: list[str] = []
    section_has_text = following_kept = False
    for paragraph, new in zip(reversed(paragraphs), reversed(fresh), strict=True):
        if _is_heading(paragraph):
            keep, section_has_text = section_has_text, False
        else:
            # "For example:" recurs in front of fresh examples and gives nothing away.
            lead_in = "\n" not in paragraph and paragraph.endswith(":")
            keep = following_kept if lead_in else new
            section_has_text |= keep
        following_kept = keep
        if keep:
            kept.append(paragraph)
    return "\n\n".join(reversed(kept))


def is_built_in(sources: tuple[str, ...]) -> bool:
    """Whether the text is the built-in one, which has no file.

    >>> is_built_in(("python-reference",)), is_built_in(("anna",))
    (True, False)
    """
    return sources == (BUILT_IN,)


def files(sources: tuple[str, ...]) -> tuple[Path, ...]:
    """The regular files that `data.source` stands for, in reading order.

    A name is downloaded unless it was before. A directory stands for its `*.txt` files,
    those of its subdirectories too, sorted by path. A name wins over a path that is
    spelt the same; write `./anna` for the path. Raises InputError for whatever is
    missing, empty of text or no regular file.
    """
    named = [source for source in sources if source in NAMES]
    if named and len(sources) > 1:
        raise InputError(
            f"data.source is {' '.join(sources)!r}: {named[0]} is the name of a text and "
            f"stands alone; for a file of that name write ./{named[0]}."
        )
    if named:
        return (fetch(DOWNLOADS[named[0]]),)
    return tuple(path for source in sources for path in _expand(source))


def absolute(sources: tuple[str, ...]) -> list[str]:
    """Paths that mean the same from any folder; names stay names, `IN_MEMORY` too.

    >>> absolute(("anna",))
    ['anna']
    """
    return [
        source
        if source in (*NAMES, IN_MEMORY)
        else str(Path(source).expanduser().absolute())
        for source in sources
    ]


def _expand(source: str) -> Iterator[Path]:
    path = Path(source).expanduser()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            close = difflib.get_close_matches(source, NAMES, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise InputError(
                f"data.source is {source!r}: there is no such file or directory, and no "
                f"text of that name.{hint} The names are {', '.join(NAMES)}."
            ) from None
        raise unreadable(source, error) from None
    if stat.S_ISDIR(mode):
        # The walk is eager, so an unreadable subdirectory is skipped by no one silently.
        found = sorted(_walk(path))
        if not found:
            raise InputError(
                f"data.source is {source!r}: this directory has no *.txt file; give the "
                "files by name."
            )
        yield from found
    elif stat.S_ISREG(mode):
        yield path
    else:
        raise InputError(
            f"data.source is {source!r}: this is no regular file but a pipe, socket or "
            "device; save its content to a file and give that, for it is read twice."
        )


def _walk(directory: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

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
        raise unreadable(str(path), error) from None


def unreadable(source: str, error: Exception) -> InputError:
    """The InputError for a source that the system would not let us read."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"data.source is {source!r}: it cannot be read ({reason}); check the path and its "
        "permissions."
    )


def fetch(download: Download) -> Path:
    """The verified local file of a download, fetched the first time it is asked for.

    It lies in `cache_directory() / "texts"`, where it may be put by hand as well; its
    checksum is verified on every use. Raises InputError with what to put where when the
    network fails, and when the file is not the one expected.
    """
    target = cache_directory() / "texts" / download.filename
    if not target.exists():
        try:
            _retrieve(download, target)
        except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{download.filename} could not be downloaded ({reason}). Try again, or "
                f"put the file by hand at {target}"
                f"{' (unpacked)' if download.archive_checksum else ''}: it comes from "
                f"{download.url} and has the checksum {download.checksum}. "
                "$CHARJAX_CACHE_DIR chooses another folder."
            ) from error
    algorithm, _, expected = download.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for chunk in read_chunks(target):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{target} is not the text expected: its {algorithm} is {digest.hexdigest()}, "
            f"not {expected}. Delete it to have it downloaded again from {download.url}."
        )
    return target


def _retrieve(download: Download, target: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder of our own, so that two processes that download at once do not meet.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
        with _ProgressBar(download.filename) as bar:
            fetched = pooch.retrieve(
                download.url,
                known_hash=download.archive_checksum or download.checksum,
                fname="download",
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar),  # type: ignore[arg-type]
            )
        if download.archive_checksum:
            unpacked = Path(folder, download.filename)
            with (
                zipfile.ZipFile(fetched) as archive,
                archive.open(download.filename) as member,
                unpacked.open("wb") as file,
            ):
                shutil.copyfileobj(member, file, CHUNK_BYTES)
            fetched = unpacked
        os.replace(fetched, target)


class _ProgressBar(contextlib.AbstractContextManager["_ProgressBar"]):
    """What pooch reports to: a bar on stderr, or nothing where that is no terminal."""

    total = 0

    def __init__(self, description: str) -> None:
        from rich import console, progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            console=console.Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(description, total=None)

    def __enter__(self) -> "_ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size, total=self.total or None)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        pass
