"""What a text is, as everything that learns from it or reports on it needs to know."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int64

from charjax.errors import counted
from charjax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class TextDescription:
    """What a text is: the one value that survey, corpus, checkpoint and model share.

    `sources` and `notes` are for people, and are not kept in checkpoints.

    >>> text = TextDescription(Vocabulary.from_text("ab"), np.array([1, 4]), "c0ffee")
    >>> text.length
    5
    """

    vocabulary: Vocabulary
    counts: Int64[np.ndarray, "vocab"] = dataclasses.field(repr=False)
    """How often each symbol occurs; all 0 where that is not known."""

    fingerprint: str
    """The hex SHA-256 of the clean text, the vocabulary and a format number: the same
    content has the same one, wherever it comes from."""

    sources: tuple[str, ...] = ()
    """Where the text comes from: paths, or the name of the text."""

    notes: tuple[str, ...] = ()
    """One line for each thing that was done to the text or is odd about it."""

    def __repr__(self) -> str:
        where = f", of {named(self.sources)}" if self.sources else ""
        return f"<TextDescription {self.summary}{where}>"

    @property
    def summary(self) -> str:
        """How long the text is, and how many symbols there are.

        >>> TextDescription(Vocabulary.from_text("ab"), np.array([1, 4]), "c0ffee").summary
        '5 characters, 2 symbols'
        """
        kind, end = self.vocabulary.kind, self.vocabulary.end
        documents = 0 if end is None else int(self.counts[end])
        known = counted(self.length - documents, kind)
        if not self.length:
            known = f"{kind} of an unknown text"
        elif documents:
            known += f" in {counted(documents, 'documents')}"
        return f"{known}, {counted(self.vocabulary.size, 'symbols')}"

    @functools.cached_property
    def length(self) -> int:
        """How many symbols the text has, the end of each document counted."""
        return int(self.counts.sum())

    def lines(self) -> list[str]:
        """The description, ready to print.

        >>> text = TextDescription(Vocabulary.from_text("ab"), np.array([1, 4]), "c0ffee")
        >>> text.lines()
        [': 5 characters, 2 symbols', "rarest: 'a' 1, 'b' 4"]
        """
        present = np.flatnonzero(self.counts)
        present = present[present != self.vocabulary.end]
        # Stable, so that equally rare symbols come in the order of the vocabulary.
        rarest = present[np.argsort(self.counts[present], kind="stable")][:5].tolist()
        symbols = self.vocabulary.symbols
        shown = (
            f"{repr(symbols[i]) if symbols else f'0x{i:02x}'} {self.counts[i]:,}"
            for i in rarest
        )
        return [
            f"{named(self.sources)}: {self.summary}",
            *self.notes,
            f"rarest: {', '.join(shown)}",
        ]


def named(sources: tuple[str, ...]) -> str:
    """The first few sources, and how many more there are.

    >>> named(("a.txt", "b.txt", "c.txt", "d.txt"))
    'a.txt, b.txt, c.txt and 1 more'
    """
    more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
    return ", ".join(sources[:3]) + more
