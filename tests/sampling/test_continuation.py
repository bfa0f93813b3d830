"""A text that grows turn by turn is the one that is written at once."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from charjax import Config, InputError, LanguageModel, Vocabulary, init
from charjax.sampling import continuation
from charjax.sampling.chunks import CHUNK, jitted_draw
from charjax.sampling.settings import Settings
from charjax.text.description import TextDescription


def made(vocabulary):
    config = Config().replace(
        **{"model.hidden_size": 8, "model.num_layers": 2},
        **{"data.vocabulary": vocabulary.kind},
        **{"data.documents": "lines" if vocabulary.documents else "none"},
    )
    shapes = jax.eval_shape(lambda: init(config, vocabulary.size, jax.random.key(0)))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)
    model = LanguageModel.from_params(config, params, vocabulary)
    text = TextDescription(vocabulary, np.arange(1, 1 + vocabulary.size), "")
    return dataclasses.replace(model, text=text)


@pytest.fixture(scope="module")
def model():
    return made(Vocabulary.from_text("\n abcdef12."))


def write(model, standing, length, seed=0, **options):
    """What is written, and where it stands then."""
    settings = Settings.of({"seed": seed, **options})
    pieces = []
    for piece, after in continuation.going_on(model.trained, standing, length, settings):
        standing = after
        pieces.append(piece)
    return "".join(pieces), standing


def test_turns_write_what_one_text_of_their_length_is(model):
    whole = model.generate("ab", 400, temperature=0.8)
    text, standing = (
        "ab",
        continuation.told(model.trained, continuation.begun(model.trained), "ab"),
    )
    for length in (7, CHUNK, 130, 400 - CHUNK - 137):
        new, standing = write(model, standing, length, temperature=0.8)
        text += new
    assert text == whole
    assert model.vocabulary.decode(standing.ids) == whole


def test_what_is_told_between_is_read(model):
    first, standing = write(model, continuation.begun(model.trained), 20)
    told = continuation.told(model.trained, standing, "fed 1")
    new, _ = write(model, told, 50, temperature=0)
    assert new == model.generate(first + "fed 1", 50, temperature=0)[len(first) + 5 :]
    with pytest.raises(InputError, match=r"the text: 1 character .*'x'"):
        continuation.told(model.trained, standing, "x")
    skipped = continuation.told(model.trained, standing, "fxed 1", "skip")
    np.testing.assert_array_equal(skipped.ids, told.ids)


def test_options_see_the_whole_text_and_count_from_the_turn(model):
    start = continuation.told(model.trained, continuation.begun(model.trained), "ab")
    text, standing = write(model, start, 200, no_repeat=3)
    new, _ = write(model, standing, 200, no_repeat=3)
    whole = "ab" + text + new
    grams = [whole[k : k + 3] for k in range(len(whole) - 2)]
    assert len(set(grams)) == len(grams)
    stopped, standing = write(model, start, 300, stop=("a", "."))
    assert set(stopped[:-1]).isdisjoint("a.") and stopped[-1] in "a."
    later, _ = write(model, standing, 300, stop=("a", "."), min_length=40)
    assert len(later) >= 40 and set(later[39:-1]).isdisjoint("a.")


def test_new_numbers_compile_nothing(model):
    standing = continuation.told(model.trained, continuation.begun(model.trained), "ab")
    _, standing = write(model, standing, 10, temperature=0.8, top_p=0.9)
    draw: Any = jitted_draw
    compiled = draw._cache_size()
    write(model, standing, 300, seed=5, temperature=0.3, top_p=0.5)
    assert draw._cache_size() == compiled


def test_bytes_that_a_turn_leaves_unfinished_are_finished_by_the_next():
    model = made(Vocabulary.of_bytes())
    whole = model.generate("é", 60)
    text, standing = "é", continuation.begun(model.trained)
    standing = continuation.told(model.trained, standing, "é")
    for _ in range(12):
        new, standing = write(model, standing, 5)
        text += new
    assert text == whole and "\ufffd" in text


def test_after_a_document_the_next_one_begins():
    vocabulary = Vocabulary("characters", "abc", documents=True)
    model = made(vocabulary)
    standing = continuation.told(model.trained, continuation.begun(model.trained), "ab")
    assert standing.ids.tolist() == [vocabulary.start, 0, 1]
    first, standing = write(model, standing, 1000)
    assert first == model.generate("ab", 1000)[2:] + "\n"
    assert standing.ids.tolist() == [vocabulary.start]
    second, standing = write(model, standing, 1000)
    assert second.endswith("\n") and second != first


def test_without_a_text_nothing_is_known_of_the_first_character():
    vocabulary = Vocabulary.from_text("abc")
    model = dataclasses.replace(
        made(vocabulary), text=TextDescription(vocabulary, np.zeros(3, np.int64), "")
    )
    with pytest.raises(InputError, match="give some text"):
        write(model, continuation.begun(model.trained), 5)
