"""How the next character is drawn from a model's scores.

Imports no jax, so that a command can show its options at once.
"""

from dataclasses import dataclass, field
from typing import TypedDict

from charjax.errors import InputError

_LARGEST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True)
class SamplingOptions:
    """What a draw may be told.

    Numbers reach the compiled loop as data, so that a new one compiles nothing. What is
    marked `static` compiles anew, and so does turning a step on or off.
    """

    temperature: float = 1.0
    """0 takes the likeliest character each time; 1 draws from the model as it is; less is
    safer, more is wilder."""

    top_k: int | None = field(default=None, metadata={"static": True})
    """Draw among the k likeliest characters only."""

    def check(self, vocab_size: int) -> None:
        """Raises InputError for what means nothing with so many symbols.

        >>> SamplingOptions(temperature=0.8, top_k=5).check(vocab_size=65)
        """
        if not 0 <= self.temperature <= _LARGEST_FLOAT32:
            raise InputError(
                f"temperature is {self.temperature}: give 0 (always the likeliest "
                "character) or a positive number; 1 draws from the model as it is."
            )
        if self.top_k is not None and not 1 <= self.top_k <= vocab_size:
            raise InputError(
                f"top_k is {self.top_k}: give a number from 1 to {vocab_size}, the size of "
                "the vocabulary, or nothing to draw from all."
            )


class SamplingKeywords(TypedDict, total=False):
    """The fields of SamplingOptions as keywords."""

    temperature: float
    top_k: int | None
