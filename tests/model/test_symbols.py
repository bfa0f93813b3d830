"""The parameters of a model, for another vocabulary than the one it learned."""

import itertools

import jax
import numpy as np
import pytest

from charjax.config.model import ModelConfig
from charjax.config.schema import Config
from charjax.model.cells import names
from charjax.model.network import apply, initial_carry
from charjax.model.parameters import table, with_symbols
from charjax.text.vocabulary import Vocabulary

HIDDEN = 4
INPUTS = {
    "one-hot": {},
    "embedding": {"embedding_size": 3},
    "tied": {"embedding_size": HIDDEN, "tied": True},
}
# Every cell, and every way to read ids.
KINDS = [*((cell, "one-hot") for cell in names()), *(("lstm", inputs) for inputs in INPUTS)]
CHARACTERS = Vocabulary.from_text("abcde")
VOCABULARIES = {
    "fewer": (CHARACTERS, Vocabulary.from_text("ebc")),
    "more": (CHARACTERS, Vocabulary.from_text("abcde fé")),
    "others": (CHARACTERS, Vocabulary.from_text("XdaYé")),
    "into documents": (CHARACTERS, Vocabulary("characters", "abf", documents=True)),
    "out of documents": (Vocabulary("characters", "abf", documents=True), CHARACTERS),
    "between documents": (
        Vocabulary("characters", "abf", documents=True),
        Vocabulary("characters", "Abcf", documents=True),
    ),
    "bytes into documents": (
        Vocabulary.of_bytes(),
        Vocabulary("bytes", documents=True),
    ),
    "bytes": (Vocabulary.of_bytes(), Vocabulary.of_bytes()),
}


def model(cell, inputs):
    return ModelConfig(cell=cell, hidden_size=HIDDEN, **INPUTS[inputs])


def some_params(config, size, seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda each: random.normal(size=each.shape).astype("f4"), table(config, size)
    )


def meanings(vocabulary):
    """What each id stands for."""
    of_text = vocabulary.symbols or range(256)
    return [*of_text, *(["start", "end"] if vocabulary.documents else [])]


def of_symbols(params):
    """What a model has for each symbol, a row each: of inputs, of the head, biases."""
    embedded = params.get("embedding", {}).get("table")
    inputs = params["first"]["kernel_x"] if embedded is None else embedded
    kernel = params["head"].get("kernel", np.zeros((1, len(inputs)))).T
    biases = params["head"]["bias"][:, None]
    return [array.reshape(len(inputs), -1) for array in (inputs, kernel, biases)]


@pytest.mark.parametrize("case", VOCABULARIES)
def test_what_was_learned_of_a_symbol_is_kept_for_it(case):
    there, here = VOCABULARIES[case]
    before, now, known = meanings(there), meanings(here), here.ids_in(there)
    for cell, inputs in KINDS:
        config = model(cell, inputs)
        learned = some_params(config, there.size, 0)
        drawn = some_params(config, here.size, 1)
        for given in (drawn, None):
            found = with_symbols(config, learned, known, given)
            shapes = jax.tree.map(lambda each: each.shape, table(config, here.size))
            assert jax.tree.map(lambda leaf: leaf.shape, found) == shapes
            assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(found))
            parts = zip(*map(of_symbols, (found, learned, drawn)), strict=True)
            for part, (rows, old, new) in enumerate(parts):
                rows_of = dict(zip(before, old, strict=True))
                shared = [rows_of[each] for each in now if each in rows_of]
                other = dict(zip(now, new, strict=True))
                if given is None or part == 2:
                    other = dict.fromkeys(now, np.mean(shared, axis=0))
                expected = np.stack([rows_of.get(each, other[each]) for each in now])
                np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
                exactly = [each in rows_of for each in now]
                np.testing.assert_array_equal(rows[exactly], expected[exactly])
            # What belongs to no symbol stays.
            for group, name in itertools.product(("first", "rest"), learned["rest"]):
                if (group, name, inputs) != ("first", "kernel_x", "one-hot"):
                    np.testing.assert_array_equal(found[group][name], learned[group][name])


@pytest.mark.parametrize(
    ("cell", "inputs"), [("lstm", "one-hot"), ("gru", "embedding"), ("rnn", "tied")]
)
def test_a_text_of_shared_symbols_has_the_same_scores(cell, inputs):
    there, here = VOCABULARIES["others"]
    config = Config(model=model(cell, inputs))
    learned = some_params(config.model, there.size, 0)
    mapped = with_symbols(config.model, learned, here.ids_in(there))
    before, after = (
        apply(config, params, vocabulary.encode("adda")[None], initial_carry(config, 1))[0]
        for params, vocabulary in ((learned, there), (mapped, here))
    )
    np.testing.assert_allclose(
        after[..., here.encode("da")], before[..., there.encode("da")], atol=1e-6
    )
