"""Encoded texts on disk: found by content, complete or absent, verified when opened.

    tokens/<fingerprint>/ids.npy       the ids, to be memory-mapped
    tokens/<fingerprint>/corpus.json   vocabulary, counts, checksum of ids.npy
    tokens/index/<bytes>-<key>.json    raw files and choices -> fingerprint and notes

The index is what lets a second run skip decoding: it still hashes the raw files, so a
changed file is never mistaken for the one encoded.
"""

import contextlib
import dataclasses
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

from charjax.errors import InputError
from charjax.text import sources
from charjax.text.vocabulary import Vocabulary

# Raise it when cleaning or encoding changes its result: old entries are then not found.
FORMAT = 1

_TEMPORARY = ".writing-"
_LEFTOVER_AFTER_SECONDS = 24 * 3600


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """An encoded text: what `corpus.json` says beside `ids.npy`."""

    fingerprint: str
    vocabulary: Vocabulary
    counts: np.ndarray
    ids_checksum: str = ""


def directory() -> Path:
    """The folder of all entries; it need not exist."""
    return sources.cache_directory() / "tokens"


def key(size: int, **choices: Any) -> str:
    """The name in the index of some raw files, of `size` bytes together, and everything
    chosen about them."""
    return f"{size}-{_digest({'format': FORMAT, **choices})}"


def may_have(size: int) -> bool:
    """Whether the index knows raw files of so many bytes; if not, why look at them."""
    return any((directory() / "index").glob(f"{size}-*"))


def look_up(name: str) -> tuple[Entry, tuple[str, ...]] | None:
    """The entry and the cleaning notes that `key` leads to, if all of it is there."""
    record = _read_sealed(directory() / "index" / f"{name}.json")
    entry = None if record is None else find(record["fingerprint"])
    return None if record is None or entry is None else (entry, tuple(record["notes"]))


def find(fingerprint: str) -> Entry | None:
    """The entry of this fingerprint; None if it is missing or damaged at first sight."""
    folder = directory() / fingerprint
    record = _read_sealed(folder / "corpus.json")
    if record is None or record["fingerprint"] != fingerprint:
        return None
    entry = Entry(
        fingerprint,
        Vocabulary.from_dict(record["vocabulary"]),
        np.array(record["counts"], np.int64),
        record["ids_checksum"],
    )
    try:
        ids = np.load(folder / "ids.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    right = ids.dtype == entry.vocabulary.id_dtype and ids.shape == (entry.counts.sum(),)
    return entry if right else None


def read(fingerprint: str, watch: Callable[[int, int], None]) -> np.ndarray | None:
    """The memory-mapped ids of an entry, every byte verified; None if it must be made.

    `watch` is told how many bytes of how many are verified.
    """
    entry = find(fingerprint)
    if entry is None:
        return None
    path = directory() / fingerprint / "ids.npy"
    try:
        digest, size = hashlib.sha256(), path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(sources.CHUNK_BYTES):
                digest.update(chunk)
                watch(file.tell(), size)
        right = digest.hexdigest() == entry.ids_checksum
        return np.load(path, mmap_mode="r") if right else None
    except (OSError, ValueError, EOFError):
        return None


@contextlib.contextmanager
def turn(fingerprint: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Lets one process at a time write an entry; `waiting` is called where another has
    its turn. Where the system has no file locks all write at once, which does no harm."""
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
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(file.name)


def write(
    entry: Entry, pieces: Iterable[np.ndarray], verify: Callable[[int], None]
) -> np.ndarray:
    """Write an entry, and return its ids memory-mapped.

    `verify` is called with the number of ids written, before the entry appears under its
    name, and may raise. Nothing is left of an entry that fails. Raises InputError where
    the cache cannot be written.
    """
    try:
        directory().mkdir(parents=True, exist_ok=True)
        _remove_leftovers()
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory()))
        try:
            checksum, written = _write_ids(temporary / "ids.npy", entry, pieces)
            verify(written)
            _write_sealed(
                temporary / "corpus.json",
                {
                    "fingerprint": entry.fingerprint,
                    "vocabulary": entry.vocabulary.to_dict(),
                    "counts": entry.counts.tolist(),
                    "ids_checksum": checksum,
                },
            )
            # Mapped before the move: whoever replaces the entry later, these ids stay.
            ids = np.load(temporary / "ids.npy", mmap_mode="r")
            _publish(temporary, directory() / entry.fingerprint)
            return ids
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _unwritable(error) from error


def write_index(name: str, fingerprint: str, notes: tuple[str, ...]) -> None:
    """Let `look_up(name)` find an entry."""
    path = directory() / "index" / f"{name}.json"
    record = {"fingerprint": fingerprint, "notes": list(notes)}
    if _read_sealed(path) == record:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            pass
        _write_sealed(Path(file.name), record)
        os.replace(file.name, path)
    except OSError as error:
        raise _unwritable(error) from error


def _write_ids(path: Path, entry: Entry, pieces: Iterable[np.ndarray]) -> tuple[str, int]:
    dtype = entry.vocabulary.id_dtype
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (int(entry.counts.sum()),),
    }
    beginning, written = io.BytesIO(), 0
    np.lib.format.write_array_header_1_0(beginning, header)
    digest = hashlib.sha256(beginning.getvalue())
    with path.open("wb") as file:
        file.write(beginning.getvalue())
        for piece in pieces:
            data = np.ascontiguousarray(piece, dtype).data
            digest.update(data)
            file.write(data)
            written += piece.size
    return digest.hexdigest(), written


def _publish(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
        return
    except OSError:
        if not final.exists():
            raise
    if read(final.name, lambda done, total: None) is not None:
        return
    # What is there is damaged. Move it aside as a whole; another process may be doing the
    # same with the same content, and then either one's entry will do.
    aside = tempfile.mkdtemp(prefix=_TEMPORARY, dir=final.parent)
    with contextlib.suppress(OSError):
        os.rename(final, Path(aside, "damaged"))
    try:
        os.rename(temporary, final)
    except OSError:
        if not final.exists():
            raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers() -> None:
    for folder in directory().glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _LEFTOVER_AFTER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _unwritable(error: OSError) -> InputError:
    return InputError(
        f"the token cache in {directory()} cannot be written ({error.strerror or error}): "
        "set $CHARJAX_CACHE_DIR to a folder with space that you may write to."
    )


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _write_sealed(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record | {"digest": _digest(record)}), "utf-8")


def _read_sealed(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text("utf-8"))
        seal = record.pop("digest")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return record if seal == _digest(record) else None
