"""A trained model as a library user meets it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import charjax
from charjax import InputError
from charjax.model.recurrence import cpu
from charjax.model.recurrence.choose import Recurrence
from charjax.sampling.chunks import CHUNK, PASS
from charjax.storage.checkpoints import Checkpoints

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 60


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = charjax.Config(
        data=charjax.DataConfig(batch_size=8, sequence_length=16),
        model=charjax.ModelConfig(hidden_size=24, dropout=0.0),
        train=charjax.TrainConfig(
            steps=30, eval_every=10, checkpoint_every=10, sample_every=None
        ),
    )
    directory = tmp_path_factory.mktemp("model") / "run"
    charjax.fit(config, directory, text=TEXT, quiet=True)
    return directory


@pytest.fixture(scope="module")
def model(workdir):
    return charjax.load(workdir)


def test_generating_adds_to_the_prime(model):
    text = model.generate("It was ", length=CHUNK + 9, seed=1)
    assert text.startswith("It was ") and len(text) == 7 + CHUNK + 9
    assert text == model.generate("It was ", length=CHUNK + 9, seed=1)
    assert text != model.generate("It was ", length=CHUNK + 9, seed=2)
    assert set(text) <= set(TEXT)


def test_a_longer_text_begins_with_the_shorter(model):
    long = model.generate("It ", length=2 * CHUNK + 5, seed=4)
    assert long.startswith(model.generate("It ", length=CHUNK - 3, seed=4))


def test_streaming_gives_what_generating_does(model):
    pieces = list(model.stream("It ", length=3 * CHUNK, temperature=0.7, top_k=5, seed=3))
    assert len(pieces) == 4
    assert "".join(pieces) == model.generate(
        "It ", length=3 * CHUNK, temperature=0.7, top_k=5, seed=3
    )


def test_a_character_of_several_bytes_survives_the_border_of_two_chunks(model):
    vocabulary = charjax.Vocabulary.of_bytes()
    params = charjax.init(model.config, vocabulary.size, jax.random.key(0))
    only = np.full(vocabulary.size, -1e9, np.float32)
    only[list("é".encode())] = 0
    params["head"]["bias"] = only
    counts = np.bincount(list("é".encode()), minlength=256)
    text = dataclasses.replace(model.text, vocabulary=vocabulary, counts=counts)
    writer = dataclasses.replace(model, params=params, text=text)
    for seed in range(6):
        text = writer.generate("", length=2 * CHUNK, seed=seed)
        assert "".join(writer.stream("", length=2 * CHUNK, seed=seed)) == text
        assert "é" in text


def test_several_samples_differ_and_the_first_is_the_single_one(model):
    several = model.generate("It ", length=40, seed=5, num_samples=3)
    assert len(set(several)) == 3
    assert several[0] == model.generate("It ", length=40, seed=5)
    assert model.generate("It ", length=40, seed=5, num_samples=1) == several[:1]


def test_without_a_prime_the_first_character_follows_the_corpus(model):
    firsts = [model.generate(length=1, seed=seed) for seed in range(300)]
    share = sum(first == " " for first in firsts) / len(firsts)
    assert share == pytest.approx(TEXT.count(" ") / len(TEXT), abs=0.08)
    assert model.generate(length=0) == ""


def test_greedy_is_top_one_and_ignores_the_seed(model):
    greedy = model.generate("It ", length=30, temperature=0, seed=1)
    assert greedy == model.generate("It ", length=30, temperature=0, seed=2)
    assert greedy == model.generate("It ", length=30, top_k=1, seed=3)


def test_predicting_goes_on_where_it_stopped(model):
    probs, carry = model.predict("It was a bri")
    assert probs.shape == (model.vocabulary.size,) and probs.dtype == np.float32
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    _, half = model.predict("It was ")
    again, carry_again = model.predict("a bri", half)
    np.testing.assert_allclose(again, probs, atol=1e-5)
    np.testing.assert_allclose(carry_again.h, carry.h, atol=1e-5)
    best = model.vocabulary.decode([int(probs.argmax())])
    assert model.generate("It was a bri", length=1, temperature=0).endswith(best)


@pytest.mark.parametrize("length", [2, 9, PASS, PASS + 1, 2 * PASS + 7])
def test_scores_are_the_predictions(model, length):
    text = TEXT[:length]
    nats = model.score(text)
    assert nats.shape == (length - 1,) and nats.dtype == np.float32
    for place in {1, length // 2, length - 1}:
        probs, _ = model.predict(text[:place])
        expected = -np.log(probs[model.vocabulary.encode(text[place])[0]])
        assert nats[place - 1] == pytest.approx(expected, abs=1e-4)
    score = charjax.evaluate(
        model.config, model.params, model.vocabulary.encode(text), rows=1
    )
    assert score.nats_per_char == pytest.approx(nats.mean(), abs=1e-5)


def test_a_long_prime_is_read_whole(model):
    prime = TEXT[: PASS + 300]
    probs, _ = model.predict(prime)
    best = model.vocabulary.decode([int(probs.argmax())])
    assert model.generate(prime, length=1, temperature=0) == prime + best
    # A model that forgets nothing knows how the prime began.
    bias = np.array(model.params["first"]["bias"])
    bias[:2] = [[-7.0], [30.0]]
    first = {**model.params["first"], "bias": bias}
    keen = dataclasses.replace(model, params={**model.params, "first": first})
    ends = [keen.predict(start + prime)[0] for start in ("I", "t")]
    assert not np.array_equal(*ends)


def test_unknown_characters(model):
    with pytest.raises(InputError, match=r"'ü' \(U\+00FC\)"):
        model.generate("für ", length=3)
    assert model.generate("füIt", length=0, on_unknown="skip") == "It"
    for call in (model.predict, model.score):
        with pytest.raises(InputError):
            call("")


def test_arguments_are_checked_at_once_not_when_the_stream_is_read(model):
    with pytest.raises(InputError, match="temperature"):
        model.stream("It ", temperature=-1.0)


def test_the_recurrence_suits_the_device_that_the_parameters_lie_on(model, monkeypatch):
    layouts, run = [], Recurrence.run

    def noted(self, *args):
        layouts.append(self.layout)
        return run(self, *args)

    monkeypatch.setattr(Recurrence, "run", noted)
    # Another network compiles anew.
    config = model.config.replace(**{"model.dropout": 0.77})
    again = dataclasses.replace(model, config=config)
    again.generate("It ", length=1)
    again.score("It was")
    assert len(layouts) >= 3 and set(layouts) == {cpu.ONE_DEVICE}


def test_best_latest_and_numbered_steps(workdir):
    metrics = (workdir / "metrics.jsonl").read_text().splitlines()
    validation = [x for x in map(json.loads, metrics) if x["split"] == "validation"]
    best = min(validation, key=lambda line: line["loss"])["step"]
    assert charjax.load(workdir).step == best
    assert charjax.load(workdir, "latest").step == 30
    assert charjax.load(workdir, 30).step == 30
    with pytest.raises(InputError, match="12345"):
        charjax.load(workdir, 12345)
    with pytest.raises(InputError, match="holds no run"):
        charjax.load(workdir.parent)


def test_only_parameters_are_restored(workdir, monkeypatch):
    asked = []
    restore = Checkpoints.restore

    def noted(self, step, targets):
        asked.extend(targets)
        return restore(self, step, targets)

    monkeypatch.setattr(Checkpoints, "restore", noted)
    params = charjax.load(workdir).params
    assert asked == ["params"]
    assert all(len(leaf.sharding.device_set) == 1 for leaf in jax.tree.leaves(params))
