"""A text surveyed, encoded and split.

`survey` reads a text once and writes nothing: what it consists of, and whether it is any
good. `load` then gives its ids, memory-mapped from a cache that holds them for next time.
"""

import codecs
import dataclasses
import functools
import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from charjax.config.schema import DataConfig
from charjax.errors import InputError
from charjax.text import sources, token_cache
from charjax.text.cleaning import Origin, Tally, clean, raw_digest
from charjax.text.vocabulary import (
    OnUnknown,
    Vocabulary,
    code_points,
    describe_unknown,
    to_bytes,
)

Split = Literal["train", "validation", "test"]

Watch = Callable[[str, int, int], None]
"""Told what is done with files, and how many bytes of how many are done."""

# Above this a softmax over characters is mostly spent on symbols hardly ever seen.
_MANY_SYMBOLS = 5000


@dataclasses.dataclass(frozen=True)
class TextReport:
    """What a text is and what was done to it.

    `characters` is its length in symbols, which are bytes where `unit` says so; `symbols`
    the size of the vocabulary; `notes` one line for each thing done; `rarest` the symbols
    that occur least, as they print, each with its count.
    """

    sources: tuple[str, ...]
    unit: Literal["characters", "bytes"]
    characters: int
    symbols: int
    notes: tuple[str, ...]
    rarest: tuple[tuple[str, int], ...]

    def lines(self) -> list[str]:
        """The report, ready to print.

        >>> survey(DataConfig(), text="hello").report.lines()[0]
        'text in memory: 5 characters, 4 symbols'
        """
        named = ", ".join(self.sources[:3])
        if len(self.sources) > 3:
            named += f" and {len(self.sources) - 3} more"
        rarest = ", ".join(f"{symbol} {count:,}" for symbol, count in self.rarest)
        return [
            f"{named}: {self.characters:,} {self.unit}, {self.symbols:,} symbols",
            *self.notes,
            f"rarest: {rarest}",
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """A text that was read through once, and can be loaded.

    `length` is in symbols; `counts` is int64 `[vocab]`, how often each occurs;
    `fingerprint` is the hex SHA-256 of the clean text, the vocabulary and a format
    number, so that the same content has the same one wherever it comes from.
    """

    length: int
    vocabulary: Vocabulary
    counts: np.ndarray
    fingerprint: str
    report: TextReport
    data: DataConfig = dataclasses.field(repr=False)
    origin: Origin = dataclasses.field(repr=False)
    raw_digest: str | None = dataclasses.field(repr=False)
    index_key: str | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids: `ids` is `[n]` of the vocabulary's `id_dtype`, often memory-mapped."""

    ids: np.ndarray
    vocabulary: Vocabulary
    fingerprint: str
    counts: np.ndarray
    report: TextReport

    def split(self, name: Split, shares: tuple[float, float, float]) -> np.ndarray:
        """The ids of one split, as a view.

        >>> corpus = load(survey(DataConfig(), text="0123456789"))
        >>> corpus.split("validation", (0.9, 0.1, 0.0))
        array([9], dtype=uint8)
        """
        start, stop = boundaries(len(self.ids), name, shares)
        return self.ids[start:stop]


def boundaries(n: int, split: Split, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Where a split of a text of `n` symbols begins and ends.

    Each split ends at the whole number below its share; the last that has a share ends
    where the text does.

    >>> boundaries(10, "validation", (0.75, 0.25, 0.0))
    (7, 10)
    """
    # Fractions, because 0.9 as a float times a length may fall just below a whole number;
    # and limited, because so may shares that were computed.
    parts = [Fraction(share).limit_denominator(10**9) for share in shares]
    stops = [0]
    for index in range(3):
        ends_here = not any(parts[index + 1 :])
        stops.append(n if ends_here else min(int(n * sum(parts[: index + 1])), n))
    index = ("train", "validation", "test").index(split)
    return stops[index], stops[index + 1]


def survey(
    data: DataConfig,
    text: str | bytes | None = None,
    vocabulary: Vocabulary | None = None,
    on_unknown: OnUnknown = "error",
    watch: Watch = lambda what, done, total: None,
) -> Survey:
    """Read a text through and describe it; only a named download is written to disk.

    `text` is a text in memory, in place of `data.source`; its bytes are decoded as a file's
    would be. With `vocabulary`, the symbols are those, and others raise an InputError that
    lists them, or are left out if `on_unknown` is "skip". Raises InputError for text that
    is missing, empty, wrongly encoded or lacks a marker. Files that were encoded before
    are hashed but not decoded again.

    >>> found = survey(DataConfig(), text="hello")
    >>> found.length, found.vocabulary.symbols, found.counts.tolist()
    (5, 'ehlo', [1, 1, 2, 1])
    """
    if vocabulary is not None and vocabulary.kind != data.vocabulary:
        raise InputError(
            f"data.vocabulary is {data.vocabulary!r}, but the vocabulary given is one of "
            f"{vocabulary.kind}: use the same kind."
        )
    origin, names = _locate(data, text)
    describe = functools.partial(_describe, data, origin, names)
    size = _size(origin)
    if isinstance(origin, tuple) and token_cache.may_have(size):
        digest = raw_digest(origin, _stage("checking the text", size, watch))
        cached = _look_up(data, size, digest, vocabulary, on_unknown)
        if cached is not None:
            name, entry, notes = cached
            return describe(
                digest, name, entry.vocabulary, entry.counts, entry.fingerprint, notes
            )

    tally = Tally(_stage("reading the text", size, watch))
    content = hashlib.sha256()
    code_counts = np.zeros(256 if data.vocabulary == "bytes" else 0x110000, np.int64)
    for chunk in clean(origin, data, tally):
        content.update(to_bytes(chunk) if isinstance(chunk, str) else chunk)
        found = np.bincount(_codes(chunk))
        code_counts[: found.size] += found
    if not code_counts.any():
        raise InputError(
            f"{', '.join(names)}: the text is empty"
            f"{' between the markers' if tally.before or tally.after else ''}; give one "
            "with something to learn from."
        )
    notes = list(tally.notes())
    occurring = np.flatnonzero(code_counts)
    natural = _natural_vocabulary(data, occurring)
    chosen = natural if vocabulary is None else vocabulary
    ids = chosen.encode_codes(occurring)
    unknown = occurring[ids < 0]
    if unknown.size:
        if on_unknown == "error":
            raise InputError(
                f"{', '.join(names)}: {describe_unknown(unknown.tolist())}: take them out "
                "of the text, leave them out with --on-unknown skip "
                '(on_unknown="skip"), or train a new model on this text.'
            )
        notes.append(f"{int(code_counts[unknown].sum()):,} unknown characters left out")
    counts = np.zeros(chosen.size, np.int64)
    counts[ids[ids >= 0]] = code_counts[occurring[ids >= 0]]
    if not counts.any():
        raise InputError(
            f"{', '.join(names)}: no character of the text is in the vocabulary; give a "
            "text in the language and script the model was trained on."
        )
    surrogates = int(code_counts[0xD800:0xE000].sum())
    if surrogates:
        notes.append(f"{surrogates:,} lone surrogates, which are no characters, kept")
    if np.count_nonzero(counts) == 1:
        notes.append("only one distinct symbol: there is nothing to learn")
    if chosen.size > _MANY_SYMBOLS:
        notes.append(f"{chosen.size:,} symbols are many: consider --data.vocabulary bytes")
    name = digest = None
    if isinstance(origin, tuple):
        digest = tally.raw_digest()
        given = None if chosen == natural else chosen
        name = _index_key(data, size, digest, given, on_unknown)
    fingerprint = _fingerprint(content.hexdigest(), chosen)
    return describe(digest, name, chosen, counts, fingerprint, tuple(notes))


def load(survey: Survey, watch: Watch = lambda what, done, total: None) -> Corpus:
    """The ids of a surveyed text.

    Those of files are memory-mapped from `cache_directory() / "tokens"`, and written
    there first unless a whole and undamaged copy is there. A text in memory stays there.
    Of several processes that need the same ids one writes them, and the others wait.
    Raises InputError when a file has changed since the survey, and when the cache cannot
    be written.

    >>> load(survey(DataConfig(), text="hello")).ids
    array([1, 0, 2, 2, 3], dtype=uint8)
    """
    if survey.index_key is None:
        ids = np.concatenate(list(_encoded(survey, Tally())))
    else:
        ids = _cached(survey, watch)
        token_cache.write_index(survey.index_key, survey.fingerprint, survey.report.notes)
    return Corpus(ids, survey.vocabulary, survey.fingerprint, survey.counts, survey.report)


def text_without_file(data: DataConfig, text: str | bytes | None = None) -> bytes | None:
    """The bytes of a text that no file holds, to be kept as one; None if files hold it.

    Read back as a path under the same `data`, they give the same ids and fingerprint.

    >>> text_without_file(DataConfig(), "café")
    b'caf\\xc3\\xa9'
    """
    origin, _ = _locate(data, text)
    if isinstance(origin, tuple):
        return None
    if isinstance(origin, bytes):
        return origin
    # Written in UTF-8 whatever data.encoding says of other files, so it must say so.
    foreign = codecs.lookup(data.encoding).name != "utf-8"
    mark = foreign and data.vocabulary == "characters" and not origin.startswith("\ufeff")
    return to_bytes(f"\ufeff{origin}" if mark else origin)


def _locate(data: DataConfig, text: str | bytes | None) -> tuple[Origin, tuple[str, ...]]:
    if text is not None:
        if not isinstance(text, str | bytes):
            raise InputError(
                f"text is of type {type(text).__name__}: give a str or bytes, or None to "
                "read data.source."
            )
        return text, ("text in memory",)
    if sources.is_built_in(data.sources):
        version = platform.python_version()
        return sources.python_reference(), (f"{sources.BUILT_IN} (Python {version})",)
    paths = sources.files(data.sources)
    return paths, tuple(str(path) for path in paths)


def _size(origin: Origin) -> int:
    """Bytes of all files; 0 for a text in memory."""
    files = origin if isinstance(origin, tuple) else ()
    return sum(path.stat().st_size for path in files if path.exists())


def _stage(what: str, total: int, watch: Watch) -> Callable[[int], None]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        watch(what, done, total)

    return advance


def _codes(chunk: str | bytes) -> np.ndarray:
    return code_points(chunk) if isinstance(chunk, str) else np.frombuffer(chunk, np.uint8)


def _natural_vocabulary(data: DataConfig, occurring: np.ndarray) -> Vocabulary:
    if data.vocabulary == "bytes":
        return Vocabulary.of_bytes()
    return Vocabulary("characters", "".join(map(chr, occurring.tolist())))


def _fingerprint(content: str, vocabulary: Vocabulary) -> str:
    record = {
        "format": token_cache.FORMAT,
        "content": content,
        "vocabulary": vocabulary.to_dict(),
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _index_key(
    data: DataConfig,
    size: int,
    digest: str,
    vocabulary: Vocabulary | None,
    on_unknown: OnUnknown,
) -> str:
    choices: dict[str, Any] = {
        "raw": digest,
        "kind": data.vocabulary,
        "encoding": codecs.lookup(data.encoding).name,
        "start_marker": data.start_marker,
        "end_marker": data.end_marker,
    }
    if vocabulary is not None:
        choices |= {"vocabulary": vocabulary.to_dict(), "on_unknown": on_unknown}
    return token_cache.key(size, **choices)


def _look_up(
    data: DataConfig,
    size: int,
    digest: str,
    vocabulary: Vocabulary | None,
    on_unknown: OnUnknown,
) -> tuple[str, token_cache.Entry, tuple[str, ...]] | None:
    # First as the text's own vocabulary: a resumed run gives the one it found itself.
    for given in (None, vocabulary):
        name = _index_key(data, size, digest, given, on_unknown)
        found = token_cache.look_up(name)
        if found is not None and vocabulary in (None, found[0].vocabulary):
            return name, *found
    return None


def _describe(
    data: DataConfig,
    origin: Origin,
    names: tuple[str, ...],
    digest: str | None,
    name: str | None,
    vocabulary: Vocabulary,
    counts: np.ndarray,
    fingerprint: str,
    notes: tuple[str, ...],
) -> Survey:
    length = int(counts.sum())
    present = np.flatnonzero(counts)
    # Stable, so that equally rare symbols come in the order of the vocabulary.
    rarest = present[np.argsort(counts[present], kind="stable")][:5].tolist()
    symbols = vocabulary.symbols
    labels = [repr(symbols[i]) if symbols else f"0x{i:02x}" for i in rarest]
    report = TextReport(
        names,
        data.vocabulary,
        length,
        vocabulary.size,
        notes,
        tuple((label, int(counts[i])) for label, i in zip(labels, rarest, strict=True)),
    )
    return Survey(
        length, vocabulary, counts, fingerprint, report, data, origin, digest, name
    )


def _encoded(survey: Survey, tally: Tally) -> Iterator[np.ndarray]:
    for chunk in clean(survey.origin, survey.data, tally):
        ids = survey.vocabulary.encode_codes(_codes(chunk))
        if ids.min(initial=0) < 0:
            ids = ids[ids >= 0]
        yield ids.astype(survey.vocabulary.id_dtype)


def _cached(survey: Survey, watch: Watch) -> np.ndarray:
    read = functools.partial(
        token_cache.read, survey.fingerprint, functools.partial(watch, "checking the ids")
    )
    ids = read()
    if ids is not None:
        return ids

    def waiting() -> None:
        watch("waiting for another process that encodes the text", 0, 0)

    with token_cache.turn(survey.fingerprint, waiting):
        # Whoever had it before us may have written what we need.
        ids = read()
        return _write(survey, watch) if ids is None else ids


def _write(survey: Survey, watch: Watch) -> np.ndarray:
    tally = Tally(_stage("encoding the text", _size(survey.origin), watch))

    def verify(written: int) -> None:
        if tally.raw_digest() != survey.raw_digest or written != survey.length:
            raise InputError(
                f"{', '.join(survey.report.sources)}: the text has changed since it was "
                "read a moment ago; start again once nothing writes to it."
            )

    entry = token_cache.Entry(survey.fingerprint, survey.vocabulary, survey.counts)
    return token_cache.write(entry, _encoded(survey, tally), verify)
