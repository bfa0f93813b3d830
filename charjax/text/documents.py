"""Documents of a text: where each stops, which are in a part, in which order they come."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Integer, UInt

from charjax.config.checks import check_instance, refuse
from charjax.text.permutation import permuted
from charjax.text.vocabulary import Vocabulary

# Documents looked at in one go: what fits the processor's cache goes twice as fast.
PIECE = 2**16

# Splits are drawn with a key of their own: all runs on a text hold out the same documents.
_SPLIT_KEY = 0x646F63


class Order(NamedTuple):
    """Some documents one after the other."""

    documents: Integer[np.ndarray, "documents"]
    """Which of all, as narrow an unsigned type as holds them."""

    stops: Int64[np.ndarray, "documents"]
    """Where each stops, counted from the start of the first one."""


@dataclass(frozen=True, eq=False)
class Documents:
    """The documents of a part of a text.

    Each position has a symbol to predict: all characters and the end of each document, in
    `len(documents)` positions. Which of all documents are in which part is drawn, the same
    for every run, since a list may be sorted.

    >>> documents = Documents.of(["no", "so"], Vocabulary("characters", "nos", True))
    >>> documents.ids, documents.stops, len(documents)
    (array([0, 1, 4, 2, 1, 4], dtype=uint8), array([3, 6]), 6)
    """

    ids: UInt[np.ndarray, "symbols"] = field(repr=False)
    """The symbols of all documents, each followed by the end symbol."""

    stops: Int64[np.ndarray, "all"] = field(repr=False)
    """Where each document stops in `ids`: one place behind its end symbol."""

    start: int
    """The symbol that is read before the first one of a document."""

    ranks: tuple[int, int]
    """Which are in this part: the first, and one behind the last, in a shuffled order."""

    @classmethod
    def of(cls, texts: Sequence[str | bytes], vocabulary: Vocabulary) -> "Documents":
        """Several texts, each a document; those that are empty are left out.

        Raises InputError for unknown characters, and for a vocabulary without documents.
        """
        check_instance("vocabulary", vocabulary, Vocabulary)
        if vocabulary.start is None:
            refuse("vocabulary", vocabulary, "give one of documents, `documents=True`")
        end = np.array([vocabulary.end], vocabulary.id_dtype)
        encoded = [vocabulary.encode(text) for text in texts]
        encoded = [ids.astype(end.dtype) for ids in encoded if len(ids)]
        stops = np.cumsum([len(ids) + 1 for ids in encoded], dtype=np.int64)
        pieces = [piece for ids in encoded for piece in (ids, end)]
        return cls(
            np.concatenate([end[:0], *pieces]), stops, vocabulary.start, (0, len(stops))
        )

    @property
    def count(self) -> int:
        """How many documents this part has."""
        return self.ranks[1] - self.ranks[0]

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def _length(self) -> int:
        return positions(self.stops, self.ranks)

    def texts(self, vocabulary: Vocabulary) -> Iterator[str]:
        """Each document of this part as text, in the order of the split."""
        for number in self.order().documents.tolist():
            begin = self.stops[number - 1] if number else 0
            yield vocabulary.decode(self.ids[begin : self.stops[number]])

    def order(self, seed: int | None = None, epoch: int = 0) -> Order:
        """The documents of this part in the order of an epoch, or in that of the split."""
        count, made = self.count, 0
        order = Order(
            np.empty(count, np.min_scalar_type(len(self.stops))), np.empty(count, np.int64)
        )
        for places in _pieces(0, count):
            # Kept as a table: to compute it for each batch would take longer than a step.
            if seed is not None:
                places = permuted(places, count, seed, epoch)
            documents = _drawn(places + self.ranks[0], len(self.stops))
            stop = made + len(places)
            order.documents[made:stop] = documents
            order.stops[made:stop] = _lengths(self.stops, documents)
            made = stop
        np.cumsum(order.stops, out=order.stops)
        return order


def positions(stops: Int64[np.ndarray, "all"], ranks: tuple[int, int]) -> int:
    """How many symbols the documents of a part have, their ends included.

    >>> positions(np.array([3, 6]), (0, 2))
    6
    """
    first, stop = ranks
    count = len(stops)
    if 2 * (stop - first) > count:
        # Of a large part, it is less work to look at the rest.
        rest = positions(stops, (0, first)) + positions(stops, (stop, count))
        return int(stops[-1]) - rest
    return sum(
        int(_lengths(stops, _drawn(places, count)).sum()) for places in _pieces(first, stop)
    )


def _pieces(first: int, stop: int) -> Iterator[np.ndarray]:
    for start in range(first, stop, PIECE):
        yield np.arange(start, min(start + PIECE, stop))


def _drawn(ranks: np.ndarray, total: int) -> np.ndarray:
    return permuted(ranks, total, _SPLIT_KEY, 0)


def _lengths(stops: np.ndarray, documents: np.ndarray) -> np.ndarray:
    before = np.where(documents > 0, stops[documents - 1], 0)
    return stops[documents] - before
