"""How the next character is drawn from a model's scores.

Imports no jax, so that a command can show its options at once.
"""

from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from charjax.config.checks import AtLeast, Positive, check_fields, refuse


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
    safer, more is wilder."""

    top_k: Annotated[int | None, AtLeast(1)] = field(
        default=None, metadata={"static": True}
    )
    """Draw among the k likeliest characters only."""

    def __post_init__(self) -> None:
        check_fields(self)

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
