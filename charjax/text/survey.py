"""One pass over a text: what it is, and the bytes that a run must keep of it."""

import codecs
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from charjax.config.checks import refuse
from charjax.config.data import DataConfig, OnUnknown
from charjax.errors import InputError
from charjax.text import sources, token_cache
from charjax.text.cleaning import Tally, raw_digest
from charjax.text.description import TextDescription, named
from charjax.text.separation import left, pieces
from charjax.text.sources import Origin
from charjax.text.vocabulary import Vocabulary, codes, describe_unknown, to_bytes
from charjax.text.watch import Watch, counter, silent

# Above this a softmax over characters is mostly spent on symbols hardly ever seen.
_MANY_SYMBOLS = 5000


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """A text that was read through once, and can be loaded."""

    text: TextDescription

    data: DataConfig = dataclasses.field(repr=False)
    """How it is to be read."""

    origin: Origin = dataclasses.field(repr=False)
    """The text itself if it is in memory, or its files."""

    stops: Int64[np.ndarray, "documents"] | None = dataclasses.field(
        default=None, repr=False
    )
    """Where each document stops, its end symbol counted; None of a text without."""

    raw_digest: str | None = dataclasses.field(default=None, repr=False)
    """A digest of the files as they were; None for a text in memory."""

    index_name: str | None = dataclasses.field(default=None, repr=False)
    """Its name in the token cache's index; None if it is not to be found there."""

    def bytes_to_keep(self) -> bytes | None:
        """The bytes of a text that no file holds, to be kept as one; None if files hold it.

        Read back from a file under the same `data`, they give the same ids and fingerprint.

        >>> survey(DataConfig(), "café").bytes_to_keep()
        b'caf\\xc3\\xa9'
        """
        if isinstance(self.origin, tuple):
            return None
        if isinstance(self.origin, bytes):
            return self.origin
        # It is kept in UTF-8; where data.encoding is another, a mark has to say so.
        foreign = codecs.lookup(self.data.encoding).name != "utf-8"
        mark = foreign and self.data.vocabulary == "characters"
        mark = mark and not self.origin.startswith("\ufeff")
        return to_bytes(f"\ufeff{self.origin}" if mark else self.origin)


def survey(
    data: DataConfig,
    text: str | bytes | None = None,
    vocabulary: Vocabulary | None = None,
    on_unknown: OnUnknown = "error",
    watch: Watch = silent,
) -> Survey:
    """Reads a text through and describes it; only a named download is written to disk.

    `text` is a text in memory, in place of `data.source`; its bytes are decoded as a file's
    would be. With `vocabulary`, the symbols are those, and others raise an InputError that
    lists them, or are left out if `on_unknown` is "skip". Raises InputError for text that
    is missing, empty, wrongly encoded or lacks a marker. Files that were encoded before
    are hashed but not decoded again.

    >>> text = survey(DataConfig(), text="hello").text
    >>> text.length, text.vocabulary.symbols, text.counts.tolist()
    (5, 'ehlo', [1, 1, 2, 1])
    """
    if vocabulary is not None:
        _check_suits(vocabulary, data)
    origin, names = sources.locate(data, text, watch)
    if isinstance(origin, tuple):
        known = _look_up(data, origin, names, watch)
        if known is not None and vocabulary in (None, known.text.vocabulary):
            return known
    keep = vocabulary if on_unknown == "skip" else None
    code_counts, content, stops, tally = _read(data, origin, keep, watch)
    if not code_counts.any():
        raise InputError(
            f"{named(names)}: the text is empty"
            f"{' between the markers' if tally.before or tally.after else ''}; give one "
            "with something to learn from."
        )
    by_name = data.documents in ("none", "lines", "files")
    if vocabulary is None and not (by_name or tally.separated):
        refuse(
            *("data.documents", data.documents),
            f"{named(names)} does not have it; check its spelling, or give lines, files or "
            "none",
        )
    if data.vocabulary == "bytes":
        own = Vocabulary.of_bytes()
    else:
        own = Vocabulary.from_text(map(chr, np.flatnonzero(code_counts)))
    own = dataclasses.replace(own, documents=data.has_documents)
    chosen = own if vocabulary is None else vocabulary
    counts, left_out = _count(code_counts, chosen, on_unknown, named(names))
    notes = (*tally.notes(), *left_out, *_oddities(code_counts, counts))
    identity = {"content": content, "vocabulary": chosen.to_dict()}
    if stops is not None:
        counts[chosen.end] = len(stops)
        identity["stops"] = hashlib.sha256(stops.astype("<i8", copy=False).data).hexdigest()
    fingerprint = token_cache.digest({"format": token_cache.FORMAT, **identity})
    described = TextDescription(chosen, counts, fingerprint, names, notes)
    if not isinstance(origin, tuple):
        return Survey(described, data, origin, stops)
    raw = tally.raw_digest()
    name = token_cache.index_name(data, sources.size(origin), raw)
    return Survey(described, data, origin, stops, raw, name if chosen == own else None)


def _check_suits(vocabulary: Vocabulary, data: DataConfig) -> None:
    if vocabulary.kind != data.vocabulary:
        raise InputError(
            f"data.vocabulary is {data.vocabulary!r}, but the vocabulary given is one of "
            f"{vocabulary.kind}: use the same kind."
        )
    if vocabulary.documents != data.has_documents:
        has = "has" if vocabulary.documents else "has no"
        remedy = f"the vocabulary given {has} start and end of documents"
        refuse("data.documents", data.documents, remedy)


def _look_up(
    data: DataConfig, paths: tuple[Path, ...], names: tuple[str, ...], watch: Watch
) -> Survey | None:
    """The survey of files that the token cache knows, made without decoding them."""
    size = sources.size(paths)
    if not token_cache.may_know(size):
        return None
    digest = raw_digest(paths, counter(watch, "checking the text", size))
    name = token_cache.index_name(data, size, digest)
    text = token_cache.look_up(name, names)
    if text is None:
        return None
    stops = token_cache.read_stops(text.fingerprint) if text.vocabulary.documents else None
    if text.vocabulary.documents and stops is None:
        return None
    return Survey(text, data, paths, stops, digest, name)


def _read(
    data: DataConfig, origin: Origin, kept: Vocabulary | None, watch: Watch
) -> tuple[np.ndarray, str, np.ndarray | None, Tally]:
    """How often each code point or byte occurs, the digest of the clean text, where the
    documents stop in what is `kept` of it (None is all), and what cleaning did."""
    tally = Tally(counter(watch, "reading the text", sources.size(origin)))
    content = hashlib.sha256()
    code_counts = np.zeros(256 if data.vocabulary == "bytes" else 0x110000, np.int64)
    stops, symbols, documents = [], 0, 0
    for chunk, ends in pieces(origin, data, tally):
        content.update(to_bytes(chunk) if isinstance(chunk, str) else chunk)
        found, length = codes(chunk), len(chunk)
        occurring = np.bincount(found)
        code_counts[: occurring.size] += occurring
        if ends is None:
            continue
        if kept is not None:
            known = kept.encode_codes(found) >= 0
            ends, length = left(ends, known), int(known.sum())
        documents += len(ends)
        stops.append(symbols + ends + np.arange(documents - len(ends), documents) + 1)
        symbols += length
    joined = np.concatenate(stops) if stops else None
    return code_counts, content.hexdigest(), joined, tally


def _count(
    code_counts: np.ndarray, vocabulary: Vocabulary, on_unknown: OnUnknown, name: str
) -> tuple[np.ndarray, list[str]]:
    """How often each symbol of the vocabulary occurs, and a note about the others."""
    occurring = np.flatnonzero(code_counts)
    ids = vocabulary.encode_codes(occurring)
    unknown = occurring[ids < 0]
    if unknown.size and on_unknown == "error":
        raise InputError(
            f"{name}: {describe_unknown(unknown.tolist())}: take them out of the text, "
            "leave them out with `on_unknown='skip'`, or train a new "
            "model on this text."
        )
    if unknown.size == occurring.size:
        raise InputError(
            f"{name}: no character of the text is in the vocabulary; give a text in the "
            "language and script that the model was trained on."
        )
    counts = np.zeros(vocabulary.size, np.int64)
    counts[ids[ids >= 0]] = code_counts[occurring[ids >= 0]]
    left_out = int(code_counts[unknown].sum())
    return counts, [f"{left_out:,} unknown characters left out"] if left_out else []


def _oddities(code_counts: np.ndarray, counts: np.ndarray) -> list[str]:
    notes = []
    surrogates = int(code_counts[0xD800:0xE000].sum())
    if surrogates:
        notes.append(f"{surrogates:,} lone surrogates, which are not characters, kept")
    # Of a vocabulary of bytes they are expected.
    if code_counts.size > 256 and 4 * code_counts[0] > code_counts.sum():
        notes.append(
            f"{code_counts[0]:,} NULs: if this is UTF-16 without its mark, give "
            "`data.encoding='utf-16-le'`"
        )
    if np.count_nonzero(counts) == 1:
        notes.append("only one distinct symbol: there is nothing to learn")
    if counts.size > _MANY_SYMBOLS:
        notes.append(f"{counts.size:,} symbols are many: consider data.vocabulary bytes")
    return notes
