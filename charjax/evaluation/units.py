"""Nats, bits and perplexity, per character, byte or symbol."""

import math
from typing import TypeVar

import numpy as np

from charjax.config.schema import Config
from charjax.text.batching import Batch

# Bytes looked at in one go.
PIECE = 2**24

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


def unit(config: Config) -> str:
    """What one symbol is, so that a loss is nats per this.

    >>> unit(Config())
    'character'
    """
    if config.data.has_documents:
        # The end of a document is one, and is neither a character nor a byte.
        return "symbol"
    return config.data.vocabulary.removesuffix("s")


def of_loss(config: Config) -> str:
    """The unit of a loss.

    >>> of_loss(Config())
    'nats per character'
    """
    return f"nats per {unit(config)}"


def short(unit: str) -> str:
    """A unit as it stands in the names of numbers, such as `bits_per_char`.

    >>> short("character"), short("byte"), short("symbol")
    ('char', 'byte', 'symbol')
    """
    return "char" if unit == "character" else unit


def in_characters(symbols: np.ndarray) -> int:
    """How many UTF-8 characters some bytes are of, where the first may have begun before.

    >>> in_characters(np.frombuffer("aé".encode(), np.uint8))
    2
    >>> in_characters(np.frombuffer("é".encode()[1:], np.uint8))
    1
    """
    begun = 0
    for start in range(0, len(symbols), PIECE):
        begun += int(((symbols[start : start + PIECE] & 0xC0) != 0x80).sum())
    return begun + bool(len(symbols) and (int(symbols[0]) & 0xC0) == 0x80)


def in_characters_of_documents(batch: Batch) -> int:
    """How many UTF-8 characters begin in a batch of documents of bytes.

    What no character begins with does so at the start of a document.
    """
    begun = (batch.targets & 0xC0) != 0x80
    return int((batch.mask & (batch.targets < 256) & (begun | batch.reset)).sum())
