"""What of a text is new: against a search of everything, and at the edges."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charjax import InputError, Vocabulary, novelty
from charjax.evaluation import novelty as module
from charjax.evaluation import passages
from charjax.text.corpus import Decoded

ALPHABETS = st.sampled_from(["ab", "ab B\n", "aé漢😀 -1"])


@pytest.fixture(autouse=True, scope="module")
def _small_pieces():
    """A passage and a word go over the borders of many pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "_BLOCK", 7)
        patch.setattr(passages, "_KEPT", 5)
        patch.setattr(module, "PIECE", 11)
        yield


@st.composite
def cases(draw):
    letters = draw(ALPHABETS)
    corpus = draw(st.text(letters, max_size=150))
    start = draw(st.integers(0, 50))
    passage = corpus[start : start + draw(st.integers(0, 60))]
    text = st.text(letters, max_size=40)
    texts = [draw(text) + passage + draw(text), *draw(st.lists(text, max_size=3))]
    return texts, corpus, draw(st.sampled_from([1, 2, 3, 5, 8, 20]))


def searched(texts, corpus, length):
    """Copied characters, the longest passage and the new words, by trying everything."""
    copied, common = 0, []
    for number, text in enumerate(texts):
        inside = set()
        for start in range(len(text)):
            for stop in range(start + length, len(text) + 1):
                if (place := corpus.find(text[start:stop])) < 0:
                    break
                inside.update(range(start, stop))
                common.append((start - stop, place, number, start))
        copied += len(inside)
    known = {word.casefold() for word in re.findall(r"\w+", corpus)}
    words = [word for text in texts for word in re.findall(r"\w+", text)]
    words = [word for word in words if any(map(str.isalpha, word))]
    new = [word for word in words if word.casefold() not in known]
    return copied, min(common, default=None), len(words), new


@settings(max_examples=150)
@given(cases())
def test_all_is_as_a_search_of_everything_finds_it(case):
    texts, corpus, length = case
    found = novelty(texts, corpus, length=length)
    copied, longest, words, new = searched(texts, corpus, length)
    assert (found.copied, found.words, found.new) == (copied, words, len(new))
    assert found.characters == sum(map(len, texts))
    assert set(found.new_words) <= set(new)
    assert [*dict.fromkeys(map(str.casefold, new))] == [*map(str.casefold, found.new_words)]
    if found.longest is None:
        assert longest is None
        return
    here = found.longest
    size = len(here.text)
    assert (-size, here.corpus_start, here.number, here.start) == longest
    assert texts[here.number][here.start :][:size] == here.text


def test_a_passage_counts_from_its_length_on():
    corpus = "It was a bright cold day in April, and the clocks were striking thirteen."
    for size, copied in ((19, 0), (20, 20), (21, 21)):
        found = novelty(f"<{corpus[5 : 5 + size]}>", corpus)
        assert found.copied == copied
        assert (found.longest is None) == (size < 20)
    assert novelty("a bright", corpus).copied == 0
    assert novelty(corpus, corpus).copied_share == 1
    # No passage goes from one text into the next.
    assert novelty([corpus[:19], corpus[19:38]], corpus).longest is None


def test_nothing_is_copied_of_nothing():
    for texts, corpus in (("", "abc"), ([], "abc"), ("", "")):
        found = novelty(texts, corpus, length=1)
        assert (found.copied_share, found.new_share, found.longest) == (0, 0, None)
    assert novelty("abc", "").new_words == ("abc",)


def test_hashes_that_are_the_same_do_not_count(monkeypatch):
    def of_the_first(codes, length, multiplier):
        firsts = codes[: len(codes) - length + 1].astype(np.uint64)
        # The first multiplier does not tell the passages of the texts apart either.
        real = hashes(codes, length, multiplier)
        return firsts << np.uint64(40) if multiplier == tried[0] else real & few

    hashes, few = passages._hashes, np.uint64(0xFFFF << 48)
    tried = []

    def called(codes, length, multiplier):
        tried.append(multiplier)
        return of_the_first(codes, length, multiplier)

    monkeypatch.setattr(passages, "_hashes", called)
    random = np.random.default_rng(0)
    text, corpus = ("".join(random.choice([*"abc"], size)) for size in (60, 3000))
    found = novelty(text + corpus[100:110], corpus, length=8)
    assert tried[0] != tried[-1]
    copied, longest, *_ = searched([text + corpus[100:110]], corpus, 8)
    assert found.copied == copied and longest is not None
    assert found.longest is not None and found.longest.corpus_start == longest[1]


def test_words_keep_their_marks_and_may_be_as_long_as_the_corpus():
    hindi = "हिन्दी में"
    assert novelty(hindi, hindi).words == 2
    assert novelty("हिन्द", hindi).new == 1
    long = "acgt" * 50
    assert novelty([long, long[:-1]], f"x {long} y").new_words == (long[:-1],)
    assert novelty("Straße STRASSE _ 12", "strasse").new == 0


def test_bytes_are_read_as_the_text_they_are():
    text = "naïve café 😀 " * 3
    vocabulary = Vocabulary.of_bytes()
    corpus = Decoded(vocabulary.encode(text), vocabulary)
    found = novelty("the naïve café 😀 naïve", corpus, length=8)
    assert found.longest is not None
    assert found.longest.text == " naïve café 😀 naïve" and found.copied == 19
    assert found.new_words == ("the",)


def test_the_report_says_where_and_how_much():
    corpus = "call me Ishmael, some years ago"
    lines = novelty(["xx", "yes, me Ishmael, so it is"], corpus, length=10).lines()
    assert lines == [
        "copied: 15 of 27 characters (55.6%), in passages of 10 or more",
        "longest: 15 characters, at 4 of text 2 and 4 of the corpus: ' me Ishmael, so'",
        "new words: 5 of 7 (71.4%): xx yes so it is",
    ]


def test_a_corpus_that_is_gone_once_read_is_refused():
    with pytest.raises(InputError, match=r"`corpus` is .*generator.*only once"):
        novelty("a", (piece for piece in ["a"]))
    with pytest.raises(InputError, match="`length` is 0"):
        novelty("a", "a", length=0)
