"""Training from the library: learning, resuming, refusing."""

import dataclasses
import functools
import json
import logging
import re
import shutil
import time

import jax
import numpy as np
import optax
import pytest
from comparison import timeless_metrics

import charjax
from charjax import (
    Config,
    DataConfig,
    InputError,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    inspect_run,
)
from charjax.commands.cli import main
from charjax.model.cells import rnn
from charjax.model.recurrence import plain
from charjax.reporting.report import open_report
from charjax.run.plan import plan
from charjax.run.run import Run
from charjax.run.start import first_state
from charjax.storage.record import Record, Standing, parsed
from charjax.storage.run_directory import read_config
from charjax.text import batching, builtin
from charjax.text.corpus import load as load_corpus
from charjax.text.watch import silent

TEXT = "the quick brown fox jumps over the lazy dog. " * 80


def small(**changes) -> Config:
    config = Config(
        data=DataConfig(batch_size=8, sequence_length=16),
        model=ModelConfig(num_layers=2, hidden_size=16, dropout=0.2),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
        train=TrainConfig(
            steps=20,
            epochs=None,
            eval_every=5,
            eval_rows=4,
            checkpoint_every=4,
            log_every=1,
            sample_every=None,
        ),
    )
    return config.replace(**changes)


def contents(directory):
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def done(workdir) -> int:
    return inspect_run(workdir)["step"] if workdir.exists() else 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of `small()`, to be copied or read."""
    return charjax.fit(
        small(), tmp_path_factory.mktemp("finished"), text=TEXT, quiet=True
    ).workdir


@pytest.mark.curves
def test_it_learns_and_keeps_everything(tmp_path):
    result = charjax.fit(
        small(
            **{"train.steps": 100, "train.sample_every": 50, "train.eval_every": 20},
            **{"train.checkpoint_every": 25},
        ),
        tmp_path / "run",
        text=TEXT,
        quiet=True,
    )
    train = [line["loss"] for line in result.history if line["split"] == "train"]
    assert train[-1] < 0.6 * train[0]
    assert result.best_loss == min(
        line["loss"] for line in result.history if line["split"] == "validation"
    )
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *("config.json", "metrics.jsonl", "checkpoints", "samples.txt"),
        *("curves.png", "corpus.txt"),
    }
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")
    model = charjax.load(tmp_path / "run", step="latest")
    assert model.generate("the ", 30, seed=3) == result.model.generate("the ", 30, seed=3)
    for line in result.history:
        assert line["bits_per_char"] == pytest.approx(line["loss"] / np.log(2))
    train_line = next(line for line in result.history if line["split"] == "train")
    assert {"learning_rate", "grad_norm", "chars_per_second"} <= set(train_line)


def test_what_a_text_is_is_one_value_from_the_survey_to_the_model(tmp_path):
    config = small(**{"train.steps": 1})
    planned = plan(config, None, TEXT.replace("dog", "d\r\ng"), False, False, silent)
    surveyed = planned.surveyed
    assert surveyed.text.notes == ("80 CRLF line ends became LF",)
    corpus = load_corpus(surveyed)
    state, standing = first_state(planned, None)
    with open_report(None, 0, 1, quiet=True) as report:
        run = Run(planned, corpus, None, report)
    record, model = run.record(1, standing, None), run.model(state)
    for text in (corpus.text, record.text, model.text):
        assert text is surveyed.text
    again = parsed(json.loads(json.dumps(record.to_dict())), 1).text
    charjax.fit(config, tmp_path, text=surveyed.bytes_to_keep(), quiet=True)
    for text in (again, charjax.load(tmp_path).text):
        assert text.vocabulary == surveyed.text.vocabulary
        assert text.fingerprint == surveyed.text.fingerprint
        assert text.length == surveyed.text.length == len(corpus.ids)
        np.testing.assert_array_equal(text.counts, surveyed.text.counts)


def test_the_built_in_text_is_built_once_and_kept(tmp_path, monkeypatch):
    built = []

    def python_reference():
        built.append(TEXT)
        return TEXT

    monkeypatch.setattr(builtin, "python_reference", python_reference)
    charjax.fit(small(**{"train.steps": 2}), tmp_path, quiet=True)
    assert len(built) == 1
    assert (tmp_path / "corpus.txt").read_text() == TEXT
    charjax.fit(small(**{"train.steps": 4}), tmp_path, quiet=True)
    assert len(built) == 1 and done(tmp_path) == 4


def test_it_shows_how_long_the_device_waits_for_input(monkeypatch, capfd):
    config = small(
        **{"model.hidden_size": 128, "train.log_every": 5, "train.eval_every": None},
        **{"train.steps": 10},
    )

    def waits():
        history = charjax.fit(config, text=TEXT).history
        return [line["input_wait"] for line in history if line["split"] == "train"][1:]

    before, batch_at = np.mean(waits()), batching.batch_at

    def slow(*arguments):
        time.sleep(0.3)
        return batch_at(*arguments)

    monkeypatch.setattr(batching, "batch_at", slow)
    assert min(waits()) > 0.7 > before
    # Only where something can be done about it, and with what.
    hints = re.findall(r"device waited for input (\d+)%.*", capfd.readouterr().err)
    assert [int(share) > 70 for share in hints] == [True]


def test_without_a_workdir_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = charjax.fit(small(**{"train.steps": 3}), text=TEXT, quiet=True)
    assert result.workdir is None and list(tmp_path.iterdir()) == []


def test_a_resumed_run_may_be_longer_and_keeps_its_horizon(tmp_path):
    config = small(**{"optimizer.schedule": "cosine", "train.steps": 10})
    config = config.replace(**{"optimizer.final_scale": 0.1})
    charjax.fit(config, tmp_path, text=TEXT, quiet=True)
    longer = charjax.fit(
        config.replace(**{"train.steps": 15}), tmp_path, text=TEXT, quiet=True
    )
    assert int(longer.state.step) == 15
    assert longer.config.optimizer.schedule_steps == 10
    assert [
        line["step"] for line in timeless_metrics(tmp_path) if line["split"] == "train"
    ] == list(range(1, 16))


def test_a_finished_run_does_nothing(finished):
    before = inspect_run(finished), timeless_metrics(finished)
    charjax.fit(small(), finished, text=TEXT, quiet=True)
    assert (inspect_run(finished), timeless_metrics(finished)) == before


def test_resuming_with_another_config_or_text_is_refused(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"model\.hidden_size.*16.*32"):
        charjax.fit(small(**{"model.hidden_size": 32}), tmp_path, text=TEXT, quiet=True)
    with pytest.raises(InputError, match="not the one"):
        charjax.fit(small(**{"train.steps": 30}), tmp_path, text=TEXT + "!", quiet=True)
    assert contents(tmp_path) == before
    fresh = charjax.fit(
        small(**{"model.hidden_size": 8, "train.steps": 4}),
        tmp_path,
        text=TEXT,
        fresh=True,
        quiet=True,
    )
    assert int(fresh.state.step) == 4 and fresh.config.model.hidden_size == 8


def test_another_text_is_noticed_where_the_first_step_has_no_name_yet(tmp_path):
    charjax.fit(small(**{"train.steps": 4}), tmp_path, text=TEXT, quiet=True)
    steps = tmp_path / "checkpoints"
    (steps / "4").rename(steps / "4.saving")
    other = TEXT.replace("fox", "xof")
    with pytest.raises(InputError, match="not the one"):
        charjax.fit(small(**{"train.steps": 8}), tmp_path, text=other, quiet=True)


def test_a_new_length_is_kept_although_there_is_no_checkpoint_yet(tmp_path):
    charjax.fit(small(**{"train.steps": 4}), tmp_path, text=TEXT, quiet=True)
    shutil.rmtree(tmp_path / "checkpoints")
    charjax.fit(small(**{"train.steps": 8}), tmp_path, text=TEXT, quiet=True)
    assert read_config(tmp_path).train.steps == 8


def test_a_changed_file_is_noticed(tmp_path):
    source = tmp_path / "text.txt"
    source.write_text(TEXT)
    config = small(**{"data.source": [str(source)], "train.steps": 5})
    charjax.fit(config, tmp_path / "run", quiet=True)
    source.write_text(TEXT.replace("fox", "cat"))
    with pytest.raises(InputError, match="not the one"):
        charjax.fit(config.replace(**{"train.steps": 9}), tmp_path / "run", quiet=True)


def test_starting_from_another_run(finished, tmp_path):
    config = small(**{"train.init_from": str(finished), "train.steps": 1})
    second = charjax.fit(config, tmp_path / "second", text=TEXT, quiet=True)
    start = charjax.fit(small(**{"train.steps": 1}), text=TEXT, quiet=True)
    assert second.history[0]["loss"] < 0.9 * start.history[0]["loss"]
    assert int(second.state.step) == 1

    other = config.replace(**{"model.hidden_size": 8})
    with pytest.raises(InputError, match=r"train\.init_from.*model\.hidden_size is 16.* 8"):
        charjax.fit(other, tmp_path / "third", text=TEXT, quiet=True)
    with pytest.raises(InputError, match="holds no run"):
        missing = config.replace(**{"train.init_from": str(tmp_path / "none")})
        charjax.fit(missing, tmp_path / "third", text=TEXT, quiet=True)
    assert not (tmp_path / "third").exists()


def test_the_other_run_s_place_is_kept_in_full(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished.parent)
    given = {"train.init_from": finished.name, "train.sample_every": None}
    config = small(**given, **{"train.steps": 1, "train.eval_every": None})
    charjax.fit(config, tmp_path / "second", text=TEXT, quiet=True)
    assert read_config(tmp_path / "second").train.init_from == str(finished)
    # The same words mean the same run.
    charjax.fit(config, tmp_path / "second", text=TEXT, quiet=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"train\.init_from: the run has '"):
        charjax.fit(config, tmp_path / "second", text=TEXT, quiet=True)


def test_the_other_run_s_shape_is_taken_where_none_is_given(tmp_path, capsys):
    first = small(**{"model.num_layers": 1, "model.cell": "gru", "train.steps": 1})
    charjax.fit(first, tmp_path / "first", text=TEXT, quiet=True)
    begun = small(**{"train.init_from": str(tmp_path / "first"), "train.steps": 1})
    config = dataclasses.replace(begun, model=ModelConfig(dropout=0.1))
    second = charjax.fit(config, tmp_path / "second", text=TEXT)
    taken = dataclasses.replace(first.model, dropout=0.1)
    assert second.config.model == read_config(tmp_path / "second").model == taken
    said = capsys.readouterr().err
    assert said.count("train.init_from: the model has the shape") == 1
    assert "1 x 16 GRU" in said
    # The same script goes on with the run, whether it has a checkpoint or not.
    again = charjax.fit(
        config.replace(**{"train.steps": 2}), tmp_path / "second", text=TEXT, quiet=True
    )
    assert int(again.state.step) == 2
    shutil.rmtree(tmp_path / "second/checkpoints")
    charjax.fit(
        config.replace(**{"train.steps": 3}), tmp_path / "second", text=TEXT, quiet=True
    )
    # Given in part is given; the message says how to go on.
    with pytest.raises(InputError) as refused:
        charjax.fit(begun, tmp_path / "third", text=TEXT, quiet=True)
    for words in (
        *("model.cell is 'gru' there and 'lstm' here", "`model.cell='gru'`"),
        *("`model.num_layers=1`", "to take its shape"),
    ):
        assert words in str(refused.value)
    # Only a command can tell a default that was given from none.
    (tmp_path / "text.txt").write_text(TEXT)
    command = ["train", "--workdir", str(tmp_path / "third"), "--train.steps", "1"]
    command += ["--train.init_from", str(tmp_path / "first")]
    command += ["--data.source", str(tmp_path / "text.txt"), "--data.batch_size", "8"]
    command += ["--model.dropout", "0.1"]
    assert main([*command, "--model.num-layers=2"]) == 2
    assert "to take its shape" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
    assert main(command) == 0
    assert read_config(tmp_path / "third").model == taken


def test_a_run_stopped_before_its_first_checkpoint_still_starts_from_the_other(
    finished, tmp_path
):
    config = small(**{"train.init_from": str(finished), "train.steps": 2})
    whole = charjax.fit(config, tmp_path / "whole", text=TEXT, quiet=True)

    def killed() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        charjax.fit(config, tmp_path / "parts", text=TEXT, quiet=True, stop=killed)
    assert not list((tmp_path / "parts/checkpoints").iterdir())
    charjax.fit(config, tmp_path / "parts", text=TEXT, quiet=True)
    assert (
        inspect_run(tmp_path / "parts")["digest"]
        == inspect_run(tmp_path / "whole")["digest"]
    )
    assert whole.history[0]["step"] == 1


def test_early_stopping(tmp_path):
    config = small(
        **{
            "train.early_stopping": 2,
            "train.steps": 400,
            "train.eval_every": 2,
            # Noise cannot be learnt: the validation loss soon gets worse.
            "optimizer.learning_rate": 0.05,
        }
    )
    noise = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 2000))
    result = charjax.fit(config, tmp_path, text=noise, quiet=True)
    stopped = int(result.state.step)
    validation = [line for line in result.history if line["split"] == "validation"]
    best = min(validation, key=lambda line: line["loss"])
    assert stopped < 400 and best["step"] == stopped - 4
    assert inspect_run(tmp_path)["best"]["step"] == best["step"]
    again = charjax.fit(config, tmp_path, text=noise, quiet=True)
    assert int(again.state.step) == stopped


def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = small(
        **{
            "optimizer.name": "sgd",
            "optimizer.learning_rate": 1e38,
            "optimizer.clip_norm": None,
            "train.checkpoint_every": 1,
        }
    )
    with pytest.raises(charjax.Diverged, match=r"optimizer\.learning_rate"):
        charjax.fit(config, tmp_path, text=TEXT, quiet=True)
    params = charjax.load(tmp_path, "latest").params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_test_split_is_scored_once_at_the_end(tmp_path):
    config = small(**{"data.split": [0.8, 0.1, 0.1], "train.steps": 40})
    # What is learnt from the first four fifths is wrong about the rest.
    text = ("a quick brown fox " * 200)[:2880] + "q.k.z.x. " * 80
    result = charjax.fit(config, tmp_path, text=text, quiet=True)
    assert [line["split"] for line in result.history].count("test") == 1
    losses = [line["loss"] for line in result.history if line["split"] == "validation"]
    best = 5 * (1 + losses.index(min(losses)))
    model = charjax.load(tmp_path)
    # Not one that would have been saved in any case.
    assert model.step == best and best % 4 and best < 40
    ids = model.vocabulary.encode(text)
    score = charjax.evaluate(model.config, model.params, ids[int(0.9 * len(ids)) :])
    last = result.history[-1]
    assert last["split"] == "test" and last["loss"] == pytest.approx(score.nats_per_char)


def test_bytes_and_any_unicode(tmp_path):
    text = "日本語のテキスト🙂 ÄÖÜ\n" * 60
    for kind, size in (("bytes", 256), ("characters", len(set(text)))):
        config = small(**{"data.vocabulary": kind, "train.steps": 3})
        result = charjax.fit(config, tmp_path / kind, text=text, quiet=True)
        assert result.vocabulary.size == size
        assert charjax.load(tmp_path / kind).generate("日本", 20).startswith("日本")


@pytest.mark.parametrize(
    ("changes", "text", "words"),
    [
        ({}, "", ["empty"]),
        ({}, "short", ["data.batch_size", "data.sequence_length"]),
        ({"data.batch_size": 12}, TEXT, ["data.batch_size", "12", "8 devices", "8 or 16"]),
        (
            {"data.batch_size": 24, "optimizer.accumulate": 2},
            TEXT,
            ["24", "optimizer.accumulate", "16 or 32"],
        ),
        ({"data.start_marker": "absent"}, TEXT, ["data.start_marker", "absent"]),
        ({"data.split": [0.9999, 0.0001, 0.0]}, TEXT, ["data.split", "validation"]),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, changes, text, words):
    with pytest.raises(InputError) as refused:
        charjax.fit(small(**changes), tmp_path / "run", text=text, quiet=True)
    for word in words:
        assert word in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_one_compilation_of_the_step_and_one_of_the_evaluation(tmp_path, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        config = small(**{"model.hidden_size": 17, "train.steps": 12})
        charjax.fit(config, tmp_path, text=TEXT, quiet=True)
        compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
        for name in ("train_step", "eval_step", "draw"):
            assert compiled.count(name) == 1
        caplog.clear()
        # Only what trains depends on more than the network.
        charjax.fit(config.replace(**{"train.seed": 5}), text=TEXT, quiet=True)
        assert "jit(train_step)" in caplog.text
        assert "eval_step" not in caplog.text and "jit(draw)" not in caplog.text


@pytest.mark.parametrize(
    ("run", "words"),
    [(None, "scan, laid out for XLA's CPU"), (plain.run, "the cell's own")],
)
def test_the_recurrence_that_runs_is_told_before_training(monkeypatch, capsys, run, words):
    monkeypatch.setattr(rnn, "CELL", dataclasses.replace(rnn.CELL, run=run))
    charjax.fit(small(**{"model.cell": "rnn", "train.steps": 1}), text=TEXT)
    assert f"recurrence: {words}" in capsys.readouterr().err


def test_a_loss_that_is_no_number_improves_nothing():
    for loss in (float("nan"), float("inf"), -float("inf")):
        assert Standing().after(loss, 5) == Standing(stale_evaluations=1)
        good = Standing().after(1.0, 3)
        assert good.after(loss, 5) == Standing(1.0, 3, stale_evaluations=1)


def test_an_optimizer_of_ones_own_is_told_and_asked_for_again(tmp_path):
    config = small(**{"train.steps": 8})
    own = optax.adamw(1e-2)
    charjax.fit(config, tmp_path, text=TEXT, quiet=True, optimizer=own)
    longer = config.replace(**{"train.steps": 12})
    for wrong in (None, optax.contrib.schedule_free_sgd()):
        with pytest.raises(InputError, match=r"optimizer is .* optax\.chain"):
            charjax.fit(longer, tmp_path, text=TEXT, quiet=True, optimizer=wrong)
    charjax.fit(longer, tmp_path, text=TEXT, quiet=True, optimizer=own)
    whole = charjax.fit(
        longer, tmp_path / "whole", text=TEXT, quiet=True, optimizer=optax.adamw(1e-2)
    )
    parts, alone = inspect_run(tmp_path), inspect_run(whole.workdir)
    assert parts["digest"] == alone["digest"]
    # Metrics hold what is known, and that is no learning rate.
    training = [line for line in timeless_metrics(tmp_path) if line["split"] == "train"]
    assert {"loss", "grad_norm"} < set(training[0]) and "learning_rate" not in training[0]
    charjax.fit(config, tmp_path / "usual", text=TEXT, quiet=True)
    with pytest.raises(InputError, match=r"the one of the config; leave out fit\("):
        charjax.fit(longer, tmp_path / "usual", text=TEXT, quiet=True, optimizer=own)


def test_another_optimizer_of_the_same_name_is_refused_by_its_state(tmp_path):
    config, run = small(**{"train.steps": 4}), tmp_path / "run"
    charjax.fit(config, run, text=TEXT, quiet=True, optimizer=optax.adam(1e-2))
    longer = config.replace(**{"train.steps": 8})
    before = timeless_metrics(run)
    for other in (optax.sgd(1e-2, momentum=0.9), optax.sgd(1e-2), optax.adamw(1e-2)):
        refusal = r"^optimizer is optax\.chain: .* another structure; give fit\("
        with pytest.raises(InputError, match=refusal):
            charjax.fit(longer, run, text=TEXT, quiet=True, optimizer=other)
    assert timeless_metrics(run) == before
    # The numbers in it are nobody's business: a learning rate may change.
    charjax.fit(longer, run, text=TEXT, quiet=True, optimizer=optax.adam(1e-3))


def test_records_tell_the_state_of_an_optimizer_only_where_one_was_passed(
    tmp_path, monkeypatch
):
    written, to_dict = [], Record.to_dict

    def as_before(record):
        """Records once had the name alone."""
        values = to_dict(record)
        written.append(dict(values))
        values.pop("optimizer_state", None)
        return values

    monkeypatch.setattr(Record, "to_dict", as_before)
    config, own = small(**{"train.steps": 2}), optax.adam(1e-2)
    charjax.fit(config, tmp_path / "usual", text=TEXT, quiet=True)
    assert "optimizer_state" not in written[-1] and written[-1]["optimizer"] is None
    charjax.fit(config, tmp_path / "own", text=TEXT, quiet=True, optimizer=own)
    assert re.fullmatch("[0-9a-f]{16}", written[-1]["optimizer_state"])
    assert parsed(json.loads(json.dumps(written[-1])), 2).optimizer == "optax.chain"
    longer = config.replace(**{"train.steps": 3})
    charjax.fit(longer, tmp_path / "own", text=TEXT, quiet=True, optimizer=own)
    assert inspect_run(tmp_path / "own")["step"] == 3


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("adam", r"^optimizer is 'adam': give an optax\.GradientTransformation"),
        (optax.adam, r"^optimizer is <function adam.*: give an optax\.Grad"),
        (optax.lbfgs(), r"^optimizer is optax\..*accumulate is 1, value_fn \(.*value_fn"),
    ],
    ids=["name", "maker", "needy"],
)
def test_what_cannot_be_used_as_an_optimizer_is_refused(tmp_path, optimizer, words):
    config = small(**{"optimizer.accumulate": 2, "data.batch_size": 16})
    run = tmp_path / "run"
    with pytest.raises(InputError, match=words) as refused:
        charjax.fit(config, run, text=TEXT, quiet=True, optimizer=optimizer)
    assert "\n" not in str(refused.value) and not run.exists()


class Halved:
    """An optimizer's update that is an object, as some have it."""

    def __call__(self, grads, state, params=None):
        return jax.tree.map(lambda grad: -0.5 * grad, grads), state


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.GradientTransformation(
            optax.sgd(0.1).init, functools.partial(optax.sgd(0.1).update)
        ),
        optax.GradientTransformation(lambda params: (), Halved()),
        optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
        optax.lbfgs(),
    ],
    ids=["partial", "object", "plateau", "line search"],
)
def test_any_optimizer_trains_and_resumes(tmp_path, optimizer):
    for steps in (3, 6):
        config = small(**{"train.steps": steps, "model.dropout": 0.0})
        charjax.fit(config, tmp_path, text=TEXT, quiet=True, optimizer=optimizer)
    assert inspect_run(tmp_path)["step"] == 6
    history = [
        line["loss"] for line in timeless_metrics(tmp_path) if line["split"] == "train"
    ]
    assert len(history) == 6 and history[-1] < history[0]
