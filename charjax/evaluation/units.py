"""Nats, bits and perplexity: one number in three units."""

import math
from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)


def bits(nats: Number) -> Number:
    """Nats as bits.

    >>> bits(math.log(2))
    1.0
    """
    return nats / math.log(2)


def perplexity(nats: float) -> float:
    """Nats as a perplexity, exp(nats); infinite where a float overflows.

    >>> perplexity(0.0)
    1.0
    """
    return math.exp(nats) if nats < 709 else math.inf
