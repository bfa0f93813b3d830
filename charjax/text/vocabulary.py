"""Which symbols there are, and the two directions between text and ids."""

import codecs
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Int32, Integer, UInt

from charjax.config.checks import check_fields, check_instance, checked, refuse
from charjax.config.data import OnUnknown
from charjax.errors import InputError

# Symbols encoded at a time; each takes several times four bytes of scratch space.
PIECE = 2**20


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of a model, numbered from 0: characters (code points) or bytes.

    `symbols` holds the characters in ascending order, each once, lone surrogates
    included; it is empty for bytes, where a symbol's id is its value. Of a text of
    `documents` two more symbols follow, which are no character: where a document starts,
    and where it ends. Raises InputError for any other content.

    >>> vocabulary = Vocabulary.from_text("banana")
    >>> vocabulary.symbols, vocabulary.size
    ('abn', 3)
    >>> vocabulary.encode("nab")
    array([2, 0, 1], dtype=uint8)
    >>> vocabulary.decode([1, 0, 2])
    'ban'
    >>> Vocabulary("characters", "abn", documents=True).end
    4
    """

    kind: Literal["characters", "bytes"]
    symbols: str = ""
    documents: bool = False

    def __repr__(self) -> str:
        symbols = self.symbols
        if len(symbols) > 60:
            documents = ", of documents" if self.documents else ""
            return (
                f"<Vocabulary of {len(symbols):,} characters, {symbols[:20]!r} to "
                f"{symbols[-20:]!r}{documents}>"
            )
        documents = ", documents=True" if self.documents else ""
        return f"Vocabulary(kind={self.kind!r}, symbols={symbols!r}{documents})"

    def __post_init__(self) -> None:
        check_fields(self, "vocabulary")
        if self.kind == "bytes":
            if self.symbols:
                remedy = "a vocabulary of bytes always has all 256; leave it empty"
                refuse("vocabulary.symbols", self.symbols, remedy)
            return
        if not self.symbols:
            refuse("vocabulary.symbols", self.symbols, "give at least one character")
        found = codes(self.symbols)
        if (found[1:] <= found[:-1]).any():
            remedy = "give the characters in ascending order, each only once"
            refuse("vocabulary.symbols", self.symbols, remedy)

    @classmethod
    def from_text(cls, text: str | Iterable[str]) -> "Vocabulary":
        """The vocabulary of the characters in a text, or in several strings.

        >>> Vocabulary.from_text(["no", "on"])
        Vocabulary(kind='characters', symbols='no')
        """
        if isinstance(text, bytes) or not isinstance(text, Iterable):
            check_instance("text", text, str, "or several; of bytes there is `of_bytes`")
        found: set[str] = set()
        for piece in (text,) if isinstance(text, str) else text:
            check_instance("text", piece, str, "or several")
            found.update(piece)
        return cls("characters", "".join(sorted(found)))

    @classmethod
    def of_bytes(cls) -> "Vocabulary":
        """The vocabulary of all 256 bytes, in which nothing is ever unknown.

        >>> Vocabulary.of_bytes().encode("é")
        array([195, 169], dtype=uint8)
        """
        return cls("bytes")

    @property
    def size(self) -> int:
        """How many symbols there are, start and end of documents included."""
        return self._of_text + 2 * self.documents

    @property
    def start(self) -> int | None:
        """The symbol before the first one of a document; None of a text without."""
        return self._of_text if self.documents else None

    @property
    def end(self) -> int | None:
        """The symbol after the last one of a document; None of a text without."""
        return self._of_text + 1 if self.documents else None

    @property
    def _of_text(self) -> int:
        return 256 if self.kind == "bytes" else len(self.symbols)

    def __len__(self) -> int:
        return self.size

    @property
    def id_dtype(self) -> np.dtype:
        """The narrowest unsigned type that holds every id.

        >>> Vocabulary.of_bytes().id_dtype
        dtype('uint8')
        >>> Vocabulary.from_text(map(chr, range(257))).id_dtype
        dtype('uint16')
        """
        return np.min_scalar_type(self.size - 1)

    def encode(
        self, text: str | bytes, on_unknown: OnUnknown = "error"
    ) -> UInt[np.ndarray, "symbols"]:
        """Text as ids, of `id_dtype`.

        Bytes given to a vocabulary of characters are read as UTF-8; a str given to a
        vocabulary of bytes is written as UTF-8, lone surrogates included. Characters
        without an id raise an InputError that lists them, or are left out if `on_unknown`
        is "skip".

        >>> Vocabulary.from_text("ab").encode("a-b", on_unknown="skip")
        array([0, 1], dtype=uint8)
        """
        check_instance("text", text, (str, bytes))
        checked("`on_unknown`", on_unknown, OnUnknown)
        if self.kind == "bytes":
            raw = to_bytes(text) if isinstance(text, str) else text
            return np.frombuffer(raw, np.uint8).copy()
        if not isinstance(text, str):
            try:
                text = text.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"the bytes are not UTF-8 at offset {error.start}: decode them first "
                    "and give a str."
                ) from None
        pieces = [np.empty(0, self.id_dtype)]
        unknown: set[int] = set()
        for start in range(0, len(text), PIECE):
            piece = codes(text[start : start + PIECE])
            ids = self.encode_codes(piece)
            unknown.update(np.unique(piece[ids < 0]).tolist())
            pieces.append(ids[ids >= 0].astype(self.id_dtype))
        if unknown and on_unknown == "error":
            raise InputError(
                f"{describe_unknown(sorted(unknown))}: take them out, or leave them out "
                "with `on_unknown='skip'`."
            )
        return np.concatenate(pieces)

    def encode_codes(
        self, codes: Integer[np.ndarray, "symbols"]
    ) -> Int32[np.ndarray, "symbols"]:
        """Code points, or byte values, as ids; unknown is -1."""
        above = len(self._table) - 1
        if np.iinfo(codes.dtype).max > above:
            codes = np.minimum(codes, above)
        return self._table[codes]

    def ids_in(self, other: "Vocabulary") -> Int32[np.ndarray, "symbols"]:
        """The id that each symbol has in another vocabulary of the same kind, -1 where it
        has none there.

        >>> Vocabulary.from_text("abc").ids_in(Vocabulary.from_text("cab b"))
        array([1, 2, 3], dtype=int32)
        """
        every = np.arange(256, dtype=np.uint8)
        of_text = other.encode_codes(every if self.kind == "bytes" else self._codes)
        if not self.documents:
            return of_text
        ends = [-1 if each is None else each for each in (other.start, other.end)]
        return np.append(of_text, np.array(ends, np.int32))

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD. Start and end of
        documents are no text.

        >>> Vocabulary.of_bytes().decode([195, 169, 255])
        'é�'
        """
        if self.kind == "bytes":
            return self.decode_bytes(ids).decode("utf-8", "replace")
        return (
            self._codes[self._checked(ids)].tobytes().decode("utf-32-le", "surrogatepass")
        )

    def decode_bytes(self, ids: npt.ArrayLike) -> bytes:
        """The exact bytes of some ids; characters are written as UTF-8.

        >>> Vocabulary.from_text("é").decode_bytes([0])
        b'\\xc3\\xa9'
        """
        if self.kind == "bytes":
            return self._checked(ids).astype(np.uint8).tobytes()
        return to_bytes(self.decode(ids))

    def decoder(self) -> Callable[[npt.ArrayLike], str]:
        """A function from ids to text that remembers a half-finished UTF-8 sequence.

        Calls in a row return what `decode` would for all the ids at once, as soon as it
        is certain; a sequence that is never finished is never returned.

        >>> decode = Vocabulary.of_bytes().decoder()
        >>> decode([195]), decode([169])
        ('', 'é')
        """
        if self.kind == "characters":
            return self.decode
        incremental = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda ids: incremental.decode(self.decode_bytes(ids))

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON values, safe for any Unicode.

        >>> Vocabulary.from_text("ba").to_dict()
        {'kind': 'characters', 'symbols': [97, 98]}
        """
        # Code points, not a string: JSON writers and readers disagree on lone surrogates,
        # and join two that stand side by side.
        values = {"kind": self.kind, "symbols": [ord(symbol) for symbol in self.symbols]}
        # Left out where it says nothing: a text's fingerprint is that of earlier versions.
        return {**values, "documents": True} if self.documents else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Vocabulary":
        """The vocabulary that `to_dict` describes; InputError if it describes none.

        >>> Vocabulary.from_dict({"kind": "characters", "symbols": [97, 98]}).symbols
        'ab'
        """
        expected = {"kind", "symbols"}
        if not isinstance(values, Mapping) or set(values) - {"documents"} != expected:
            refuse("vocabulary", values, "expected an object with kind and symbols")
        symbols = values["symbols"]
        if not isinstance(symbols, Sequence) or not all(
            type(code) is int and 0 <= code < 0x110000 for code in symbols
        ):
            refuse("vocabulary.symbols", symbols, "expected a list of code points")
        documents = values.get("documents", False)
        return cls(values["kind"], "".join(map(chr, symbols)), documents)

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        return codes(self.symbols).astype("<u4")

    @functools.cached_property
    def _table(self) -> np.ndarray:
        if self.kind == "bytes":
            return np.arange(256, dtype=np.int32)
        # One entry more than the largest code point, for everything above it.
        table = np.full(int(self._codes[-1]) + 2, -1, np.int32)
        table[self._codes] = np.arange(len(self.symbols), dtype=np.int32)
        return table

    def _checked(self, ids: npt.ArrayLike) -> np.ndarray:
        array = np.asarray(ids).reshape(-1)
        if array.size == 0:
            return np.empty(0, np.int64)
        if array.dtype.kind not in "iu":
            raise InputError(f"ids are of type {array.dtype}: give whole numbers.")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.size:
            raise InputError(
                f"ids has {low if low < 0 else high}: those of this vocabulary go from 0 "
                f"to {self.size - 1}; was the text encoded with another one?"
            )
        return array[array < self._of_text] if self.documents else array


def codes(text: str | bytes) -> UInt[np.ndarray, "symbols"]:
    """The code points of a str, or the values of bytes, as uint8 or uint32.

    >>> codes("aé").tolist(), codes("aé".encode()).tolist()
    ([97, 233], [97, 195, 169])
    """
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_bytes(text: str) -> bytes:
    """A str as UTF-8, with lone surrogates written as if they were characters.

    >>> to_bytes("\\udc80")
    b'\\xed\\xb2\\x80'
    """
    return text.encode("utf-8", "surrogatepass")


def describe_unknown(codes: Sequence[int]) -> str:
    """The opening of a message about code points that a vocabulary lacks.

    >>> describe_unknown([233])
    "1 character is not in the vocabulary: 'é' (U+00E9)"
    """
    are = "character is" if len(codes) == 1 else "characters are"
    return f"{len(codes)} {are} not in the vocabulary: {listed(codes)}"


def listed(codes: Sequence[int]) -> str:
    """Code points for people; of many the first ten.

    >>> listed([97, 233])
    "'a' (U+0061), 'é' (U+00E9)"
    """
    shown = ", ".join(f"{chr(code)!r} (U+{code:04X})" for code in codes[:10])
    return f"{shown} and {len(codes) - 10} more" if len(codes) > 10 else shown
