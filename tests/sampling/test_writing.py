"""Whole texts: where they end, several prompts at once, what each character was worth."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charjax import InputError, Vocabulary
from charjax.devices import memory
from charjax.devices.memory import OutOfMemory
from charjax.sampling import writing
from charjax.sampling.past import repeating
from charjax.text.description import TextDescription
from tests.untrained import untrained

ALPHABET = "\n abcdef12."


@pytest.fixture(scope="module")
def model():
    vocabulary = Vocabulary.from_text(ALPHABET)
    counts = np.arange(1, 1 + vocabulary.size)
    text = TextDescription(vocabulary, counts, "")
    return dataclasses.replace(untrained(vocabulary), text=text)


def test_a_text_ends_with_the_first_stop_string_it_writes(model):
    whole = model.generate("ab", 300, seed=3)
    stop = whole[40:42]
    ended = model.generate("ab", 300, seed=3, stop=(stop, "no such" * 0 + "aaaaaaaa"))
    assert ended == whole[: whole.index(stop, 1) + 2] and ended.endswith(stop)
    assert "".join(model.stream("ab", 300, seed=3, stop=stop)) == ended
    written = model.generate("ab", 300, seed=3, stop=stop, log_probs=True)
    assert (written.text, written.ended) == (ended, "stop")
    assert len(written.log_probs) == len(ended) - 2


def test_a_stop_string_may_begin_in_the_prime_but_not_end_there(model):
    whole = model.generate("ab", 50, seed=3)
    across = whole[1:3]
    assert model.generate("ab", 50, seed=3, stop=across) == whole[:3]
    assert len(model.generate("ab", 50, seed=3, stop="ab")) > 2


def test_what_would_end_a_text_after_its_length_does_not_end_it(model):
    whole = model.generate("ab", 40, seed=3)
    stop, place = whole[30], whole.index(whole[30], 2)
    for length, why in [(place - 2, "length"), (place - 1, "stop"), (place, "stop")]:
        written = model.generate("ab", length, seed=3, stop=stop, log_probs=True)
        assert (written.ended, written.text) == (why, whole[: 2 + length][: place + 1])
    # Of eleven symbols one is in the prime.
    for length, why in [(9, "length"), (10, "length"), (11, "exhausted")]:
        written = model.generate("a", length, no_repeat=1, log_probs=True)
        assert (written.ended, len(written.text)) == (why, 1 + min(length, 10))


def test_stop_strings_are_ignored_before_the_least_length(model):
    whole = model.generate("ab", 300, seed=3)
    stop = whole[40]
    first = model.generate("ab", 300, seed=3, stop=stop)
    assert len(first) < 38
    later = model.generate("ab", 300, seed=3, stop=stop, min_length=38)
    assert later == whole[: whole.index(stop, 39) + 1]


def test_each_row_ends_on_its_own(model):
    several = model.generate("ab", 200, num_samples=6, stop=".", log_probs=True)
    assert len({len(each.text) for each in several}) > 1
    for row, each in enumerate(several):
        assert each.text.find(".") in (-1, len(each.text) - 1)
        alone = model.generate("ab", 200, first_row=row, stop=".")
        assert alone == each.text


def test_nothing_is_computed_for_long_after_the_end(model, monkeypatch):
    drawn = []
    draw = writing.drawn

    def counted(*args, **keywords):
        for chunk in draw(*args, **keywords):
            drawn.append(chunk)
            yield chunk

    monkeypatch.setattr(writing, "drawn", counted)
    assert len(model.generate("ab", 10**6, stop=("a", ".", " "))) < 128
    assert len(drawn) == 1


def test_an_endless_stream_goes_on(model):
    pieces = model.stream("ab", None, seed=1)
    taken = "".join(itertools.islice(pieces, 4))
    assert taken == model.generate("ab", 3 * 128, seed=1)
    with pytest.raises(InputError, match=r"no_repeat.*length"):
        model.stream("ab", None, no_repeat=3)


def grams(text, n):
    return [text[k : k + n] for k in range(len(text) - n + 1)]


def test_no_passage_of_eight_is_written_twice(model):
    """In the likeliest text, which without this goes round in a circle."""
    prime = "abcabdefeabcabde"
    plain = model.generate(prime, 500, temperature=0)
    assert len(set(grams(plain, 8))) < 100
    text = model.generate(prime, 5000, temperature=0, no_repeat=8)
    new = grams(text, 8)[len(prime) - 7 :]
    assert len(new) == len(set(new)) == 5000 and not set(new) & set(grams(prime, 8))


def test_a_text_ends_where_each_pair_is_written(model):
    written = model.generate("abcabd", 500, temperature=0, no_repeat=2, log_probs=True)
    pairs = grams(written.text, 2)
    assert [pair for pair in set(pairs) if pairs.count(pair) > 1] == ["ab"]
    # There are 11 x 11 pairs of these symbols, and no text has more.
    assert written.ended == "exhausted" and 60 < len(written.text) <= 123


@pytest.mark.parametrize("n", [1, 2, 65, 66, 80, 250])
def test_passages_of_any_length_are_found(n):
    random = np.random.default_rng(0)
    passage = random.integers(3, size=90)
    rows = [
        np.concatenate([passage, random.integers(3, size=20), passage[:k]])
        for k in (40, 64, 70, 79, 85)
    ]
    text = np.stack([np.pad(row, (200 - len(row), 0), constant_values=-1) for row in rows])
    expected = np.zeros((len(rows), 3), bool)
    for row, ids in enumerate(text):
        whole = ids[ids >= 0].tolist()
        for symbol in range(3):
            ending = [*whole, symbol][-n:]
            places = range(len(whole) - n + 1)
            expected[row, symbol] = any(whole[k : k + n] == ending for k in places)
    assert n == 250 or expected.any()
    np.testing.assert_array_equal(repeating(jnp.asarray(text), n, 3), expected)


def test_a_longer_passage_is_no_larger_program():
    text = jnp.zeros((1, 9000), jnp.int32)

    def size(n):
        return len(str(jax.make_jaxpr(lambda text: repeating(text, n, 3))(text)))

    assert size(8000) < 1.1 * size(100)


def test_without_repeats_of_single_characters_each_occurs_once(model):
    written = model.generate("a", 100, no_repeat=1, log_probs=True)
    assert sorted(written.text) == sorted(ALPHABET) and written.ended == "exhausted"


def test_banned_characters_are_not_drawn(model):
    assert set(model.generate("a", 400, ban="digits")) <= set("\n abcdef.")
    assert set(model.generate("a", 400, allow=("letters", " "))) <= set(" abcdef")
    assert set(model.generate("a", 400, allow="letters", ban="ef")) <= set("abcd")
    assert set(model.generate("a", 50, ban="bcdef12. \n")) == {"a"}
    with pytest.raises(InputError, match=r"`ban`.*no symbol.*left"):
        model.generate("a", 5, ban=ALPHABET)
    with pytest.raises(InputError, match=r"`allow` is 'xyz'"):
        model.generate("a", 5, allow="xyz")


def test_a_penalty_repeats_less(model):
    def distinct(**options):
        text = model.generate("a", 600, seed=2, repetition_window=5, **options)
        return np.mean([len(set(gram)) for gram in grams(text, 6)])

    plain, penalized = distinct(), distinct(repetition_penalty=3.0)
    assert penalized > plain + 0.5 > distinct(repetition_penalty=0.3) + 1.0


def test_a_window_longer_than_the_text_is_the_text(model, monkeypatch):
    settings = {"seed": 2, "repetition_penalty": 3.0}
    whole = model.generate("ab", 40, repetition_window=42, **settings)
    assert model.generate("ab", 40, repetition_window=2**31 - 1, **settings) == whole
    monkeypatch.setattr(memory, "of_device", lambda _: 2**34)
    with pytest.raises(OutOfMemory, match="looking back 2147483647"):
        model.stream("ab", None, repetition_window=2**31 - 1, **settings)
    with pytest.raises(OutOfMemory, match="length 400000000"):
        model.stream("ab", 400_000_000, no_repeat=5)


def test_log_probabilities_are_those_of_the_score(model):
    written = model.generate("ab1", 60, temperature=0.5, top_k=4, log_probs=True)
    np.testing.assert_allclose(written.log_probs, -model.score(written.text)[2:], atol=1e-5)
    assert written.log_probs.dtype == np.float32
    # A lower temperature among fewer makes what it draws likelier, on the whole.
    assert written.drawn_log_probs.mean() > written.log_probs.mean()
    assert (written.drawn_log_probs <= 0).all()
    greedy = model.generate("ab1", 20, temperature=0, log_probs=True)
    assert (greedy.drawn_log_probs == 0).all()
    plain = model.generate("ab1", 20, log_probs=True)
    np.testing.assert_allclose(plain.log_probs, plain.drawn_log_probs, atol=1e-5)


def test_many_prompts_are_written_on_from_each_by_itself(model, monkeypatch):
    primes = ["a", "bcd" * 500, "", "1.", "f\n"]
    together = model.generate(primes, 40, temperature=0.8)
    for row, (prime, text) in enumerate(zip(primes, together, strict=True)):
        assert text.startswith(prime) and len(text) == len(prime) + 40
        assert model.generate(prime, 40, temperature=0.8, first_row=row) == text
    # In batches of two, the last one padded: the same texts, row by row.
    monkeypatch.setattr(writing, "rows_at_once", lambda *_: 2)
    assert model.generate(primes, 40, temperature=0.8) == together
    told = []
    each = model.each(primes, 40, watch=lambda *far: told.append(far), temperature=0.8)
    assert [written.text for written in each] == together
    assert told == [("writing", 40 * rows, 200) for rows in (2, 4, 5)]


def test_the_best_of_several_is_the_likeliest(model):
    candidates = model.generate("ab", 30, num_samples=6, log_probs=True)
    likeliest = max(candidates[:3], key=lambda each: each.log_prob)
    assert model.generate("ab", 30, best_of=3) == likeliest.text
    pair = model.generate("ab", 30, num_samples=2, best_of=3)
    assert pair[0] == likeliest.text and pair[1] in [each.text for each in candidates[3:]]


@pytest.mark.parametrize(
    ("prime", "settings", "message"),
    [
        (["a", "b"], {"num_samples": 2}, "`num_samples` is 2: with several primes"),
        ([], {}, "`prime` is \\[\\]: give at least one"),
        (["a", 3], {}, "`prime` is .*expected a string, or a list"),
        ("xü", {}, "`prime`: 2 characters .*'x' .*'ü'.*: take them out, or leave them"),
        (["a", "xü", "ö"], {}, r"`prime\[1\]`: .*'x'.*'ü'.*; `prime\[2\]`: .*'ö'"),
        ("a", {"stop": ""}, "`stop` is '': give some text"),
        ("a", {"stop": ("a", "")}, r"`stop` is \('a', ''\): give some text"),
        ("a", {"ban": ()}, r"`ban` is \(\): expected a string or several"),
        ("a", {"allow": ""}, "`allow` is '': give some text"),
        ("a", {"allow": "digits", "ban": "12"}, "`allow` is 'digits': no symbol"),
        ("a", {"ban": ("letters", "digits", ". \n")}, "`ban` is .*: no symbol"),
        ("a", {"stop": "ü"}, "`stop` is 'ü': the model can never write it"),
        ("a", {"best_of": 0}, "`best_of` is 0"),
        ("a", {"top_p": 0.0}, "`top_p` is 0.0: give a number above 0 to 1"),
        ("a", {"min_p": 1.5}, "`min_p` is 1.5"),
        ("a", {"temperature": -1}, "`temperature` is -1.0: give 0 or a positive number"),
        ("a", {"temperature": float("nan")}, "`temperature` is nan: give a finite number"),
        ("a", {"top_k": 0}, "`top_k` is 0: give a whole number of at least 1"),
        ("a", {"top_k": 12}, "`top_k` is 12: give a number from 1 to 11"),
        ("a", {"typical_p": 0}, "`typical_p` is 0.0: give a number above 0 to 1"),
        ("a", {"repetition_window": 0}, "`repetition_window` is 0"),
        ("a", {"min_length": -1}, "`min_length` is -1"),
        ("a", {"seed": -1}, "`seed` is -1"),
        ("a", {"first_row": -1}, "`first_row` is -1"),
        ("a", {"on_unknown": "drop"}, "`on_unknown` is 'drop': expected one of error"),
        ("a", {"num_samples": 0}, "`num_samples` is 0"),
        ("a", {"log_probs": 1}, "`log_probs` is 1: expected True or False"),
        ("a", {"no_repeat": 0}, "`no_repeat` is 0"),
        ("a", {"repetition_penalty": 0.0}, "`repetition_penalty` is 0.0"),
        ("a", {"temprature": 1}, "there is no option `temprature`"),
    ],
)
def test_what_means_nothing_is_refused(model, prime, settings, message):
    with pytest.raises(InputError, match=message):
        model.generate(prime, 5, **settings)
