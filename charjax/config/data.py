"""The fields of `data`."""

import dataclasses
import typing
from typing import Annotated, Literal

from charjax.config.checks import (
    AtLeast,
    Encoding,
    NotEmpty,
    Section,
    Share,
    check_fields,
    refuse,
)

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = typing.get_args(Split)
"""The parts of a text, in this order."""

OnUnknown = Literal["error", "skip"]
"""What to do with characters that a model does not know."""


@dataclasses.dataclass(frozen=True, repr=False)
class DataConfig(Section):
    """The text, its symbols, and how it is cut into batches."""

    source: Annotated[str | tuple[str, ...], NotEmpty()] = ("python-reference",)
    """The text: a file, a folder (its *.txt), a pattern such as 'books/*.txt', several of
    these (read in this order), or one name of python-reference, names (both built in),
    tinyshakespeare, anna, mysterious-island, enwik8, text8 (downloaded once)."""

    vocabulary: Literal["characters", "bytes"] = "characters"
    """The symbols: the Unicode characters that occur, or the 256 bytes."""

    encoding: Annotated[str, Encoding()] = "utf-8"
    """How files become characters. A UTF-8 or UTF-16 byte-order mark overrides it."""

    start_marker: Annotated[str | None, NotEmpty()] = None
    """Drop what comes before the first occurrence of this string, which is kept."""

    end_marker: Annotated[str | None, NotEmpty()] = None
    """Drop everything from the first occurrence of this string after the start."""

    documents: Annotated[str, NotEmpty()] = "none"
    """What of the text is one document, with a start and an end that are learned: none,
    lines (each line is one), files, or the string that stands between two."""

    split: Annotated[tuple[float, float, float], Share()] = (0.9, 0.1, 0.0)
    """Shares of train, validation and test, cut from the text in this order. Documents stay
    whole, and which of them go where is drawn."""

    batching: Literal["streams", "windows"] = "streams"
    """streams: batch_size contiguous rows, the recurrent state carried from window to
    window. windows: shuffled windows that start anywhere, the state zero each time."""

    batch_size: Annotated[int, AtLeast(1)] = 32
    """Rows per update, over all devices."""

    sequence_length: Annotated[int, AtLeast(1)] = 64
    """Characters per row and update: the length of back-propagation through time."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if isinstance(self.source, str):
            object.__setattr__(self, "source", (self.source,))
        if abs(sum(self.split) - 1) > 1e-6 or self.split[0] == 0:
            refuse(
                "data.split",
                self.split,
                "the shares must add up to 1 and leave something to train on, "
                "such as 0.9 0.1 0.0",
            )
        if not self.has_documents:
            return
        if self.batching == "windows":
            remedy = "with data.documents give streams, which read each from its start"
            refuse("data.batching", self.batching, remedy)
        for name in ("start_marker", "end_marker"):
            value = getattr(self, name)
            if self.documents == "files" and value is not None:
                remedy = "with data.documents files each file is read whole; leave it out"
                refuse(f"data.{name}", value, remedy)

    @property
    def has_documents(self) -> bool:
        """Whether the text is one of documents."""
        return self.documents != "none"

    @property
    def sources(self) -> tuple[str, ...]:
        """`source` as the tuple it always is after construction."""
        return typing.cast(tuple[str, ...], self.source)
