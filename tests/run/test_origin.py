"""Going on from a model of another text."""

import itertools

import jax
import numpy as np
import optax
import pytest
import tiny

import charjax
from charjax import InputError, LanguageModel, Vocabulary, inspect_run
from charjax.model.parameters import table
from charjax.run import origin

CONFIG = tiny.CONFIG.replace(
    **{"data.batch_size": 8, "train.sample_every": None, "train.steps": 4},
    **{"model.hidden_size": 8, "train.checkpoint_every": None},
)
# Without p, with two characters that the other one does not have.
OTHER = tiny.TEXT.replace("p", "") + "Éé" * 9


def model(vocabulary):
    documents = "lines" if vocabulary.documents else "none"
    kind = {"data.vocabulary": vocabulary.kind, "data.documents": documents}
    random, config = np.random.default_rng(0), CONFIG.replace(**kind)
    params = jax.tree.map(
        lambda each: random.normal(0, 0.3, each.shape).astype("f4"),
        table(config.model, vocabulary.size),
    )
    return LanguageModel.from_params(config, params, vocabulary)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    path = tmp_path_factory.mktemp("learned") / "model"
    made = model(Vocabulary.from_text(tiny.TEXT))
    made.save(path)
    return made, str(path)


def test_a_run_with_frozen_groups_and_other_symbols_resumes_bit_for_bit(
    learned, tmp_path, capsys
):
    before, path = learned
    frozen = {"train.init_from": path, "train.freeze": ["first", "rest"]}
    split = {"parallel.fsdp": True, "optimizer.name": "muon", "optimizer.clip_norm": 0.1}
    config = CONFIG.replace(**frozen, **split, **{"optimizer.weight_decay": 0.1})
    whole = charjax.fit(config, tmp_path / "whole", text=OTHER)
    said = capsys.readouterr().err
    for line in (
        "train.init_from: 2 symbols new, drawn as in a new model: 'É' (U+00C9), 'é' (",
        "warning: in first they stay so (train.freeze)",
        "train.init_from: 1 symbol of that run dropped: 'p' (U+0070)",
        "trained: ",
    ):
        assert said.count(line) == 1, said
    assert said.index("dropped") < said.index("step 1/4")

    asked = itertools.count(1)
    parts = tmp_path / "parts"
    charjax.fit(config, parts, text=OTHER, quiet=True, stop=lambda: next(asked) == 2)
    charjax.fit(config, parts, text=OTHER, quiet=True)
    ends = [inspect_run(tmp_path / name)["digest"] for name in ("whole", "parts")]
    assert ends[0] == ends[1]

    params, known = whole.state.params, whole.vocabulary.ids_in(before.vocabulary)
    for group, name in itertools.product(("first", "rest"), before.params["rest"]):
        kept = np.asarray(params[group][name])
        if (group, name) == ("first", "kernel_x"):
            kept = kept[np.argsort(known)][2:]
            old = np.delete(before.params[group][name], before.vocabulary.encode("p"), 0)
            np.testing.assert_array_equal(kept, old)
        else:
            np.testing.assert_array_equal(kept, before.params[group][name])
    old = before.params["head"]["bias"][known]
    assert not np.array_equal(params["head"]["bias"], old)


def test_an_optimizer_begins_from_what_was_learned(learned):
    """One that keeps an average, or where it began, must not see what was drawn."""
    before, path = learned

    def update(updates, state, params=None):
        return optax.tree.zeros_like(updates), state

    optimizer = optax.GradientTransformation(lambda params: params, update)
    config = CONFIG.replace(**{"train.init_from": path, "train.steps": 1})
    state = charjax.fit(config, text=tiny.TEXT, optimizer=optimizer, quiet=True).state
    for found in (state.params, state.opt_state):
        jax.tree.map(np.testing.assert_array_equal, found, before.params)


def test_new_symbols_begin_as_asked():
    known, new = Vocabulary.from_text("abc"), Vocabulary("characters", "bcd", True)
    before, key = model(known), jax.random.key(3)
    drawn = charjax.init(CONFIG, new.size, key)
    for begin in ("drawn", "mean"):
        config = CONFIG.replace(**{"train.init_new": begin})
        found = origin.parameters_for(config, new, before, key)["first"]["kernel_x"]
        kept = before.params["first"]["kernel_x"][1:]
        mean = np.broadcast_to(kept.mean(0), (3, *kept.shape[1:]))
        expected = drawn["first"]["kernel_x"][2:] if begin == "drawn" else mean
        np.testing.assert_array_equal(found[:2], kept)
        np.testing.assert_allclose(found[2:], expected, atol=1e-6)
        assert origin.parameters_for(config, known, before, key) is before.params
    new_line, lost = origin.changes(config, new, before)
    assert "3 symbols new, at the mean of the known ones: the start of a docum" in new_line
    assert "the end of a document, 'd' (U+0064)" in new_line
    assert lost == "train.init_from: 1 symbol of that run dropped: 'a' (U+0061)"
    many = Vocabulary.from_text("abc" + "".join(map(chr, range(200, 220))))
    assert origin.changes(config, many, before)[0].endswith("'Ñ' (U+00D1) and 10 more")
    raw, cut = Vocabulary.of_bytes(), Vocabulary("bytes", documents=True)
    assert origin.changes(config, raw, model(raw)) == []
    (line,) = origin.changes(config, cut, model(raw))
    assert line.endswith("the start of a document, the end of a document")


def test_a_model_that_does_not_fit_is_refused(learned, tmp_path):
    _, path = learned
    given = CONFIG.replace(**{"train.init_from": path})
    model(Vocabulary.of_bytes()).save(tmp_path / "bytes")
    for config, text, words in (
        (given, "ÀÉÎÕÜ" * 400, "no character of the text is one of its own.*shares charac"),
        (
            given.replace(**{"data.vocabulary": "bytes"}),
            *(tiny.TEXT, "data.vocabulary is 'characters' there and 'bytes' here"),
        ),
        (
            given.replace(**{"train.init_from": str(tmp_path / "bytes")}),
            *(
                tiny.TEXT,
                "is 'bytes' there and 'characters' here.*`data.vocabulary='bytes'`",
            ),
        ),
        (
            given.replace(**{"train.freeze": ["embedding"]}),
            *(tiny.TEXT, "train.freeze is .*this model has no embedding"),
        ),
    ):
        with pytest.raises(InputError, match=words):
            charjax.fit(config, tmp_path / "run", text=text, quiet=True)
    assert not (tmp_path / "run").exists()
