"""A surveyed text as ids, and its splits."""

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Int64, UInt

from charjax.config.data import SPLITS, Split
from charjax.errors import InputError
from charjax.text import sources, token_cache
from charjax.text.cleaning import Tally
from charjax.text.description import TextDescription, named
from charjax.text.documents import Documents, positions
from charjax.text.separation import insert_ends, left, pieces
from charjax.text.survey import Survey
from charjax.text.vocabulary import PIECE, Vocabulary, codes
from charjax.text.watch import Watch, counter, silent


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """A text as ids, of the vocabulary's `id_dtype` and often memory-mapped."""

    ids: UInt[np.ndarray, "symbols"]
    text: TextDescription

    stops: Int64[np.ndarray, "documents"] | None = None
    """Where each document stops in `ids`; None of a text without."""

    def __repr__(self) -> str:
        return f"<Corpus {self.text.summary}, of {named(self.text.sources)}>"

    @property
    def whole(self) -> UInt[np.ndarray, "symbols"] | Documents:
        """All of the text: its ids, or its documents."""
        start = self.text.vocabulary.start
        if self.stops is None or start is None:
            return self.ids
        return Documents(self.ids, self.stops, start, (0, len(self.stops)))

    def split(
        self, name: Split, shares: tuple[float, float, float]
    ) -> UInt[np.ndarray, "part"] | Documents:
        """The ids of one split, as a view, or its documents, which are a share of them.

        >>> from charjax import DataConfig
        >>> from charjax.text.survey import survey
        >>> corpus = load(survey(DataConfig(), text="0123456789"))
        >>> corpus.split("validation", (0.9, 0.1, 0.0))
        array([9], dtype=uint8)
        """
        whole = self.whole
        if isinstance(whole, Documents):
            ranks = boundaries(whole.count, name, shares)
            return dataclasses.replace(whole, ranks=ranks)
        start, stop = boundaries(len(self.ids), name, shares)
        return self.ids[start:stop]


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """Ids or documents as text, in pieces that are made each time it is read; a line end
    stands behind each document."""

    ids: UInt[np.ndarray, "symbols"] | Documents
    vocabulary: Vocabulary

    def __repr__(self) -> str:
        return f"<Decoded {len(self.ids):,} {self.vocabulary.kind}>"

    def __iter__(self) -> Iterator[str]:
        """
        >>> list(Decoded(np.array([195, 169], np.uint8), Vocabulary.of_bytes()))
        ['é']
        """
        if isinstance(self.ids, Documents):
            texts = self.ids.texts(self.vocabulary)
            while some := "".join(f"{text}\n" for text in itertools.islice(texts, PIECE)):
                yield some
            return
        decode = self.vocabulary.decoder()
        for start in range(0, len(self.ids), PIECE):
            yield decode(self.ids[start : start + PIECE])

    def documents(self) -> Iterator[str]:
        """Each document; none of a text without."""
        if isinstance(self.ids, Documents):
            yield from self.ids.texts(self.vocabulary)

    def held_out(self) -> Iterator[str]:
        """Each document of the text that is in another part than these."""
        if not isinstance(self.ids, Documents):
            return
        first, stop = self.ids.ranks
        for ranks in ((0, first), (stop, len(self.ids.stops))):
            yield from dataclasses.replace(self.ids, ranks=ranks).texts(self.vocabulary)


def boundaries(n: int, split: Split, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Where a split of a text of `n` symbols, or of `n` documents, begins and ends.

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
    index = SPLITS.index(split)
    return stops[index], stops[index + 1]


def length_of_split(survey: Survey, name: Split) -> int:
    """How many symbols a split of a text will have, before its ids are there.

    >>> from charjax import DataConfig
    >>> from charjax.text.survey import survey
    >>> length_of_split(survey(DataConfig(), text="0123456789"), "train")
    9
    """
    shares, stops = survey.data.split, survey.stops
    if stops is not None:
        return positions(stops, boundaries(len(stops), name, shares))
    start, stop = boundaries(survey.text.length, name, shares)
    return stop - start


def load(survey: Survey, watch: Watch = silent) -> Corpus:
    """The ids of a surveyed text.

    Those of files are memory-mapped from `cache_directory() / "tokens"`, and written
    there first unless a whole and undamaged copy is there. A text in memory stays there.
    Of several processes that need the same ids one writes them, and the others wait.
    Raises InputError when a file has changed since the survey, and when the cache cannot
    be written.

    >>> from charjax import DataConfig
    >>> from charjax.text.survey import survey
    >>> load(survey(DataConfig(), text="hello")).ids
    array([1, 0, 2, 2, 3], dtype=uint8)
    """
    if isinstance(survey.origin, tuple):
        ids = _cached(survey, watch)
        if survey.index_name is not None:
            token_cache.write_index(survey.index_name, survey.text)
    else:
        ids = np.concatenate(list(_encoded(survey, Tally())))
    return Corpus(ids, survey.text, survey.stops)


def _encoded(survey: Survey, tally: Tally) -> Iterator[np.ndarray]:
    vocabulary = survey.text.vocabulary
    for chunk, ends in pieces(survey.origin, survey.data, tally):
        ids = vocabulary.encode_codes(codes(chunk))
        if ids.min(initial=0) < 0:
            known = ids >= 0
            ids, ends = ids[known], None if ends is None else left(ends, known)
        if ends is not None and vocabulary.end is not None:
            ids = insert_ends(ids, ends, vocabulary.end)
        yield ids.astype(vocabulary.id_dtype)


def _cached(survey: Survey, watch: Watch) -> np.ndarray:
    fingerprint = survey.text.fingerprint
    ids = token_cache.read(fingerprint, watch)
    if ids is not None:
        return ids
    with token_cache.lock(fingerprint, watch):
        # Whoever held the lock before us may have written what we need.
        ids = token_cache.read(fingerprint, watch)
        return _write(survey, watch) if ids is None else ids


def _write(survey: Survey, watch: Watch) -> np.ndarray:
    size = sources.size(survey.origin)
    tally = Tally(counter(watch, "encoding the text", size))

    def verify(written: int) -> None:
        if tally.raw_digest() != survey.raw_digest or written != survey.text.length:
            raise InputError(
                f"{named(survey.text.sources)}: the text has changed since it was read a "
                "moment ago; start again once nothing writes to it."
            )

    return token_cache.write(survey.text, _encoded(survey, tally), verify, survey.stops)
