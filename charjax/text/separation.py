"""A stream of clean text to a stream of documents.

A document may be longer than memory, and a separator may lie across two chunks.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, Shaped

from charjax.config.data import DataConfig
from charjax.text.cleaning import Tally, clean, separator
from charjax.text.sources import Origin

Piece = tuple[str | bytes, Int64[np.ndarray, "documents"] | None]
"""Some text, and how many symbols of it stand before the end of each document that ends
here; None of a text without documents."""


def pieces(origin: Origin, data: DataConfig, tally: Tally) -> Iterator[Piece]:
    """The clean text in pieces, without separators; no document is empty.

    >>> data = DataConfig(documents="lines")
    >>> [(text, ends.tolist()) for text, ends in pieces("no\\n\\nyes", data, Tally())]
    [('noyes', [2]), ('', [0])]
    """
    if not data.has_documents:
        return ((chunk, None) for chunk in clean(origin, data, tally))
    if data.documents != "files":
        return _separated(clean(origin, data, tally), separator(data), tally)
    parts = [(path,) for path in origin] if isinstance(origin, tuple) else [origin]
    return _whole((clean(part, data, tally) for part in parts), tally)


def insert_ends(
    ids: Integer[np.ndarray, "symbols"], ends: Int64[np.ndarray, "documents"], end: int
) -> Shaped[np.ndarray, "more"]:
    """The ids of a piece, the end symbol behind each document that ends in it.

    >>> insert_ends(np.array([5, 6, 7]), np.array([1, 3]), end=9)
    array([5, 9, 6, 7, 9])
    """
    return np.insert(ids, ends, end)


def left(
    ends: Int64[np.ndarray, "documents"], kept: Shaped[np.ndarray, "symbols"]
) -> Int64[np.ndarray, "documents"]:
    """Ends in a piece of which only some symbols are kept.

    >>> left(np.array([1, 3]), np.array([True, False, True]))
    array([1, 2])
    """
    return np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])[ends]


def _separated(
    chunks: Iterator[Any], between: Any, tally: Tally
) -> Iterator[tuple[Any, Any]]:
    nothing = tail = between[:0]
    # Symbols that were already given of the document under way.
    begun = 0
    for chunk in chunks:
        *ended, rest = (tail + chunk).split(between)
        tally.separated |= bool(ended)
        # What is left may be the beginning of a separator.
        settled = max(len(rest) - len(between) + 1, 0)
        shown, tail = rest[:settled], rest[settled:]
        lengths = np.fromiter(map(len, ended), np.int64, len(ended))
        ends, lengths[:1] = np.cumsum(lengths), lengths[:1] + begun
        begun = len(shown) + (0 if ended else begun)
        ended.append(shown)
        tally.empty += int((lengths == 0).sum())
        yield nothing.join(ended), ends[lengths > 0]
    yield tail, np.array([len(tail)] if begun + len(tail) else [], np.int64)


def _whole(parts: Iterable[Iterator[Any]], tally: Tally) -> Iterator[tuple[Any, Any]]:
    for part in parts:
        last = None
        for chunk in part:
            if last is not None:
                yield last, np.empty(0, np.int64)
            last = chunk
        if last is None:
            tally.empty += 1
        else:
            yield last, np.array([len(last)])
