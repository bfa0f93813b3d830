"""What of the sampling options depends on the vocabulary: which symbols may be drawn, and
where a text ends."""

import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from charjax.config.checks import refuse
from charjax.errors import InputError
from charjax.sampling.options import SamplingOptions
from charjax.text.vocabulary import Vocabulary, describe_unknown

CLASSES: dict[str, Callable[[str], bool]] = {
    "digits": str.isdigit,
    "letters": str.isalpha,
    "uppercase": str.isupper,
    "lowercase": str.islower,
    "punctuation": lambda c: c in string.punctuation or _is_punctuation(c),
    "whitespace": str.isspace,
}
"""The classes of characters that have a name."""


class Limits(NamedTuple):
    """Which symbols may be drawn and what ends a text, in ids."""

    allowed: Bool[np.ndarray, "vocab"] | None = None
    """None allows all."""

    stops: Int32[np.ndarray, "stops longest"] | None = None
    """Ids of the strings that end a text, -1 before shorter ones."""

    end: int | None = None
    """The symbol that ends a text."""


def limits_of(options: SamplingOptions, vocabulary: Vocabulary) -> Limits:
    """The limits that options set to texts of a vocabulary. The symbol that starts a
    document is never drawn, and the one that ends it may be, whatever is banned.

    Raises:
      InputError: no symbol is left to draw, a character that one symbol cannot stand for,
        or a stop string that can never be written.

    >>> limits_of(SamplingOptions(ban="letters"), Vocabulary.from_text("a1b")).allowed
    array([ True, False, False])
    """
    allowed, of_text = None, len(_symbols(vocabulary))
    if options.allow is not None or options.ban is not None:
        allowed = np.ones(of_text, bool)
        if options.allow is not None:
            allowed = _members("allow", options.allow, vocabulary)
        if options.ban is not None:
            allowed &= ~_members("ban", options.ban, vocabulary)
        if not allowed.any():
            name = "ban" if options.allow is None else "allow"
            refuse(
                *(f"`{name}`", getattr(options, name)),
                "no symbol of the vocabulary is left to draw; ban fewer or allow more",
            )
    if vocabulary.documents:
        allowed = np.ones(of_text, bool) if allowed is None else allowed
        allowed = np.append(allowed, [False, True])
    return Limits(allowed, _stops(options.stop, vocabulary), vocabulary.end)


def _members(
    name: str, given: str | tuple[str, ...], vocabulary: Vocabulary
) -> Bool[np.ndarray, " symbols"]:
    """Which of the symbols of the text are among some characters."""
    symbols = _symbols(vocabulary)
    found = np.zeros(len(symbols), bool)
    for each in (given,) if isinstance(given, str) else given:
        if each in CLASSES:
            found |= np.array([CLASSES[each](symbol) for symbol in symbols], bool)
            continue
        if vocabulary.kind == "bytes" and not each.isascii():
            refuse(
                *(f"`{name}`", each),
                "a model of bytes draws one byte at a time, and these characters take "
                "several; give ASCII characters or a class",
            )
        found |= np.array([symbol in each and symbol != "" for symbol in symbols], bool)
    return found


def _symbols(vocabulary: Vocabulary) -> list[str]:
    """What each symbol of the text is as a character; of bytes those that are one by
    themselves, and nothing else."""
    if vocabulary.kind == "characters":
        return list(vocabulary.symbols)
    return [chr(byte) if byte < 128 else "" for byte in range(256)]


def _stops(
    given: str | tuple[str, ...] | None, vocabulary: Vocabulary
) -> Int32[np.ndarray, "stops longest"] | None:
    if given is None:
        return None
    encoded = []
    for each in (given,) if isinstance(given, str) else given:
        try:
            encoded.append(vocabulary.encode(each).astype(np.int32))
        except InputError:
            known = _symbols(vocabulary)
            lacking = [ord(symbol) for symbol in dict.fromkeys(each) if symbol not in known]
            refuse(
                *("`stop`", each),
                f"the model can never write it: {describe_unknown(lacking)}",
            )
    longest = max(map(len, encoded))
    padded = [np.pad(ids, (longest - len(ids), 0), constant_values=-1) for ids in encoded]
    return np.stack(padded)


def _is_punctuation(character: str) -> bool:
    import unicodedata

    return character != "" and unicodedata.category(character).startswith("P")
