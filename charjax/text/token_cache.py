"""Encoded texts on disk: found by content, complete or absent, verified when opened.

    tokens/<fingerprint>/ids.npy       the ids, to be memory-mapped
    tokens/<fingerprint>/stops.npy     where each document stops, of a text of documents
    tokens/<fingerprint>/corpus.json   vocabulary, counts, checksums of the arrays
    tokens/index/<bytes>-<key>.json    raw files and choices -> fingerprint and notes

The index lets a second run skip decoding, which is most of its time with a large text
(`docs/performance.md`). The raw files are still hashed, so a changed file is never mistaken
for the one that was encoded.
"""

import codecs
import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text.description import TextDescription
from charjax.text.downloads import cache_directory
from charjax.text.sources import read_chunks
from charjax.text.vocabulary import Vocabulary
from charjax.text.watch import Watch, counter, silent

# Raise it when cleaning or encoding changes its result: old entries are then not found.
FORMAT = 1

# Of the arrays in an entry.
_IDS, _STOPS = "ids_checksum", "stops_checksum"

_TEMPORARY = ".writing-"
_LEFTOVER_AFTER_SECONDS = 24 * 3600


def directory() -> Path:
    """The folder of all entries; it need not exist."""
    return cache_directory() / "tokens"


def digest(record: dict[str, Any]) -> str:
    """The hex SHA-256 of a dict of JSON values."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def index_name(data: DataConfig, size: int, raw_digest: str) -> str:
    """The name in the index of raw files of `size` bytes, read as `data` says with the
    vocabulary that is the text's own."""
    choices = {
        "format": FORMAT,
        "raw": raw_digest,
        "kind": data.vocabulary,
        "encoding": codecs.lookup(data.encoding).name,
        "start_marker": data.start_marker,
        "end_marker": data.end_marker,
    }
    if data.has_documents:
        choices["documents"] = data.documents
    return f"{size}-{digest(choices)}"


def may_know(size: int) -> bool:
    """Whether the index has files of so many bytes; if not, none need be hashed."""
    return any((directory() / "index").glob(f"{size}-*"))


def look_up(name: str, sources: tuple[str, ...]) -> TextDescription | None:
    """The text that a name in the index leads to, if its entry is there."""
    index = _read_sealed(directory() / "index" / f"{name}.json")
    entry = None if index is None else _entry(index["fingerprint"])
    if index is None or entry is None:
        return None
    return TextDescription(
        Vocabulary.from_dict(entry["vocabulary"]),
        np.array(entry["counts"], np.int64),
        entry["fingerprint"],
        sources,
        tuple(index["notes"]),
    )


def read(fingerprint: str, watch: Watch = silent) -> np.ndarray | None:
    """The memory-mapped ids of an entry, every byte verified; None if any of it is missing
    or damaged."""
    entry = _entry(fingerprint)
    if entry is None or (_STOPS in entry and read_stops(fingerprint) is None):
        return None
    return _verified(directory() / fingerprint / "ids.npy", entry[_IDS], watch)


def read_stops(fingerprint: str) -> np.ndarray | None:
    """Where the documents of an entry stop, as `read` gives its ids."""
    entry = _entry(fingerprint)
    if entry is None or _STOPS not in entry:
        return None
    return _verified(directory() / fingerprint / "stops.npy", entry[_STOPS], silent)


def _verified(path: Path, expected: str, watch: Watch) -> np.ndarray | None:
    checksum = hashlib.sha256()
    try:
        advance = counter(watch, "checking the ids", path.stat().st_size)
        for chunk in read_chunks(path):
            checksum.update(chunk)
            advance(len(chunk))
        right = checksum.hexdigest() == expected
        return np.load(path, mmap_mode="r") if right else None
    except (InputError, OSError, ValueError, EOFError):
        return None


@contextlib.contextmanager
def lock(fingerprint: str, watch: Watch) -> Iterator[None]:
    """Lets one process at a time write an entry; `watch` is told of waiting for another.

    Where the system has no file locks all write at once, which does no harm.
    """
    try:
        import fcntl

        directory().mkdir(parents=True, exist_ok=True)
        file = open(directory() / f"{fingerprint}.lock", "a")  # noqa: SIM115
    except (ImportError, OSError):
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                watch("waiting for another process that encodes the text", 0, 0)
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(file.name)


def write(
    text: TextDescription,
    pieces: Iterable[np.ndarray],
    verify: Callable[[int], None],
    stops: np.ndarray | None = None,
) -> np.ndarray:
    """Writes the entry of a text, and returns its ids memory-mapped; `stops` is where its
    documents stop.

    `verify` is called with the number of ids written, before the entry appears under its
    name, and may raise. Nothing is left of an entry that fails. Raises InputError where
    the cache cannot be written.
    """
    with _told_if_unwritable():
        directory().mkdir(parents=True, exist_ok=True)
        _remove_leftovers()
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory()))
        try:
            entry = temporary / "entry"
            entry.mkdir()
            dtype, length = text.vocabulary.id_dtype, text.length
            checksum, written = _write_array(entry / "ids.npy", dtype, length, pieces)
            verify(written)
            record = {
                "fingerprint": text.fingerprint,
                "vocabulary": text.vocabulary.to_dict(),
                "counts": text.counts.tolist(),
                _IDS: checksum,
            }
            if stops is not None:
                path, length = entry / "stops.npy", len(stops)
                record[_STOPS], _ = _write_array(path, stops.dtype, length, [stops])
            (entry / "corpus.json").write_text(_sealed(record), "utf-8")
            # Mapped before the move: whoever replaces the entry later, these ids stay.
            ids = np.load(entry / "ids.npy", mmap_mode="r")
            final = directory() / text.fingerprint
            # What is there is damaged. Another process may be doing the same with the same
            # content, and then either one's entry will do.
            with contextlib.suppress(OSError):
                os.rename(final, temporary / "damaged")
            try:
                os.rename(entry, final)
            except OSError:
                if not final.exists():
                    raise
            return ids
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_index(name: str, text: TextDescription) -> None:
    """Lets `look_up(name)` find the entry of a text."""
    path = directory() / "index" / f"{name}.json"
    record = {"fingerprint": text.fingerprint, "notes": list(text.notes)}
    if _read_sealed(path) == record:
        return
    with _told_if_unwritable():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(_sealed(record))
        os.replace(file.name, path)


def _write_array(
    path: Path, dtype: np.dtype, length: int, pieces: Iterable[np.ndarray]
) -> tuple[str, int]:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (length,),
    }
    beginning, written = io.BytesIO(), 0
    np.lib.format.write_array_header_1_0(beginning, header)
    checksum = hashlib.sha256(beginning.getvalue())
    with path.open("wb") as file:
        file.write(beginning.getvalue())
        for piece in pieces:
            data = np.ascontiguousarray(piece, dtype).data
            checksum.update(data)
            file.write(data)
            written += piece.size
    return checksum.hexdigest(), written


def _remove_leftovers() -> None:
    for folder in directory().glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _LEFTOVER_AFTER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _told_if_unwritable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the token cache in {directory()} cannot be written "
            f"({error.strerror or error}): set $CHARJAX_CACHE_DIR to a folder with space "
            "that you may write to."
        ) from error


def _entry(fingerprint: str) -> dict[str, Any] | None:
    record = _read_sealed(directory() / fingerprint / "corpus.json")
    return record if record and record["fingerprint"] == fingerprint else None


def _sealed(record: dict[str, Any]) -> str:
    return json.dumps(record | {"digest": digest(record)})


def _read_sealed(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text("utf-8"))
        seal = record.pop("digest")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return record if seal == digest(record) else None
