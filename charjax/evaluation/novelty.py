"""What of some texts is new, against a corpus: passages that it has too, words it lacks."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from charjax.config.checks import AtLeast, check_instance, checked, refuse
from charjax.errors import counted
from charjax.evaluation.passages import BETWEEN, common_passages
from charjax.text.vocabulary import PIECE, codes

# Words and characters of a passage that a report shows.
_SHOWN_WORDS = 10
_SHOWN = 60


@dataclass(frozen=True)
class Passage:
    """A passage of a text that the corpus has too."""

    text: str

    number: int
    """Which of the texts it is in, from 0."""

    start: int
    """The characters before it in that text."""

    corpus_start: int
    """The characters before it in the corpus, where it stands there first."""


@dataclass(frozen=True)
class Novelty:
    """How much of some texts is copied from a corpus, and which words it lacks."""

    texts: int

    characters: int
    """How long the texts are together."""

    copied: int
    """How many of these stand in a passage of `length` or more that the corpus has."""

    length: int

    longest: Passage | None
    """The longest of those passages, the first in the corpus of several; None where
    there is none."""

    words: int
    """How many words the texts have: letters, digits and their marks in a row, at least one
    letter among them."""

    new: int
    """How many of these the corpus has nowhere, be it in capitals or not."""

    new_words: tuple[str, ...]
    """Which these are, each once, as they stand first in the texts."""

    @property
    def copied_share(self) -> float:
        """The share of characters that are copied; 0 of no text."""
        return self.copied / self.characters if self.characters else 0.0

    @property
    def new_share(self) -> float:
        """The share of words that are new; 0 where there are no words."""
        return self.new / self.words if self.words else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        shares = {"copied_share": self.copied_share, "new_share": self.new_share}
        return {**dataclasses.asdict(self), **shares, "new_words": list(self.new_words)}

    def lines(self) -> list[str]:
        """A report for people.

        >>> found = novelty("the cat sat, miaowing", "The cat sat.", length=8)
        >>> print("\\n".join(found.lines()))
        copied: 10 of 21 characters (47.6%), in passages of 8 or more
        longest: 10 characters, at 1 of the text and 1 of the corpus: 'he cat sat'
        new words: 1 of 4 (25.0%): miaowing
        """
        report = [
            f"copied: {self.copied:,} of {counted(self.characters, 'characters')} "
            f"({self.copied_share:.1%}), in passages of {self.length} or more"
        ]
        if (found := self.longest) is not None:
            shown = found.text[:_SHOWN]
            more = " ..." if len(found.text) > _SHOWN else ""
            where = "the text" if self.texts == 1 else f"text {found.number + 1}"
            report.append(
                f"longest: {counted(len(found.text), 'characters')}, at {found.start:,} of "
                f"{where} and {found.corpus_start:,} of the corpus: {shown!r}{more}"
            )
        words = " ".join(self.new_words[:_SHOWN_WORDS])
        more = " ..." if len(self.new_words) > _SHOWN_WORDS else ""
        report.append(
            f"new words: {self.new:,} of {self.words:,} ({self.new_share:.1%})"
            + (f": {words}{more}" if words else "")
        )
        return report


@dataclass(frozen=True)
class KnownDocuments:
    """How many of some documents are, as a whole, in the text that a model learned from."""

    in_training: int

    in_held_out: int
    """In what was held out, and not in what was trained on."""

    new: int

    def lines(self) -> list[str]:
        """A report for people.

        >>> known_documents(["ada", "ida", "oda"], ["ada"], ["ida", "eva"]).lines()
        ['documents: 1 in training text, 1 in held-out text, 1 new (33.3%)']
        """
        count = self.in_training + self.in_held_out + self.new
        share = self.new / count if count else 0.0
        return [
            f"documents: {self.in_training:,} in training text, {self.in_held_out:,} in "
            f"held-out text, {self.new:,} new ({share:.1%})"
        ]


def known_documents(
    texts: Sequence[str], training: Iterable[str], held_out: Iterable[str]
) -> KnownDocuments:
    """Which of some documents, one counted as often as it is given, a text has.

    Args:
      texts: the documents that were written.
      training: those trained on, such as `text_of_run(workdir).documents()`.
      held_out: the others, such as `text_of_run(workdir).held_out()`.
    """
    written = set(texts)
    trained = {text for text in training if text in written}
    other = {text for text in held_out if text in written} - trained
    in_training = sum(text in trained for text in texts)
    in_held_out = sum(text in other for text in texts)
    new = len(texts) - in_training - in_held_out
    return KnownDocuments(in_training, in_held_out, new)


def novelty(
    texts: str | Sequence[str], corpus: str | Iterable[str], *, length: int = 20
) -> Novelty:
    """What of some texts is new, against the corpus that a model has learned from.

    Exact: passages are found by hashes and then compared. It takes time about in proportion
    to texts and corpus, and memory for the texts and two pieces of the corpus, which is
    read twice.

    Args:
      texts: a text or several; no passage goes from one into the next.
      corpus: a text, or the pieces of one, such as `charjax.text_of_run(workdir)`.
      length: from how many characters on a passage counts as copied.

    Raises:
      InputError: a corpus that can be read only once, such as a generator.

    >>> found = novelty("to be or not to bee", "to be or not to be")
    >>> found.copied, found.new_words, novelty("abcd", "xabc", length=3).copied
    (0, ('bee',), 3)
    """
    length = checked("`length`", length, Annotated[int, AtLeast(1)])
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        check_instance("texts", text, str, "or several")
    if not isinstance(corpus, str) and iter(corpus) is corpus:
        refuse("`corpus`", corpus, "it can be read only once; give a str, or a list")
    parts = [part for text in texts for part in (codes(text), [BETWEEN])]
    joined = np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.uint32)
    copied, place = common_passages(joined, map(codes, _pieces(corpus)), length)
    longest = None
    if place is not None:
        first = np.cumsum([0, *(len(text) + 1 for text in texts)])
        number = int(np.searchsorted(first, place.in_texts, "right")) - 1
        start = place.in_texts - int(first[number])
        passage = texts[number][start : start + place.length]
        longest = Passage(passage, number, start, place.in_corpus)
    words = [word for text in texts for word in _words(text) if _has_letter(word)]
    lacking = _lacking({word.casefold() for word in words}, _pieces(corpus))
    new = [word for word in words if word.casefold() in lacking]
    # Of words that differ in capitals only the first is shown.
    shown = {word.casefold(): word for word in reversed(new)}
    in_order = tuple(shown[each] for each in dict.fromkeys(map(str.casefold, new)))
    return Novelty(
        *(len(texts), sum(map(len, texts)), int(copied.sum()), length, longest),
        *(len(words), len(new), in_order),
    )


def _pieces(corpus: str | Iterable[str]) -> Iterator[str]:
    for part in (corpus,) if isinstance(corpus, str) else corpus:
        check_instance("corpus", part, str, "or the pieces of one")
        for start in range(0, len(part), PIECE):
            yield part[start : start + PIECE]


def _lacking(words: set[str], pieces: Iterable[str]) -> set[str]:
    """Which of some words occur nowhere in a corpus."""
    words, longest, begun = set(words), max(map(len, words), default=0), ""
    for piece in pieces:
        text = begun + piece
        found, begun = _words(text), ""
        if found and text.endswith(found[-1]):
            # It may go on in the next piece; one that is too long stays too long.
            begun = found.pop()[-longest - 1 :]
        words.difference_update(word.casefold() for word in set(found))
    words.discard(begun.casefold())
    return words


def _words(text: str) -> list[str]:
    """All runs of letters, digits and the marks that belong to them.

    >>> list(map(len, _words("nai\\u0308ve, 19th")))
    [6, 4]
    """
    # Python does not count marks among the characters of a word.
    marks = {c for c in set(text) if c > "\u02ff" and unicodedata.category(c)[0] == "M"}
    return re.findall(rf"[\w{''.join(sorted(marks))}]+", text)


def _has_letter(word: str) -> bool:
    return any(map(str.isalpha, word))
