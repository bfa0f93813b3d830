"""Documents written, predicted and scored: a symbol starts and another ends them."""

import numpy as np
import pytest

import charjax
from charjax import InputError, LanguageModel, Vocabulary
from charjax.sampling.chunks import CHUNK
from tests.untrained import TWO_LAYERS, untrained


@pytest.fixture(scope="module")
def model():
    return untrained(Vocabulary("characters", " 12abcd", documents=True))


def test_a_document_ends_where_its_end_is_drawn(model):
    written = model.generate("ab", 300, num_samples=20, log_probs=True)
    ended = [each.ended for each in written]
    assert set(ended) == {"end"} and len({each.text for each in written}) > 10
    for each in written:
        # The start is likeliest by far, and never drawn: each new symbol is a character,
        # or the one end.
        assert len(each.log_probs) == len(each.text) - 2 + 1
        assert set(each.text) <= set(" 12abcd")
    assert model.generate("ab", 300, first_row=7) == written[7].text
    assert "".join(model.stream("ab", None, seed=4)) == model.generate("ab", 300, seed=4)
    short = model.generate("", 1, num_samples=20, log_probs=True)
    assert {(len(each.text), each.ended) for each in short} == {(0, "end"), (1, "length")}


def test_without_a_prime_a_document_begins_at_its_start(model):
    probabilities, carry = model.predict("")
    assert probabilities.shape == (9,) and probabilities.sum() == pytest.approx(1, abs=1e-5)
    first = model.generate("", 1, num_samples=1000, log_probs=True)
    drawn = [each.text or "end" for each in first]
    allowed = np.delete(probabilities, model.vocabulary.start)
    expected = dict(zip([*" 12abcd", "end"], allowed / allowed.sum(), strict=True))
    for symbol, probability in expected.items():
        assert drawn.count(symbol) / 1000 == pytest.approx(probability, abs=0.05)
    # From there on character by character.
    after, _ = model.predict("a", carry)
    np.testing.assert_allclose(after, model.predict("a")[0], atol=1e-6)
    with pytest.raises(InputError, match="`text` is empty"):
        model.predict("", carry)


def test_the_score_is_of_each_character_and_the_end(model):
    nats = model.score("ab1")
    assert nats.shape == (4,) and nats.dtype == np.float32
    symbols = [*model.vocabulary.encode("ab1"), model.vocabulary.end]
    for place, symbol in enumerate(symbols):
        expected = -np.log(model.predict("ab1"[:place])[0][symbol])
        assert nats[place] == pytest.approx(expected, abs=1e-4)
    assert model.score("").shape == (1,)
    settings = {"temperature": 0.7, "log_probs": True}
    for row in range(3):
        written = model.generate("a", 200, first_row=row, **settings)
        assert written.ended == "end"
        scores = model.score(written.text)[1:]
        np.testing.assert_allclose(written.log_probs, -scores, atol=1e-5)
        assert written.log_prob == pytest.approx(-scores.mean(), abs=1e-5)


def test_before_the_least_length_no_document_ends(model):
    keen = untrained(model.vocabulary, end=40.0)
    assert keen.generate("a", 50) == "a"
    written = keen.generate("a", 200, min_length=CHUNK + 5, log_probs=True)
    assert len(written.text) == 1 + CHUNK + 5 and written.ended == "end"
    assert len(keen.generate("", 50, min_length=60)) == 50


def test_bans_never_touch_the_end(model):
    for options in ({"ban": "digits"}, {"allow": ("letters", " ")}, {"allow": " abcd"}):
        written = model.generate("", 300, num_samples=8, log_probs=True, **options)
        assert {each.ended for each in written} == {"end"}
        assert set("".join(each.text for each in written)) <= set(" abcd")
    with pytest.raises(InputError, match=r"`ban`.*no symbol.*left"):
        model.generate("a", 5, ban=" 12abcd")


def test_other_ends_stay_what_they_are(model):
    settings = {"num_samples": 20, "log_probs": True}
    plain = model.generate("", 100, **settings)
    stopped = model.generate("", 100, stop="a", **settings)
    for whole, each in zip(plain, stopped, strict=True):
        assert each.ended == ("stop" if "a" in whole.text else "end")
        assert each.text == whole.text[: whole.text.find("a") + 1 or None]
    stubborn = untrained(model.vocabulary, end=-40.0)
    # Once nothing else is left to draw, there is still the end.
    once = stubborn.generate("a", 100, no_repeat=1, log_probs=True)
    assert sorted(once.text) == list(" 12abcd") and once.ended == "end"
    assert once.drawn_log_probs[-1] == 0 > once.log_probs[-1] + 20
    held = stubborn.generate("a", 100, no_repeat=1, min_length=50, log_probs=True)
    assert held.text == once.text and held.ended == "exhausted"
    best = model.generate("", 100, best_of=20)
    assert best == max(plain, key=lambda each: each.log_prob).text


def test_several_primes_are_several_documents(model):
    primes = ["", "ab", "", "1"]
    texts = model.generate(primes, 60, seed=2, min_length=3)
    for row, (prime, text) in enumerate(zip(primes, texts, strict=True)):
        assert text.startswith(prime)
        alone = model.generate(prime, 60, seed=2, min_length=3, first_row=row)
        assert alone == text
    skipping = model.generate("xay", 0, on_unknown="skip")
    assert skipping == "a"


def test_documents_of_bytes(tmp_path):
    model = untrained(Vocabulary("bytes", documents=True), end=5.0)
    written = model.generate("é", 500, num_samples=5, allow="lowercase", log_probs=True)
    assert {each.ended for each in written} == {"end"}
    assert [len(each.log_probs) for each in written] == [len(each.text) for each in written]
    np.testing.assert_allclose(
        written[0].log_probs, -model.score(written[0].text)[2:], atol=1e-5
    )
    model.save(tmp_path / "saved")
    again = charjax.load(tmp_path / "saved")
    described = {"kind": "bytes", "size": 258, "documents": True}
    assert charjax.inspect_run(tmp_path / "saved")["vocabulary"] == described
    assert again.vocabulary == model.vocabulary and again.vocabulary.end == 257
    assert again.generate("é", 50, seed=3) == model.generate("é", 50, seed=3)


def test_a_vocabulary_of_documents_is_for_a_model_of_documents(model):
    for documents in (True, False):
        config = TWO_LAYERS.replace(**{"data.documents": "none" if documents else "lines"})
        vocabulary = Vocabulary("characters", "ab", documents=documents)
        with pytest.raises(InputError, match=r"data.documents is .*documents="):
            LanguageModel.from_params(config, {}, vocabulary)
