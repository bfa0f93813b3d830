"""Which passages of some texts a corpus has too: exact, and the corpus is read once.

Each passage of the given length in the texts has a number. The corpus goes by in blocks: a
hash of each of its passages is looked for among those of the texts, and what is found is
compared. The longest common passage is made of these, from one place to the next: names of
passages of some length, in pairs, are names of longer ones (Karp, Miller, Rosenberg 1972).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt, UInt64

# Codes of the corpus that are hashed at once: arrays that fit a processor's cache.
_BLOCK = 2**16
# Places that are kept until they are looked at for the longest passage.
_KEPT = 2**20
# A passage of the corpus that the texts lack passes the first look in one of so many cases.
_FILTER = 64
# Between two texts: no code of a character.
BETWEEN = 0x110000

Codes = UInt[np.ndarray, " codes"]


class Place(NamedTuple):
    """A passage that texts and corpus have."""

    length: int
    in_texts: int
    in_corpus: int


class _Places(NamedTuple):
    """Places in both texts, ascending, and the name of the passage that begins at each."""

    at: Int64[np.ndarray, " places"]
    """Those of the texts follow behind all those of the corpus."""

    names: Int64[np.ndarray, " places"]


def common_passages(
    texts: Codes, corpus: Iterable[Codes], length: int
) -> tuple[Bool[np.ndarray, " codes"], Place | None]:
    """Which codes of the texts stand in a passage of `length` or more that the corpus has,
    and the longest of those: of several the first in the corpus, and then in the texts.

    Takes time about in proportion to both, and memory for the texts and two blocks.
    """
    copied = np.zeros(len(texts), bool)
    if len(texts) < length:
        return copied, None
    named = _Named.of(texts, length)
    found = np.zeros(len(named.hashes), bool)
    kept, longest = [np.zeros((2, 0), np.int64)], None
    count = end = 0
    for start, block in _blocks(corpus, length):
        places = named.places(block) + np.array([[start], [0]])
        found[places[1]] = True
        kept.append(places)
        count, end = count + places.shape[1], start + len(block) - length + 1
        if count > _KEPT + len(texts):
            joined = np.concatenate(kept, 1)
            longest = _longer(joined, named, length, longest)
            # What begins before the end may go on after it.
            kept = [_last_run(joined, end)[:, -len(texts) :]]
            count = kept[0].shape[1]
    longest = _longer(np.concatenate(kept, 1), named, length, longest)
    starts = np.zeros(len(texts) + 1, np.int64)
    begin = np.flatnonzero(found[named.of_place])
    starts[begin] += 1
    starts[begin + length] -= 1
    return np.cumsum(starts)[:-1] > 0, longest


class _Named(NamedTuple):
    """The passages of one length in the texts, numbered by their hashes."""

    texts: Codes
    length: int
    multiplier: np.uint64
    hashes: UInt64[np.ndarray, " names"]
    """Ascending."""

    first: Int64[np.ndarray, " names"]
    """Where each stands first."""

    of_place: Int64[np.ndarray, " places"]
    """The name of the passage that begins at each place."""

    may_have: Bool[np.ndarray, " size"]
    """What a hash begins with -> whether one of the texts' does."""

    @classmethod
    def of(cls, texts: Codes, length: int) -> "_Named":
        windows = np.lib.stride_tricks.sliding_window_view(texts, length)
        # Passages with the same hash are to be the same: otherwise another multiplier.
        for multiplier in np.random.default_rng(0).integers(2**63, size=64, dtype="u8"):
            multiplier = 2 * multiplier + 1
            hashes, first, names = np.unique(
                _hashes(texts, length, multiplier), return_index=True, return_inverse=True
            )
            if _all_equal(windows, np.arange(len(windows)), windows, first[names]).all():
                break
        else:
            raise AssertionError("64 hash functions failed")
        bits = (_FILTER * len(hashes)).bit_length()
        may_have = np.zeros(1 << bits, bool)
        may_have[hashes >> np.uint64(64 - bits)] = True
        return cls(texts, length, multiplier, hashes, first, names, may_have)

    def places(self, block: Codes) -> Int64[np.ndarray, "2 places"]:
        """Where in a block of the corpus a passage of the texts begins, and its name."""
        hashes = _hashes(block, self.length, self.multiplier)
        shift = np.uint64(65 - len(self.may_have).bit_length())
        at = np.flatnonzero(self.may_have[(hashes >> shift).view(np.int64)])
        hashes = hashes[at]
        names = np.searchsorted(self.hashes, hashes)
        np.minimum(names, len(self.hashes) - 1, out=names)
        same = self.hashes[names] == hashes
        at, names = at[same], names[same]
        view = np.lib.stride_tricks.sliding_window_view
        own, others = view(self.texts, self.length), view(block, self.length)
        same = _all_equal(others, at, own, self.first[names])
        return np.stack([at[same], names[same]])


def _blocks(corpus: Iterable[Codes], length: int) -> Iterator[tuple[int, Codes]]:
    """Pieces of the corpus, each with where it starts and the codes before it that a
    passage may begin in."""
    before, start = np.zeros(0, np.uint8), 0
    for piece in corpus:
        for first in range(0, len(piece), _BLOCK):
            block = np.concatenate([before, piece[first : first + _BLOCK]])
            if len(block) >= length:
                yield start, block
            before = block[max(0, len(block) - length + 1) :]
            start += len(block) - len(before)


def _hashes(
    codes: Codes, length: int, multiplier: np.uint64
) -> UInt64[np.ndarray, " places"]:
    """A number for each passage of `length`, made of its halves, which may overlap."""
    hashes, size = codes.astype(np.uint64), 1
    while size < length:
        step = min(size, length - size)
        joined = hashes[:-step] * multiplier
        joined += hashes[step:]
        # Without this a product and a sum are no good hash of long passages (Thue-Morse).
        joined ^= joined >> np.uint64(32)
        hashes, size = joined, size + step
    return hashes * multiplier


def _all_equal(
    some: np.ndarray, at: np.ndarray, others: np.ndarray, at_others: np.ndarray
) -> Bool[np.ndarray, " places"]:
    """Whether rows are equal, compared so many at a time that memory is bounded."""
    rows = max(1, 2**22 // some.shape[1])
    parts = [
        np.equal(some[at[k : k + rows]], others[at_others[k : k + rows]]).all(1)
        for k in range(0, len(at), rows)
    ]
    return np.concatenate([np.zeros(0, bool), *parts])


def _last_run(places: np.ndarray, end: int) -> np.ndarray:
    """The places that follow each other up to an end."""
    gaps = np.flatnonzero(np.diff(places[0]) != 1)
    if not places.size or places[0, -1] != end - 1:
        return places[:, :0]
    return places[:, gaps[-1] + 1 if len(gaps) else 0 :]


def _longer(
    places: Int64[np.ndarray, "2 places"],
    named: _Named,
    length: int,
    longest: Place | None,
) -> Place | None:
    """The longest passage of those that begin at places of the corpus, or the one that is
    known if none of them is longer."""
    known = longest.length if longest else length - 1
    # n places in a row are a passage of n + length - 1 at most.
    ends = np.flatnonzero(np.diff(places[0], append=-2) != 1) + 1
    runs = np.diff(ends, prepend=0)
    at, names = places[:, np.repeat(runs + length - 1 > known, runs)]
    if not len(at):
        return longest
    wanted = np.zeros(len(named.hashes), bool)
    wanted[names] = True
    in_texts = np.flatnonzero(wanted[named.of_place])
    offset = int(at[-1]) + 2 * len(named.texts) + 2
    level = _Places(
        np.concatenate([at, in_texts + offset]),
        np.concatenate([names, named.of_place[in_texts]]),
    )
    size, least = length, known + 1
    while size < least:
        step = min(size, least - size)
        level, size = _extended(level, step, offset), size + step
        if not len(level.at):
            return longest
    best, longer = level, _extended(level, size, offset)
    while len(longer.at):
        level, size = longer, 2 * size
        best, longer = level, _extended(level, size, offset)
    some, none = 0, size
    while none - some > 1:
        step = (some + none) // 2
        longer = _extended(level, step, offset)
        some, none = (step, none) if len(longer.at) else (some, step)
        best = longer if len(longer.at) else best
    name = best.names[0]
    texts_from = np.searchsorted(best.at, offset)
    in_texts = best.at[texts_from:][best.names[texts_from:] == name][0] - offset
    return Place(size + some, int(in_texts), int(best.at[0]))


def _extended(places: _Places, step: int, offset: int) -> _Places:
    """Names of the passages that are longer by `step`, of those that both have."""
    at, names = places
    after = np.minimum(np.searchsorted(at, at + step), len(at) - 1)
    there = at[after] == at + step
    pairs = names[there] * (int(names.max(initial=0)) + 1) + names[after[there]]
    at = at[there]
    _, names = np.unique(pairs, return_inverse=True)
    split = np.searchsorted(at, offset)
    count = int(names.max(initial=-1)) + 1
    in_both = np.zeros((2, count), bool)
    in_both[0, names[:split]] = in_both[1, names[split:]] = True
    both = (in_both[0] & in_both[1])[names]
    return _Places(at[both], names[both])
