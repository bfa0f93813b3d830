"""How a model that is scored goes on learning.

Imports no jax, so that a command can show its options at once.
"""

from dataclasses import dataclass
from typing import Annotated

from charjax.config.checks import AtLeast, Positive, Share, check_fields


@dataclass(frozen=True)
class Dynamic:
    """How a model goes on learning.

    >>> Dynamic(rate=0)
    Traceback (most recent call last):
    charjax.errors.InputError: `rate` is 0.0: give a positive number.
    """

    rate: Annotated[float, Positive()] = 5e-4
    """Learning rate: about how far a parameter moves with each segment."""

    decay: Annotated[float, Share()] = 0.005
    """Share of the way back to where a parameter began, with each segment."""

    length: Annotated[int, AtLeast(1)] = 20
    """Symbols in a segment."""

    def __post_init__(self) -> None:
        check_fields(self)
