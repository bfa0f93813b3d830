import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charjax.errors import InputError
from charjax.text import vocabulary as module
from charjax.text.vocabulary import Vocabulary

# Any code points at all: lone surrogates and NUL too.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)


@given(any_text.filter(bool))
def test_characters_round_trip(text):
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert ids.dtype == vocabulary.id_dtype and ids.shape == (len(text),)
    assert vocabulary.decode(ids) == text
    assert vocabulary.decoder()(ids) == text
    assert vocabulary.decode_bytes(ids) == text.encode("utf-8", "surrogatepass")
    assert np.array_equal(vocabulary.encode(vocabulary.decode_bytes(ids)), ids)


@given(any_text.filter(bool))
def test_json_round_trip(text):
    vocabulary = Vocabulary.from_text(text)
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@given(st.binary(max_size=60))
def test_bytes_round_trip(raw):
    vocabulary = Vocabulary.of_bytes()
    assert vocabulary.decode_bytes(vocabulary.encode(raw)) == raw
    assert vocabulary.decode(vocabulary.encode(raw)) == raw.decode("utf-8", "replace")


@given(st.text(max_size=20), st.lists(st.integers(0, 30)))
def test_the_decoder_joins_sequences_split_between_calls(text, cuts):
    vocabulary = Vocabulary.of_bytes()
    ids = vocabulary.encode(text)
    decode = vocabulary.decoder()
    pieces = np.split(ids, sorted(min(cut, len(ids)) for cut in cuts))
    assert "".join(decode(piece) for piece in pieces) == text


def test_pieces_join_seamlessly(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 3)
    text = "añb😀añb😀?"
    vocabulary = Vocabulary.from_text("abñ😀")
    assert vocabulary.decode(vocabulary.encode(text, "skip")) == text[:-1]


def test_ids_are_as_narrow_as_the_vocabulary_allows():
    symbols = "".join(map(chr, range(65537)))
    for size, dtype in ((1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")):
        vocabulary = Vocabulary.from_text(symbols[:size])
        assert vocabulary.id_dtype == dtype and len(vocabulary) == size
        assert vocabulary.encode(symbols[size - 1])[0] == size - 1


def test_unknown_characters_are_listed_once_each():
    with pytest.raises(InputError) as caught:
        Vocabulary.from_text("ab").encode("éa\n😀é")
    message = str(caught.value)
    assert "3 characters are not in the vocabulary" in message
    assert "'\\n' (U+000A), 'é' (U+00E9), '😀' (U+1F600):" in message
    assert "`on_unknown='skip'`" in message
    with pytest.raises(InputError, match="and 15 more"):
        Vocabulary.from_text("z").encode("abcdefghijklmnopqrstuvwxy")
    assert Vocabulary.from_text("ab").encode("éa\n😀b", "skip").tolist() == [0, 1]


@pytest.mark.parametrize("ids", [[3], [-1], [2**40], [0.5]])
def test_ids_outside_are_refused(ids):
    with pytest.raises(InputError, match="ids"):
        Vocabulary.from_text("abc").decode(ids)
    with pytest.raises(InputError, match="ids"):
        Vocabulary.of_bytes().decoder()([ids[0] + 256 if ids == [3] else ids[0]])


def test_no_ids_are_no_text():
    assert Vocabulary.from_text("a").decode([]) == ""
    assert Vocabulary.of_bytes().decode([]) == ""
    assert Vocabulary.from_text("a").encode("").dtype == "u1"


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "words", "symbols": [97]},
        {"kind": "characters", "symbols": []},
        {"kind": "characters", "symbols": [98, 97]},
        {"kind": "characters", "symbols": [97, 97]},
        {"kind": "characters", "symbols": [0x110000]},
        {"kind": "characters", "symbols": ["a"]},
        {"kind": "characters", "symbols": 97},
        {"kind": "bytes", "symbols": [97]},
        {"kind": "characters"},
        [],
    ],
)
def test_wrong_descriptions_are_refused(values):
    with pytest.raises(InputError, match="vocabulary"):
        Vocabulary.from_dict(values)


def test_bytes_that_are_no_text_are_refused_with_their_place():
    with pytest.raises(InputError, match="offset 2"):
        Vocabulary.from_text("ab").encode(b"ab\xff")


@pytest.mark.slow
def test_a_hundred_megabytes_are_encoded_in_a_second_or_so():
    text = "The quick brown fox jumps over the lazy dog; été.\n" * 2_000_000
    vocabulary = Vocabulary.from_text(text)
    start = time.perf_counter()
    vocabulary.encode(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("plain", "dtype"),
    [(Vocabulary.from_text("ab"), "uint8"), (Vocabulary.of_bytes(), "uint16")],
)
def test_of_documents_start_and_end_are_symbols_but_no_text(plain, dtype):
    vocabulary = Vocabulary(plain.kind, plain.symbols, documents=True)
    assert (vocabulary.start, vocabulary.end) == (plain.size, plain.size + 1)
    assert vocabulary.size == plain.size + 2 and vocabulary.id_dtype == dtype
    ids = [vocabulary.start, *vocabulary.encode("ab").tolist(), vocabulary.end]
    assert vocabulary.decode(ids) == "ab" == vocabulary.decoder()(ids)
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary != plain
    assert "documents" not in plain.to_dict()
    assert eval(repr(vocabulary)) == vocabulary
    with pytest.raises(InputError, match=str(vocabulary.size)):
        vocabulary.decode([vocabulary.size])
