"""A model of bytes counts in bytes, and says so; one of characters in characters."""

import json
import math

import jax
import numpy as np
import pytest

import charjax
from charjax import Config, DataConfig, InputError, ModelConfig, TrainConfig
from charjax.commands.cli import main
from charjax.views import curves

TEXT = "日本語のテキスト und Äpfel\n" * 40
CONFIG = Config(
    data=DataConfig(vocabulary="bytes", batch_size=8, sequence_length=16),
    model=ModelConfig(num_layers=1, hidden_size=8),
    train=TrainConfig(steps=2, log_every=1, checkpoint_every=None),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of bytes, its result, and what was shown meanwhile."""
    directory = tmp_path_factory.mktemp("bytes") / "run"
    with pytest.MonkeyPatch.context() as patch:
        shown, labels = [], []
        patch.setattr("charjax.reporting.lines.Lines.message", lambda _, x: shown.append(x))
        draw = curves._draw_losses
        patch.setattr(curves, "_draw_losses", lambda *x: (labels.append(x[3]), draw(*x)))
        result = charjax.fit(CONFIG, directory, text=TEXT)
    return directory, result, "\n".join(shown), labels


def test_every_line_of_the_metrics_says_what_its_loss_is_per(run, tmp_path):
    directory, result, _, _ = run
    metrics = (directory / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in metrics.splitlines()]
    assert {line["unit"] for line in lines} == {"nats per byte"}
    for line in lines:
        assert line["bits_per_byte"] == pytest.approx(line["loss"] / math.log(2))
        if line["split"] == "train":
            assert "bytes_per_second" in line
            assert not {"chars_per_second", "bits_per_char"} & set(line)
        else:
            assert line["bits_per_char"] > 1.5 * line["bits_per_byte"]
    assert result.best_loss is not None and "nats per byte" in repr(result)
    other = CONFIG.replace(**{"data.vocabulary": "characters", "train.steps": 1})
    lines = charjax.fit(other, text=TEXT * 2, quiet=True).history
    assert {line["unit"] for line in lines} == {"nats per character"}
    assert all("bits_per_char" in line and "bits_per_byte" not in line for line in lines)


def test_progress_messages_and_curves_say_byte(run):
    _, _, shown, labels = run
    assert "bits/byte" in shown and "byte/s" in shown and "per byte" in shown
    assert "steps of 8 x 16 bytes" in shown and "bits per character" in shown
    assert "bits/char" not in shown and "char/s" not in shown
    assert set(labels) == {"nats per byte"}


def test_evaluating_counts_bytes_and_characters(run, capsys, tmp_path):
    directory, _, _, _ = run
    (tmp_path / "other.txt").write_text(TEXT[:50], "utf-8")
    found = charjax.evaluate_run(directory, text=tmp_path / "other.txt", rows=1)
    raw = TEXT[:50].encode()
    # The first byte only serves as input; the rest of its character counts.
    assert (found["bytes"], found["characters"]) == (len(raw) - 1, 50)
    nats = charjax.load(directory).score(TEXT[:50])
    assert found["nats_per_byte"] == pytest.approx(nats.mean(), rel=1e-5)
    assert found["nats_per_char"] == pytest.approx(nats.sum() / 50, rel=1e-5)
    for name in ("byte", "char"):
        nats, bits = found[f"nats_per_{name}"], found[f"bits_per_{name}"]
        assert bits == pytest.approx(nats / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_char"]))
    assert main(["evaluate", "--workdir", str(directory)]) == 0
    said = capsys.readouterr().out
    assert "bits per byte" in said and "bits per character" in said and " bytes, " in said
    assert main(["inspect", "--workdir", str(directory)]) == 0
    assert "nats per byte" in capsys.readouterr().out
    assert charjax.inspect_run(directory)["best"]["unit"] == "nats per byte"
    model = charjax.load(directory)
    with pytest.raises(InputError, match="1 byte:"):
        model.score("a")


@pytest.mark.parametrize(
    ("raw", "characters"),
    [(b"ab", 1), ("é".encode(), 1), ("aé".encode(), 1), ("éa".encode(), 2), (b"a\x80", 1)],
)
def test_characters_are_those_that_the_bytes_belong_to(raw, characters):
    config = CONFIG.replace(**{"model.hidden_size": 4})
    params = charjax.init(config, 256, jax.random.key(0))
    score = charjax.evaluate(config, params, np.frombuffer(raw, np.uint8))
    assert (score.bytes, score.characters) == (len(raw) - 1, characters)
    assert score.nats_per_byte == pytest.approx(
        score.nats_per_char * characters / (len(raw) - 1)
    )


def test_reprs_fit_on_two_lines(run):
    _, result, _, _ = run
    many = charjax.Vocabulary.from_text(map(chr, range(20000)))
    plain = charjax.Vocabulary.from_text("abc")
    for thing in (CONFIG, result, result.model, result.model.text, result.state, many):
        assert len(repr(thing)) < 200, thing
        assert "\n" not in repr(thing)
    changed = Config(model=ModelConfig(hidden_size=64))
    assert repr(changed) == "Config(model=ModelConfig(hidden_size=64))"
    assert repr(Config()) == "Config()"
    public = {name: getattr(charjax, name) for name in dir(charjax)}
    for thing in (CONFIG, plain):
        assert eval(repr(thing), public) == thing
