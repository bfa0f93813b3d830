"""Raw text in chunks to clean text in chunks: decoding, line ends, markers.

Nothing here holds more than a few chunks at a time, so a text may be larger than memory.
"""

import codecs
import dataclasses
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, AnyStr

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import sources
from charjax.text.encodings import refusal
from charjax.text.sources import Origin
from charjax.text.vocabulary import to_bytes

# Bytes before and after one that is not valid that are looked at.
_LOOK = 2048

_UTF8_MARK = codecs.BOM_UTF8
_UTF16_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclasses.dataclass
class Tally:
    """What cleaning did, and the digests of the raw files; filled in on the way.

    `advance` is called with the size of each chunk that was read from a file.
    """

    advance: Callable[[int], None] = lambda size: None
    marks: Counter[str] = dataclasses.field(default_factory=Counter)
    crlf: int = 0
    lone_cr: int = 0
    before: int = 0
    after: int = 0
    empty: int = 0

    separated: bool = False
    """Whether a separator of documents was found."""

    file_digests: list[bytes] = dataclasses.field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """One line for each thing that was done to the text.

        >>> Tally(crlf=1200, before=1).notes()
        ('1,200 CRLF line ends became LF', '1 symbol dropped before the start marker')
        """
        counted = (
            *((number, mark, " taken off") for mark, number in self.marks.items()),
            (self.crlf, "CRLF line end", " became LF"),
            (self.lone_cr, "CR line end", " became LF"),
            (self.before, "symbol", " dropped before the start marker"),
            (self.after, "symbol", " dropped from the end marker on"),
            (self.empty, "empty document", " skipped"),
        )
        return tuple(
            f"{number:,} {what}{'' if number == 1 else 's'}{done}"
            for number, what, done in counted
            if number
        )

    def raw_digest(self) -> str:
        """One digest of all the raw files, and of where one ends and the next begins."""
        return hashlib.sha256(b"".join(self.file_digests)).hexdigest()


def raw_digest(paths: tuple[Path, ...], advance: Callable[[int], None]) -> str:
    """What `Tally.raw_digest` would be after reading these files, without decoding."""
    tally = Tally(advance)
    for path in paths:
        for _ in _hashed(path, tally):
            pass
    return tally.raw_digest()


def clean(
    origin: Origin, data: DataConfig, tally: Tally
) -> Iterator[str] | Iterator[bytes]:
    """The clean text in chunks: str for a vocabulary of characters, bytes for bytes.

    Characters are decoded, byte-order marks taken off, CRLF and CR made LF, files joined
    with a line end where one lacks it. Bytes stay as they are. A separator of documents
    stands in place of the line end, between files of bytes too. Both are cut at the
    markers. Raises InputError for bytes that the encoding does not know, at their offset,
    and for a marker that is not there.

    >>> "".join(clean("a\\r\\nb", DataConfig(), Tally()))
    'a\\nb'
    """
    parts: Any = _raw(origin, tally)
    if data.vocabulary == "characters":
        parts = _characters(origin, data.encoding, tally)
    start, end = (_as_read(each, data) for each in (data.start_marker, data.end_marker))
    return _cut(_joined(parts, separator(data)), start, end, tally)


def separator(data: DataConfig) -> Any:
    """What stands between two documents, as the clean text has it; empty for files, and
    for bytes without documents.

    >>> separator(DataConfig(documents="lines", vocabulary="bytes"))
    b'\\n'
    """
    if data.documents == "files" or (data.documents, data.vocabulary) == ("none", "bytes"):
        return _as_read("", data)
    return _as_read("\n" if data.documents in ("none", "lines") else data.documents, data)


def _as_read(text: str | None, data: DataConfig) -> Any:
    if text is None or data.vocabulary == "bytes":
        return None if text is None else to_bytes(text)
    return "".join(_unify_line_ends([text], Tally()))


def _raw(origin: Origin, tally: Tally) -> Iterable[Iterator[bytes]]:
    if isinstance(origin, str):
        return [map(to_bytes, _slices(origin))]
    if isinstance(origin, bytes):
        return [_slices(origin)]
    return (_hashed(path, tally) for path in origin)


def _characters(origin: Origin, encoding: str, tally: Tally) -> Iterable[Iterator[str]]:
    if isinstance(origin, str):
        tally.marks["byte-order mark"] += origin.startswith("\ufeff")
        parts: Iterable[Iterator[str]] = [_slices(origin.removeprefix("\ufeff"))]
    elif isinstance(origin, bytes):
        parts = [_decode(_slices(origin), encoding, "the text given", tally)]
    else:
        parts = (
            _decode(_hashed(path, tally), encoding, str(path), tally) for path in origin
        )
    return (_unify_line_ends(part, tally) for part in parts)


def _joined(parts: Iterable[Iterator[AnyStr]], joint: AnyStr) -> Iterator[AnyStr]:
    """One file after the other, with `joint` behind each that does not end with it."""
    last = joint[:0]
    for part in parts:
        first = True
        for chunk in part:
            if first and last and not last.endswith(joint):
                yield joint
            first = False
            ending = chunk[-len(joint) :]
            last = ending if len(chunk) >= len(joint) else (last + ending)[-len(joint) :]
            yield chunk


def _slices(text: AnyStr) -> Iterator[AnyStr]:
    for start in range(0, len(text), sources.CHUNK_BYTES):
        yield text[start : start + sources.CHUNK_BYTES]


def _hashed(path: Path, tally: Tally) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in sources.read_chunks(path):
        digest.update(chunk)
        tally.advance(len(chunk))
        yield chunk
    tally.file_digests.append(digest.digest())


def _decode(
    chunks: Iterator[bytes], encoding: str, name: str, tally: Tally
) -> Iterator[str]:
    head = b""
    while len(head) < 3 and (chunk := next(chunks, b"")):
        head += chunk
    # A UTF-32 mark begins like a UTF-16 one; only its own codec can tell.
    mark = b""
    if head.startswith(_UTF8_MARK):
        mark, encoding = _UTF8_MARK, "utf-8"
    elif head[:2] in _UTF16_MARKS and not codecs.lookup(encoding).name.startswith("utf-32"):
        mark, encoding = head[:2], _UTF16_MARKS[head[:2]]
    if mark:
        tally.marks[f"{encoding} byte-order mark"] += 1
    # Text kept from memory may hold lone surrogates, and must read back the same.
    errors = "surrogatepass" if codecs.lookup(encoding).name == "utf-8" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    consumed = len(mark)
    # The empty chunk at the end makes the decoder say whether it is in mid-character.
    for chunk in itertools.chain([head[len(mark) :]], chunks, [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            raise _undecodable(error, name, encoding, consumed, chunk, head) from None
        consumed += len(chunk)
        if text:
            yield text


def _undecodable(
    error: UnicodeError, name: str, encoding: str, consumed: int, chunk: bytes, head: bytes
) -> InputError:
    where, reason, around = "", str(error), chunk
    if isinstance(error, UnicodeDecodeError):
        # The decoder puts bytes that it had kept from before in front of those given.
        offset = consumed - (len(error.object) - len(chunk)) + error.start
        where, reason = (
            f" at byte {offset} (0x{error.object[error.start]:02x})",
            error.reason,
        )
        # From an even place, as UTF-16 has it.
        first = max(error.start - _LOOK, 0)
        first += (offset - error.start + first) % 2
        around = error.object[first : error.start + _LOOK]
    # At the very end there are only the few bytes that the decoder had kept.
    around = around if len(around) > 8 else head[: 2 * _LOOK]
    return refusal(name, encoding, where, reason, head, around)


def _unify_line_ends(chunks: Iterable[str], tally: Tally) -> Iterator[str]:
    # It holds back a CR at the end of a chunk until it knows whether an LF follows.
    decoder = io.IncrementalNewlineDecoder(None, translate=True)
    for chunk in itertools.chain(chunks, [""]):
        unified = decoder.decode(chunk, final=not chunk)
        crlf = len(chunk) - len(unified)
        tally.crlf += crlf
        tally.lone_cr += chunk.count("\r") - crlf
        if unified:
            yield unified


def _cut(
    chunks: Iterator[AnyStr], start: AnyStr | None, end: AnyStr | None, tally: Tally
) -> Iterator[AnyStr]:
    if start is not None:
        chunks = _from_marker(chunks, start, tally)
        # The end is not looked for in the start marker itself.
        yield next(chunks)
    if end is None:
        yield from chunks
        return
    # Read to the very end, for the digest of the file and whatever else is wrong in it.
    for piece, seen in _divided(chunks, end, "end_marker"):
        if seen:
            tally.after += len(piece)
        else:
            yield piece


def _from_marker(
    chunks: Iterator[AnyStr], marker: AnyStr, tally: Tally
) -> Iterator[AnyStr]:
    for piece, seen in _divided(chunks, marker, "start_marker"):
        if seen:
            yield piece
        else:
            tally.before += len(piece)


def _divided(
    chunks: Iterator[AnyStr], marker: AnyStr, field: str
) -> Iterator[tuple[AnyStr, bool]]:
    """The text in pieces, each with whether the marker has been seen; it is a piece of its
    own, the first that says so."""
    tail = marker[:0]
    for chunk in chunks:
        window = tail + chunk
        before, found, after = window.partition(marker)
        if found:
            yield before, False
            yield from ((piece, True) for piece in itertools.chain([found, after], chunks))
            return
        settled = max(len(window) - len(marker) + 1, 0)
        yield window[:settled], False
        tail = window[settled:]
    shown = marker if isinstance(marker, str) else marker.decode("utf-8", "surrogatepass")
    raise InputError(
        f"data.{field} is {shown!r}: the text does not have it; check its spelling, or "
        "leave it out to keep the whole text."
    )
