"""How the next character is drawn from a model's scores.

Imports no jax, so that a command can show its options at once.

The steps that are on follow each other in this order: bans, no_repeat and the repetition
penalty; temperature; top_k, top_p, min_p, typical_p; the draw. Each of the four sees the
distribution that the step before it has left, scaled to a sum of 1. Of symbols that are
equally likely the one with the lower id stays. At temperature 0 the likeliest symbol after
bans and penalty is taken, and the four change nothing.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from charjax.config.checks import (
    AtLeast,
    NotEmpty,
    Positive,
    Share,
    check_fields,
    refuse,
)

_STATIC: dict[str, Any] = {"static": True}


@dataclass(frozen=True)
class SamplingOptions:
    """What a draw may be told; checked when it is built.

    Numbers reach the compiled loop as data, so that a new one compiles nothing. What is
    marked `static` compiles anew, and so does turning a step on or off.

    >>> SamplingOptions(temperature=-1)
    Traceback (most recent call last):
    charjax.errors.InputError: `temperature` is -1.0: give 0 or a positive number.
    """

    temperature: Annotated[float, Positive(zero=True)] = 1.0
    """0 takes the likeliest character each time; 1 draws from the model as it is; less is
    safer, more is wilder. Probabilities are raised to the power of 1 / temperature."""

    top_k: Annotated[int | None, AtLeast(1)] = field(default=None, metadata=_STATIC)
    """Draw among the k likeliest characters only (Fan et al. 2018)."""

    top_p: Annotated[float | None, Share(zero=False)] = None
    """Draw among the fewest likeliest characters that have this share of the probability
    together (nucleus sampling, Holtzman et al. 2020)."""

    min_p: Annotated[float | None, Share(zero=False)] = None
    """Draw among the characters that are at least this share as likely as the likeliest
    (Nguyen et al. 2024): few where the model is sure, many where it is not."""

    typical_p: Annotated[float | None, Share(zero=False)] = None
    """Draw among the characters whose surprise is closest to the expected surprise, the
    fewest that have this share of the probability together (Meister et al. 2023)."""

    repetition_penalty: Annotated[float | None, Positive()] = None
    """Raise the probability of each character among the last `repetition_window` to this
    power: above 1 repeats less, below 1 more (after Keskar et al. 2019, on probabilities
    rather than scores, so that a constant added to all scores changes nothing)."""

    repetition_window: Annotated[int, AtLeast(1)] = field(default=64, metadata=_STATIC)
    """How many characters back repetition_penalty looks, the prime included."""

    no_repeat: Annotated[int | None, AtLeast(1)] = field(default=None, metadata=_STATIC)
    """Never write the same N characters in a row twice, the prime included (Paulus et al.
    2018). Where that leaves nothing to draw, the text ends there."""

    ban: Annotated[str | tuple[str, ...] | None, NotEmpty()] = field(
        default=None, metadata=_STATIC
    )
    """Never draw these characters; a name stands for a class: digits, letters, uppercase,
    lowercase, punctuation, whitespace."""

    allow: Annotated[str | tuple[str, ...] | None, NotEmpty()] = field(
        default=None, metadata=_STATIC
    )
    """Draw these characters only; classes as in ban, which wins over it."""

    stop: Annotated[str | tuple[str, ...] | None, NotEmpty()] = field(
        default=None, metadata=_STATIC
    )
    """End a text with the first of these strings that it writes; one may begin in the
    prime."""

    min_length: Annotated[int, AtLeast(0)] = 0
    """Before so many new characters, strings in stop are ignored and a document does not
    end."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def remembers(self) -> bool:
        """Whether a draw depends on more of the text than the model's state holds."""
        steps = (self.repetition_penalty, self.no_repeat, self.stop)
        return any(step is not None for step in steps)

    def check_vocabulary(self, size: int) -> None:
        """Raises InputError for what means nothing with so many symbols.

        >>> SamplingOptions(top_k=5).check_vocabulary(65)
        """
        if self.top_k is not None and self.top_k > size:
            refuse(
                *("`top_k`", self.top_k),
                f"give a number from 1 to {size}, the size of the vocabulary, or None to "
                "draw from all",
            )


class SamplingKeywords(TypedDict, total=False):
    """The fields of SamplingOptions as keywords, which type checkers can't derive."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    repetition_window: int
    no_repeat: int | None
    ban: str | tuple[str, ...] | None
    allow: str | tuple[str, ...] | None
    stop: str | tuple[str, ...] | None
    min_length: int
