"""A run of documents: told in symbols, resumed bit for bit, on any devices the same."""

import json
import math

import jax
import numpy as np
import pytest
from comparison import timeless_metrics

import charjax
from charjax import Config, DataConfig, InputError, ModelConfig, TrainConfig, fit
from charjax.commands.cli import main
from charjax.devices import mesh as meshes

SYLLABLES = ("ka", "mo", "ri", "lu", "ta", "ne")
NAMES = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES[:3]]
# Some go on for several windows.
LONG = ["ho" * length for length in (19, 20, 21, 22)]
TEXT = "\n".join([*NAMES, "", *LONG]) + "\n"
CONFIG = Config(
    data=DataConfig(documents="lines", batch_size=8, sequence_length=8),
    model=ModelConfig(num_layers=1, hidden_size=16, dropout=0.2),
    train=TrainConfig(
        **{"steps": 30, "eval_every": 10, "eval_rows": 4, "checkpoint_every": 10},
        **{"log_every": 1, "sample_every": None},
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was not stopped, and its result."""
    directory = tmp_path_factory.mktemp("documents") / "run"
    return directory, fit(CONFIG, directory, text=TEXT, quiet=True)


def test_its_losses_are_per_symbol_and_ends_count(run):
    directory, result = run
    lines = [json.loads(x) for x in (directory / "metrics.jsonl").read_text().splitlines()]
    assert {line["unit"] for line in lines} == {"nats per symbol"}
    for line in lines:
        assert line["bits_per_symbol"] == pytest.approx(line["loss"] / math.log(2))
        if line["split"] == "train":
            assert "symbols_per_second" in line and "bits_per_char" not in line
        else:
            # A name has six characters and an end.
            assert 1.05 < line["bits_per_char"] / line["bits_per_symbol"] <= 7 / 6
    assert "nats per symbol" in repr(result)
    vocabulary = charjax.load(directory).vocabulary
    assert vocabulary.documents and "\n" not in vocabulary.symbols
    text = result.model.text
    assert text.notes == ("1 empty document skipped",)
    assert text.summary == "812 characters in 112 documents, 14 symbols"


def test_stopped_amid_documents_it_goes_on_bit_for_bit(run, tmp_path):
    whole, result = run
    epoch = result.config.optimizer.epoch_steps
    assert epoch is not None and 10 < epoch < 20
    for stop_at in (3, epoch, epoch + 5):
        here = charjax.inspect_run(tmp_path)["step"] if stop_at > 3 else 0
        stop = iter([False] * (stop_at - here - 1) + [True]).__next__
        fit(CONFIG, tmp_path, text=TEXT, quiet=True, stop=stop)
        assert charjax.inspect_run(tmp_path)["step"] == stop_at
    fit(CONFIG, tmp_path, text=TEXT, quiet=True)
    digests = {charjax.inspect_run(each)["digest"] for each in (whole, tmp_path)}
    assert len(digests) == 1
    assert timeless_metrics(tmp_path) == timeless_metrics(whole)


def test_one_device_and_eight_have_the_same_losses(run, monkeypatch):
    _, on_eight = run
    make = meshes.make_mesh

    def one(devices=None, model=1):
        return make(jax.devices()[:1], model)

    monkeypatch.setattr(meshes, "make_mesh", one)
    on_one = fit(CONFIG, text=TEXT, quiet=True)
    assert len(on_one.history) == len(on_eight.history)
    for one_line, line in zip(on_one.history, on_eight.history, strict=True):
        assert one_line["loss"] == pytest.approx(line["loss"], rel=1e-5)


def test_it_is_scored_as_its_own_text_is_read(run, tmp_path):
    directory, result = run
    (tmp_path / "other.txt").write_text("kamori\n\nlutaneri\n")
    found = charjax.evaluate_run(directory, text=tmp_path / "other.txt", rows=2)
    assert (found["symbols"], found["documents"], found["characters"]) == (16, 2, 14)
    assert found["nats_per_char"] == pytest.approx(found["nats_per_symbol"] * 16 / 14)
    # As many numbers as there are symbols.
    model = charjax.load(directory)
    nats = [*model.score("kamori"), *model.score("lutaneri")]
    assert found["nats_per_symbol"] == pytest.approx(np.mean(nats), abs=1e-5)
    assert len(nats) == 16
    own = charjax.evaluate_run(directory, step="latest")
    last = next(x for x in reversed(result.history) if x["split"] == "validation")
    assert own["nats_per_symbol"] == pytest.approx(last["loss"])
    with pytest.raises(InputError, match="`window` is 8"):
        charjax.evaluate_run(directory, window=8)


def test_its_score_is_printed_per_symbol_and_per_character(run, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("kamori\n\nlutaneri\n")
    words = ["--workdir", str(run[0]), "--text", str(tmp_path / "other.txt")]
    assert main(["evaluate", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["evaluate", *words]) == 0
    shown = capsys.readouterr().out
    assert f" {found['bits_per_symbol']:.4f} bits per symbol, " in shown
    assert f" {found['bits_per_char']:.4f} bits per character, " in shown
    assert shown.endswith(
        "(16 symbols, 14 characters, 2 documents, each from its start to its end)\n"
    )


def test_its_samples_are_some_documents_one_a_line(run):
    directory, _ = run
    model = charjax.load(directory, "latest")
    heading, *shown = (directory / "samples.txt").read_text().splitlines()
    assert heading == "--- step 30 ---"
    drawn = model.generate("", 300, num_samples=10, seed=30)
    assert shown == [*drawn, ""] and len("".join(drawn)) <= 300
    assert set("".join(drawn)) <= set("kamorilutaneho")


def test_other_documents_are_refused_and_nothing_is_written(run, tmp_path):
    directory, _ = run
    other = CONFIG.replace(**{"data.documents": "none"})
    with pytest.raises(InputError, match=r"data\.documents: the run has 'lines', asked"):
        fit(other, directory, text=TEXT, quiet=True)
    few = CONFIG.replace(**{"data.split": (0.5, 0.001, 0.499)})
    with pytest.raises(InputError, match=r"data\.split .* no document for validation"):
        fit(few, tmp_path / "few", text="\n".join(NAMES[:90]), quiet=True)
    assert not (tmp_path / "few").exists()


def test_the_text_it_has_learned_from_is_its_documents_by_lines(run):
    directory, _ = run
    parts = [
        "".join(charjax.text_of_run(directory, each)) for each in ("train", "validation")
    ]
    assert sorted("".join(parts).splitlines()) == sorted([*NAMES, *LONG])
    assert parts[0].endswith("\n") and len(parts[0].splitlines()) == 100


def test_what_is_written_is_looked_for_among_all_documents(run, capsys):
    directory, _ = run
    corpus = charjax.text_of_run(directory, quiet=True)
    training, held_out = list(corpus.documents()), list(corpus.held_out())
    assert sorted(training + held_out) == sorted(TEXT.split())
    assert held_out == list(charjax.text_of_run(directory, "validation").documents())
    texts = [training[0], "nobody", held_out[0], training[0]]
    known = charjax.known_documents(texts, corpus.documents(), corpus.held_out())
    assert known == charjax.KnownDocuments(in_training=2, in_held_out=1, new=1)
    # In both: trained on is what counts.
    assert charjax.known_documents(["a"], ["a"], ["a"]).in_training == 1
    # A prime belongs to its document.
    words = ["--workdir", str(directory), "--prime", training[0], "--length", "0"]
    assert main(["sample", *words, "--novelty"]) == 0
    said = capsys.readouterr().err
    assert "documents: 1 in training text, 0 in held-out text, 0 new (0.0%)" in said
    assert main(["sample", *words, "--novelty", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["novelty"]["documents"] == {"in_training": 1, "in_held_out": 0, "new": 0}
