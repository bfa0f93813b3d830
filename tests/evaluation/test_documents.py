"""Documents scored whole: the same sums, however many rows and devices."""

import jax
import numpy as np
import pytest

import charjax
from charjax import Config, InputError, Vocabulary
from charjax.devices import mesh as meshes
from charjax.evaluation.protocols import document_batches
from charjax.text.documents import Documents

TEXTS = ["a", "banana", "ab" * 21, "nab", "cab", "", "c" * 9, "bac"]
CHARACTERS = Vocabulary("characters", "abcn", documents=True)
BYTES = Vocabulary("bytes", documents=True)
CONFIG = Config().replace(
    **{"data.documents": "lines", "data.sequence_length": 4},
    **{"model.hidden_size": 4, "model.num_layers": 2},
)


single = jax.jit(charjax.apply, static_argnums=0)


def params_of(vocabulary):
    shapes = jax.eval_shape(
        lambda: charjax.init(CONFIG, vocabulary.size, jax.random.key(0))
    )
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype("f4"), shapes)


def nats_by_hand(vocabulary, texts):
    """Nats of all documents, each read alone, a symbol at a time."""
    params, total = params_of(vocabulary), 0.0
    for text in filter(None, texts):
        carry, before = charjax.initial_carry(CONFIG, 1), vocabulary.start
        for after in [*vocabulary.encode(text).tolist(), vocabulary.end]:
            logits, carry = single(CONFIG, params, np.array([[before]], np.int32), carry)
            wide = np.asarray(logits, np.float64).reshape(-1)
            total += float(np.log(np.exp(wide).sum()) - wide[after])
            before = after
    return total


def test_each_character_and_end_is_scored_whatever_the_rows_and_devices():
    documents = Documents.of(TEXTS, CHARACTERS)
    total, params = nats_by_hand(CHARACTERS, TEXTS), params_of(CHARACTERS)
    length = sum(map(len, TEXTS))
    for rows, devices in ((1, 1), (2, 1), (3, 8), (100, 8)):
        mesh = meshes.make_mesh(jax.devices()[:devices])
        score = charjax.evaluate(CONFIG, params, documents, rows=rows, mesh=mesh)
        assert score.loss == score.nats_per_symbol == pytest.approx(total / (length + 7))
        assert score.nats_per_char == pytest.approx(total / length)
        assert (score.characters, score.documents, score.symbols) == (length, 7, length + 7)
        assert (score.rows, score.window, score.bytes) == (min(rows, 7), None, None)


def test_of_bytes_it_counts_bytes_characters_and_ends():
    texts = ["aé", "日本"]
    config = CONFIG.replace(**{"data.vocabulary": "bytes"})
    documents = Documents.of(texts, BYTES)
    score = charjax.evaluate(config, params_of(BYTES), documents, rows=2)
    total = nats_by_hand(BYTES, texts)
    assert (score.bytes, score.characters, score.documents) == (9, 4, 2)
    assert score.loss == pytest.approx(total / 11)
    assert score.nats_per_byte == pytest.approx(total / 9)
    assert score.nats_per_char == pytest.approx(total / 4)
    # A byte that cannot begin a character begins one at the start of a document.
    stray = Documents.of([b"\x80\x80", b"a"], BYTES)
    assert charjax.evaluate(config, params_of(BYTES), stray).characters == 2


@pytest.mark.parametrize("rows", [1, 2, 5, 7])
def test_a_row_holds_whole_documents(rows):
    documents = Documents.of(TEXTS, CHARACTERS)
    batches = list(document_batches(documents, rows, 4))
    targets, mask, reset = (
        np.concatenate([getattr(batch, name) for batch in batches], 1)
        for name in ("targets", "mask", "reset")
    )
    seen = []
    for row in range(rows):
        ids = targets[row][mask[row]]
        begins = np.flatnonzero(reset[row])
        assert len(ids) == 0 or (begins[0] == 0 and ids[-1] == CHARACTERS.end)
        assert (ids[begins[1:] - 1] == CHARACTERS.end).all()
        seen += [CHARACTERS.decode(part) for part in np.split(ids, begins[1:]) if len(part)]
    assert sorted(seen) == sorted(filter(None, TEXTS))


def test_what_documents_cannot_be_scored_by_is_refused():
    documents, params = Documents.of(TEXTS, CHARACTERS), params_of(CHARACTERS)
    with pytest.raises(InputError, match="`window` is 4: each document is read from"):
        charjax.evaluate(CONFIG, params, documents, window=4)
    with pytest.raises(InputError, match=r"data\.documents is 'none': give `ids` as"):
        charjax.evaluate(Config(), params, documents)
    with pytest.raises(InputError, match=r"data\.documents is 'lines': give `ids` as"):
        charjax.evaluate(CONFIG, params, documents.ids)
    with pytest.raises(InputError, match="no documents: it needs at least 1"):
        charjax.evaluate(CONFIG, params, Documents.of([], CHARACTERS))
    with pytest.raises(InputError, match="`ids` has 5"):
        small = params_of(Vocabulary("characters", "ab", documents=True))
        charjax.evaluate(CONFIG, small, documents)
