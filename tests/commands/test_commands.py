"""The commands as a person or a script runs them.

Each way to start one is a real process here, as are streams, pipes and signals; where
nothing depends on that, a command is called in this process (`call`).
"""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from subprocesses import command, run
from tiny import OPTIONS, TEXT

import charjax
from charjax import commands
from charjax.commands.cli import found, main

TINY = [*OPTIONS, "--train.sample_every", "None"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a text and a finished run in runs/text."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "text.txt").write_text(TEXT)
    (folder / "text.py").write_text(
        "from charjax import Config, DataConfig\n"
        "def get_config(): return Config(data=DataConfig(source='text.txt'))\n"
    )
    options = (*TINY, "--data.batch_size", 4, "--train.steps", 12)
    done = run("train.py", "--config", "text.py", *options, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b""
    return folder


def test_training_tells_what_it_does(runs):
    again = run("train.py", "--config", "text.py", cwd=runs)
    assert again.returncode == 0
    said = again.stderr.decode()
    assert "ended at step 12" in said
    # Its own config goes on; that the preset says otherwise is not hidden.
    assert "model.hidden_size (16, there 256)" in said


def test_sampling_writes_the_text_and_nothing_else(runs, call):
    done = run("sample.py", "--prime", "all happy", "--length", 50, cwd=runs)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert text.startswith("all happy") and len(text) == 9 + 50
    assert (
        run("sample", "--prime", "all happy", "--length", 50, cwd=runs).stdout
        == done.stdout
    )
    several = call(
        *("sample.py", "--prime", "a\\n", "--length", 7, "--num-samples", 3),
        cwd=runs,
    ).stdout.decode()
    samples = several.split(f"\n\n{'-' * 40}\n")
    assert [len(sample) for sample in samples] == [9, 9, 9]
    assert all(sample.startswith("a\n") for sample in samples)


def test_sampling_greedily_and_from_a_file(runs, call, tmp_path):
    (tmp_path / "prime.txt").write_bytes("\ufeffall ".encode())
    greedy = [
        call(
            *("sample.py", "--prime-file", tmp_path / "prime.txt", "--length", 20),
            *("--temperature", 0, "--seed", seed),
            cwd=runs,
        ).stdout
        for seed in (1, 2)
    ]
    assert greedy[0] == greedy[1] and greedy[0].startswith(b"all ")


def test_evaluation_and_inspection(runs, call):
    scores = [
        json.loads(call("evaluate", *options, "--json", cwd=runs).stdout)
        for options in (
            ["--split", "validation"],
            ["--text", "text.txt", "--rows", "1"],
            ["--text", "text.txt", "--protocol", "windowed", "--window", "8"],
        )
    ]
    assert {"nats_per_char", "bits_per_char", "perplexity", "characters", "rows"} <= set(
        scores[0]
    )
    assert scores[1]["characters"] == len(TEXT) - 1 and scores[1]["rows"] == 1
    # Less context, worse prediction.
    assert scores[2]["nats_per_char"] > scores[1]["nats_per_char"]

    found = json.loads(call("inspect", "--json", cwd=runs).stdout)
    assert found["step"] == 12 and found["config"]["model"]["hidden_size"] == 16
    assert len(found["digest"]) == 64 and found["best"]["step"] == 12
    shown = call("inspect", cwd=runs).stdout
    assert b"digest" in shown and b"earlier_schedule_steps" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "--model.hiden_size", "3"], ["hiden", "--model.hidden-size"]),
        (["train.py", "--model.hidden_size", "big"], ["hidden-size", "big"]),
        (
            ["train.py", "--data.batch_size", "0"],
            ["error: data.batch_size is 0", "at least 1"],
        ),
        (["train.py", "--config", "ana"], ["ana", "did you mean anna"]),
        (["train.py", "--config", "none.py"], ["none.py", "no such file"]),
        (["train.py", "--data.source", "absent.txt"], ["absent.txt"]),
        (["train.py", "--data.source", "tinyshakespear"], ["tinyshakespeare"]),
        (["train.py", "--data.source", "empty.txt"], ["empty.txt", "empty"]),
        (["train.py", "--data.source", "bad.txt"], ["bad.txt", "byte 5", "latin-1"]),
        (["train.py", "--data.source", "folder"], ["folder"]),
        (["train.py", "--data.source", "short.txt"], ["batch_size", "sequence_length"]),
        (["train.py", "--workdir", "short.txt"], ["short.txt"]),
        (["sample.py"], ["runs", "train"]),
        (["sample.py", "--workdir", "nowhere"], ["nowhere", "holds no run"]),
        (["sample.py", "--prime", "a", "--prime-file", "b"], ["--prime", "--prime-file"]),
        (["evaluate", "--protocol", "windowed"], ["--window"]),
        (["inspect", "--workdir", "short.txt"], ["short.txt"]),
        (["smaple"], ["smaple", "did you mean sample"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_usage_is_a_short_message_and_exit_code_2(tmp_path, call, arguments, words):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "bad.txt").write_bytes(b"abcde\xff" * 3000)
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    done = call(*arguments, cwd=tmp_path)
    said = done.stderr.decode() + done.stdout.decode()
    assert done.returncode == 2, said
    assert "Traceback" not in said and len(said.splitlines()) < 20
    # Without the box around it and the line breaks inside.
    said = " ".join(said.replace("│", " ").split())
    for word in words:
        assert word in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "only", "said"),
    [
        ("train --bogus", None, ["unrecognized options: --bogus", "See charjax train"]),
        ("--bogus", "train", ["--bogus", "See python train.py"]),
        ("train --workdir", None, ["--workdir needs a value", "See charjax train"]),
        ("train --data.split 1", None, ["--data.split needs 3 values"]),
        ("train --data.split 1 0 x", None, ["is 1 0 x: expected three numbers."]),
        ("train --train.steps 1e3", None, ["is '1e3': expected a whole number or None."]),
        ("train --train.epochs=", None, ["--train.epochs is '': expected a number or"]),
        ("train --model.cell x", None, ["--model.cell is 'x': expected one of lstm, gru"]),
        ("train --top-k 3", None, ["options: --top-k, 3\n", "in charjax sample --help"]),
        ("sample --lenght 3", None, ["--length INT", "Characters", "See charjax sample"]),
        ("evaluate --rows x", None, ["--rows is 'x': expected a whole number"]),
        ("inspect 3", None, ["unrecognized options: 3", "See charjax inspect"]),
        ("smaple", None, ["did you mean sample", "See charjax --help"]),
        ("help smaple", None, ["did you mean sample", "See charjax --help"]),
        ("completion", None, ["{bash,zsh,fish}", "See charjax completion"]),
        ("completion ksh", None, ["is 'ksh': expected one of bash, zsh, fish."]),
        ("--bogus", None, ["--bogus", "evaluate, help, inspect, sample", "See charjax"]),
    ],
)
def test_wrong_options_are_refused_in_one_style(
    tmp_path, monkeypatch, capsys, arguments, only, said
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split(), only) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and "error: error" not in err
    for words in said:
        assert words in err
    assert re.fullmatch("See .* --help.", err.splitlines()[-1])


def test_messages_of_the_library_name_options_of_the_command(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    for arguments, library, printed in [
        ("evaluate --text absent", "`text` is absent", "--text is absent"),
        (
            "evaluate --text text.txt --split test",
            "`split` and `text` are both",
            "--split and --text are both",
        ),
        ("evaluate --split test", "`split` is test", "--split is test"),
        ("evaluate --rows 0", "`rows` is 0", "--rows is 0"),
        ("sample --step 7", "`step` is 7", "--step is 7"),
    ]:
        name, *options = arguments.split()
        keywords = dict(zip([o[2:] for o in options[::2]], options[1::2], strict=True))
        keywords = {key: int(v) if v.isdigit() else v for key, v in keywords.items()}
        call = charjax.evaluate_run if name == "evaluate" else charjax.load
        with pytest.raises(charjax.InputError, match=library):
            call("runs/text", **keywords)
        assert main(arguments.split()) == 2
        assert f"error: {printed}" in capsys.readouterr().err
    run_of_another = ["train", "--workdir", "runs/text", "--model.hidden_size", "8"]
    assert main(run_of_another) == 2
    assert "give another --workdir, or start over with --fresh" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["", *found()])
def test_help_fills_the_lines_of_the_terminal(monkeypatch, capsys, name, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    shown, _, examples = capsys.readouterr().out.partition("Examples:\n")
    # The first line lists all commands, and tyro does not cut it.
    lines = shown.splitlines()[1 if name == "" else 0 :]
    assert max(map(len, [*lines, *examples.splitlines()])) <= width
    texts = [line.strip("│").rstrip() for line in lines]
    for line, after in itertools.pairwise(texts):
        indents = {len(text) - len(text.lstrip()) for text in (line, after)}
        if len(indents) == 1 and min(indents) and after.strip()[0] not in "-•(":
            # The first word of a line did not fit into the one before.
            assert len(line) + len(after.split()[0]) > width - 5, line


def test_a_preset_is_read_once(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    (runs / "told.py").write_text(f"{(runs / 'text.py').read_text()}print('read')\n")
    for options in (["--workdir", "runs/text"], ["--workdir", "runs/new"]):
        wrong = ["--distributed", "3"]
        assert main(["train", "--config", "told.py", *options, *wrong]) == 2
        out, err = capsys.readouterr()
        assert (out, "--distributed is '3'" in err) == ("read\n", True)


@pytest.mark.parametrize(
    ("name", "option", "word"),
    [
        ("train.py", "--data.source", b"error: data.source"),
        ("sample.py", "--workdir", b"absent.txt holds no run"),
        ("inspect", "--wordir", b"--workdir"),
    ],
)
def test_a_refusal_is_the_exit_code_of_the_process(tmp_path, name, option, word):
    done = run(name, option, "absent.txt", cwd=tmp_path)
    assert done.returncode == 2 and word in done.stderr + done.stdout
    assert b"Traceback" not in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", "-1"], ["--temperature", "-1"]),
        (["--temperature", "nan"], ["temperature", "nan"]),
        (["--temperature", "inf"], ["temperature", "inf"]),
        (["--top-k", "0"], ["--top-k", "0"]),
        (["--top-k", "1000"], ["--top-k", "1000", "the vocabulary"]),
        (["--length", "-1"], ["--length", "-1"]),
        (["--num-samples", "0"], ["--num-samples", "0"]),
        (["--seed", "-5"], ["--seed", "-5"]),
        (["--step", "7"], ["--step", "7", "12"]),
        (["--prime", "Zürich"], ["'Z'", "'ü'", "U+00FC", "--on-unknown skip"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_sampling_options_are_refused(runs, call, options, words):
    done = call("sample", *options, cwd=runs)
    assert (done.returncode, done.stdout) == (2, b"")
    for word in words:
        assert word in done.stderr.decode()


def test_unknown_characters_can_be_skipped(runs, call):
    done = call(
        *("sample.py", "--prime", "Zall", "--length", 3, "--on-unknown", "skip"), cwd=runs
    )
    assert done.returncode == 0 and done.stdout.decode().startswith("all")


def test_a_closed_pipe_ends_quietly(runs):
    with subprocess.Popen(
        command("sample.py", "--length", 100_000),
        cwd=runs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""
    # Little enough to wait in a buffer until the command ends.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("inspect"),
        cwd=runs,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


LONG = [*TINY, "--train.steps", "400", "--data.source", "text.txt"]
LONG += ["--train.eval_every", "None", "--train.checkpoint_every", "1000"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "text.txt").write_text(TEXT)
    assert run("train.py", "--workdir", "whole", *LONG, cwd=folder).returncode == 0
    return charjax.inspect_run(folder / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_was(
    tmp_path, uninterrupted, number
):
    (tmp_path / "text.txt").write_text(TEXT)
    workdir, train = tmp_path / "parts", command("train.py", "--workdir", "parts", *LONG)
    metrics = workdir / "metrics.jsonl"
    with subprocess.Popen(train, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 5):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert 0 < charjax.inspect_run(workdir)["step"] < 400
    assert run("train.py", "--workdir", "parts", cwd=tmp_path).returncode == 0
    parts = charjax.inspect_run(workdir)
    assert parts["step"] == uninterrupted["step"] == 400
    assert parts["digest"] == uninterrupted["digest"]


def test_help_shows_every_field_with_its_preset_default():
    said = run("train.py", "--config", "anna", "--help").stdout.decode()
    for word in ("--data.source", "--train.early-stopping", "--fresh", "--model.dropout"):
        assert word in said
    assert "default: 512" in said
    assert run("--help").returncode == 0 and run("--version").returncode == 0


def test_fresh_never_deletes_the_text_or_a_run_it_cannot_replace(tmp_path, call):
    book = tmp_path / "book"
    book.mkdir()
    (book / "corpus.txt").write_text(TEXT)
    options = [*TINY, "--train.steps", "2", "--data.source", "book/corpus.txt"]
    done = call("train.py", "--workdir", "book", *options, "--fresh", cwd=tmp_path)
    assert done.returncode == 2 and b"own files" in done.stderr
    assert call("train.py", "--workdir", "run", *options, cwd=tmp_path).returncode == 0
    before = sorted((tmp_path / "run").rglob("*"))
    (book / "corpus.txt").write_text(TEXT + "!")
    done = call(
        *("train.py", "--workdir", "run", *options, "--fresh"),
        cwd=tmp_path,
        CHARJAX_CACHE_DIR="/proc/none",
    )
    assert done.returncode == 2 and b"CHARJAX_CACHE_DIR" in done.stderr
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_evaluation_refuses_a_changed_text_and_reads_other_encodings(tmp_path, call):
    source = tmp_path / "text.txt"
    source.write_text(TEXT)
    options = [*TINY, "--train.steps", "2", "--data.source", "text.txt"]
    assert call("train.py", "--workdir", "run", *options, cwd=tmp_path).returncode == 0
    (tmp_path / "other.txt").write_text(TEXT, encoding="utf-16-le")
    evaluate = ("evaluate", "--workdir", "run", "--json")
    known = json.loads(call(*evaluate, "--text", source, cwd=tmp_path).stdout)
    other = ("--text", "other.txt", "--encoding", "utf-16-le")
    assert known["nats_per_char"] == pytest.approx(
        json.loads(call(*evaluate, *other, cwd=tmp_path).stdout)["nats_per_char"]
    )
    source.write_text(TEXT.replace("happy", "merry"))
    done = call(*evaluate, "--split", "validation", cwd=tmp_path)
    assert done.returncode == 2 and b"not the one" in done.stderr
    done = call(*evaluate, "--text", "anna", cwd=tmp_path)
    assert done.returncode == 2 and b"--text is anna" in done.stderr


def test_odd_characters_are_written_byte_for_byte(tmp_path, capfdbinary):
    config = charjax.Config(
        data=charjax.DataConfig(batch_size=8, sequence_length=16),
        model=charjax.ModelConfig(hidden_size=8, num_layers=1),
        train=charjax.TrainConfig(steps=1),
    )
    odd = "\ud800\x00\u2028🙂" * 80
    charjax.fit(config, tmp_path, text=odd, quiet=True)
    options = ["--workdir", str(tmp_path), "--length", "100", "--prime", "🙂"]
    assert main(["sample", *options]) == 0
    written = capfdbinary.readouterr().out.decode("utf-8", "surrogatepass")
    assert written == charjax.load(tmp_path).generate("🙂", 100)
    assert set(written) == set(odd)


def test_each_command_is_listed_with_one_line():
    said = run("--help").stdout.decode()
    for name, line in [
        ("train", "Train a model, or go on with a run that was stopped."),
        ("sample", "Write text with a trained model."),
        ("evaluate", "Score a split of a run's own text, or a text of yours."),
        ("inspect", "Show what a run directory holds."),
    ]:
        assert re.search(rf"• {name} +{re.escape(line)}", said)
    alone = run("train.py", "--help").stdout.decode()
    assert alone.startswith("usage: ") and "train.py [-h]" in alone.splitlines()[0]


def test_a_new_command_is_one_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "greet.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Options:\n"
        "    '''Greet someone.'''\n"
        "    whom: str\n"
        "    '''Whom to greet.'''\n"
        "def run(options, signals):\n"
        "    print(f'hello {options.whom}')\n"
        "    return 0\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert main(["greet", "--whom", "Anna"]) == 0
    assert capsys.readouterr().out == "hello Anna\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"• greet +Greet someone\.", capsys.readouterr().out)
    assert main(["gret"]) == 2 and "did you mean greet" in capsys.readouterr().err


def test_a_shell_can_complete_commands_options_and_choices():
    done = run("--tyro-print-completion", "bash")
    assert done.returncode == 0 and done.stderr == b""

    def completed(*words):
        typed = " ".join(f"'{word}'" for word in words)
        script = (
            f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
            "_tyro_charjax\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
        )
        program = done.stdout + script.encode()
        said = subprocess.run(["bash"], input=program, capture_output=True)
        assert said.stderr == b""
        return set(said.stdout.decode().splitlines())

    assert completed("charjax", "") >= {"train", "sample", "evaluate", "inspect"}
    assert completed("charjax", "sample", "--prime") == {"--prime", "--prime-file"}
    batch = {"--data.batching", "--data.batch-size"}
    assert completed("charjax", "train", "--data.b") == batch
    assert completed("charjax", "train", "--optimizer.schedule", "l") == {"linear"}


def test_help_says_whose_defaults_it_shows(runs):
    def help_of(*options):
        return " ".join(run(*options, "--help", cwd=runs).stdout.decode().split())

    said = help_of("train.py", "--workdir", "runs/new")
    assert "those of Config()" in said and "(default: 256)" in said
    said = help_of("train", "--workdir=runs/new", "--config=anna")
    assert "those of --config anna" in said and "(default: 512)" in said
    for options in (["train.py", "--config", "text.py"], ["train", "--workdir=runs/text"]):
        said = help_of(*options)
        assert "those of the run in runs/text, which this would resume" in said
        assert "Units per layer. (default: 16)" in said
    said = help_of("train", "--workdir", "runs/text", "--fresh")
    assert "those of the run in runs/text, which this would replace" in said
    assert "Units per layer. (default: 16)" in said


def test_the_library_does_what_the_commands_do(runs, call, monkeypatch):
    monkeypatch.chdir(runs)

    def printed(*arguments):
        return json.loads(call(*arguments, "--json").stdout)

    assert charjax.inspect_run("runs/text") == printed("inspect")
    split = charjax.evaluate_run("runs/text", "train", quiet=True)
    assert split == pytest.approx(printed("evaluate", "--split", "train"))
    scored = charjax.evaluate_run("runs/text", text="text.txt", window=8, step=12)
    windowed = ("--protocol", "windowed", "--window", "8")
    assert scored == pytest.approx(printed("evaluate", "--text", "text.txt", *windowed))
    assert (scored["protocol"], scored["text"], split["text"]) == (
        *("windowed", "text.txt", "train"),
    )
    with pytest.raises(charjax.InputError, match="both given"):
        charjax.evaluate_run("runs/text", "test", text="text.txt")


PLACEMENT = """
import json
import charjax
from charjax.commands.cli import main
print(json.dumps(charjax.inspect_sharding("runs/text")))
main(["inspect", "--sharding", "--json"])
main(["inspect", "--sharding"])
"""


def test_the_placement_is_that_on_the_devices_there_are(runs, monkeypatch):
    monkeypatch.chdir(runs)
    # Eight devices, as there are here, do not suit four rows.
    with pytest.raises(charjax.InputError, match=r"data\.batch_size is 4"):
        charjax.inspect_sharding("runs/text")
    two = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PLACEMENT], env=two, capture_output=True, text=True
    )
    library, shown = done.stdout.split("\n", 1)
    printed, end = json.JSONDecoder().raw_decode(shown)
    assert json.loads(library) == printed != []
    table = shown[end:]
    assert re.search(r"^carry/h +float32\[1, 4, 16\] +-, data 2, - +128$", table, re.M)
    assert re.search(r"^params/first/kernel_h .* whole +4,096$", table, re.M)


def test_the_sampler_has_every_sampling_option():
    said = run("sample.py", "--help").stdout.decode()
    for option in dataclasses.fields(charjax.SamplingOptions):
        assert f"--{option.name.replace('_', '-')} " in said
