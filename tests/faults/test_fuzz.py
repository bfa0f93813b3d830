"""Whatever people, editors and disks may do to a run: the right result, or a refusal."""

import encodings.aliases
import itertools
import json
import os
import random
import shutil
import string
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FOUR_STEPS, TEXT

from charjax import (
    Config,
    InputError,
    fit,
    load,
    load_config,
)
from charjax.commands import cli
from charjax.config.schema import flatten, from_dict, to_dict

pytestmark = pytest.mark.curves

few = settings(derandomize=True, deadline=None, max_examples=30)
many = settings(derandomize=True, deadline=None, max_examples=200)

CONFIG = FOUR_STEPS.replace(**{"train.eval_every": 2, "train.sample_every": 2})
ROOT = Path(__file__).parents[2]
# Random commands where no time is given.
FEWEST = 6

FIELDS = [name for name, _ in flatten(Config())]
NASTY = [
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**40, -0.0, 0.5, 1e-320, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "", "a", "\0", "\ud800", "None", "nan"),
    *("lstm", "adam", "hex", "idna", "utf-16", "../..", "~", "x" * 5000),
    *([], [1], [0.9, 0.1, 0.0], [1, 0, 0], [None], [[]], [float("nan"), 1, 0]),
    *({}, {"a": 1}, [[["deep"]]], [2**70, 0, 0], ["a", "b"]),
]
nasty = st.sampled_from(NASTY)


# Configs.


def sound(config):
    """A config that was accepted goes to JSON and back, and can be compared."""
    values = json.loads(json.dumps(to_dict(config)))
    assert from_dict(values) == config and hash(from_dict(values)) == hash(config)


@many
@given(st.dictionaries(st.sampled_from([*FIELDS, "x.y", "train.x", "data"]), nasty))
def test_a_config_file_is_accepted_whole_or_refused(fields):
    values = to_dict(CONFIG)
    for path, value in fields.items():
        section, _, name = path.partition(".")
        if name:
            values.setdefault(section, {})
        if name and isinstance(values[section], dict):
            values[section][name] = value
        else:
            values[section] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(values))
        try:
            config = load_config(str(path))
        except InputError as error:
            assert str(error).startswith("`config`")
        else:
            sound(config)


@many
@given(st.recursive(nasty, lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_a_config_or_refused(values):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(values))
        try:
            sound(load_config(str(path)))
        except InputError as error:
            assert str(error).startswith("`config`")


PRESETS = [
    *(
        "",
        "\0",
        "def get_config(",
        "get_config = 3",
        "get_config = None",
        "raise SystemExit",
    ),
    *("import absent", "from charjax import absent"),
    "def get_config(): return get_config()",
    "def get_config(required): pass",
    "def get_config(): raise SystemExit(0)",
    "from charjax import Config\nclass Mine(Config): pass\nget_config = Config",
]


@pytest.mark.parametrize("content", PRESETS)
def test_a_preset_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_text(content)
    if content.endswith("get_config = Config"):
        assert load_config(str(path)) == Config()
    else:
        with pytest.raises(InputError, match=r"mine\.py"):
            load_config(str(path))


@few
@given(st.sampled_from(FIELDS), nasty)
def test_a_preset_of_odd_values_is_accepted_whole_or_refused(field, value):
    section, _, name = field.partition(".")
    kind = type(getattr(Config(), section)).__name__
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.py")
        path.write_text(
            f"from charjax import Config, {kind}\nnan, inf = float('nan'), float('inf')\n"
            f"def get_config(): return Config({section}={kind}({name}={value!r}))\n"
        )
        try:
            sound(load_config(str(path)))
        except InputError as error:
            assert "mine.py" in str(error)


options = st.one_of(
    st.sampled_from(["", "-1", "0", "nan", "inf", "1e400", "None", "True", "\ud800", "[]"]),
    st.sampled_from(["9" * 5000, "0x10", "1_000", "--", "-", "--help=3", "٣", "'", "lstm"]),
    st.text(string.printable, max_size=5),
)


@settings(few, max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), options), max_size=3))
def test_options_never_end_a_command_otherwise_than_with_2(given):
    arguments = [part for name, value in given for part in (f"--{name}", value)]
    with tempfile.TemporaryDirectory() as folder:
        # The text is not there, so that nothing is trained whatever is asked.
        arguments += ["--data.source", f"{folder}/absent", "--workdir", f"{folder}/run"]
        try:
            code = cli.main(["train", *arguments])
        except SystemExit as error:
            code = error.code
        assert code == 2
        assert not list(Path(folder).iterdir())


CODECS = sorted({*encodings.aliases.aliases.values(), "idna", "undefined", "punycode"})


@settings(few, max_examples=5)
@given(st.binary(max_size=40))
def test_no_encoding_is_more_than_refused(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        path.write_bytes(raw)
        for codec in CODECS:
            try:
                config = CONFIG.replace(
                    **{"data.source": str(path), "data.encoding": codec}
                )
            except InputError:
                continue
            # Too short for a batch, whatever it says.
            with pytest.raises(InputError):
                fit(config, quiet=True)


# Directories.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, its model and its metrics."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = fit(CONFIG, folder, text=TEXT, quiet=True)
    return folder, load(folder, "latest"), result.history


TARGETS = ["config.json", "metrics.jsonl", "samples.txt", "curves.png", "corpus.txt"]
TARGETS += ["checkpoints/4/manifest.json", "checkpoints/4/record/metadata"]
LINES = [
    *(b"", b"\0", b"{", b"{}", b"[]", b"null", b"3", b"\xff\xfe", b'{"step": null}'),
    *(b'{"step": "4"}', b'{"step": 1e400}', b'{"split": 5, "step": 4}', b'{"step": [1]}'),
    *(b'{"step": 4, "split": "train", "loss": "low"}', b"--- step 3 ---", b"[" * 3000),
    *(b"--- step " + b"9" * 5000 + b" ---", b"\r\n", b"{" * 3000, b"\xe2\x80\xa8"),
]
STRAYS = [
    *(".charjax-lock", "config.json.charjax-tmp", "checkpoints/5", "notes.txt"),
    *("checkpoints/x.saving", "checkpoints/5.saving", "checkpoints/5.retired"),
    *(
        "checkpoints/.saving",
        "checkpoints/x.retired",
        "checkpoints/-1",
        "checkpoints/\u0663",
    ),
    *("checkpoints/4.saving", "checkpoints/4.retired", "checkpoints/00004"),
    *("checkpoints/4.orbax-checkpoint-tmp", "checkpoints/99999999999999999999"),
    *("checkpoints/4/params/x", "checkpoints/.DS_Store", "curves.png.charjax-tmp"),
]
written = st.tuples(st.sampled_from(["append", "replace"]), st.sampled_from(TARGETS[:3]))
strays = st.tuples(st.sampled_from(["file", "folder", "link"]), st.sampled_from(STRAYS))
around = st.builds(
    lambda what, line: (*what, line), written | strays, st.sampled_from(LINES)
)
damages = around | st.tuples(
    st.sampled_from(["cut", "flip", "delete", "folder"]),
    st.sampled_from(TARGETS),
    st.floats(0, 0.999),
)


def damage(run, kind, name, how):
    path = run / name
    data = path.read_bytes() if path.is_file() else b""
    if kind in ("delete", "folder", "file", "link", "replace", "append"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "cut" and path.is_file():
        path.write_bytes(data[: int(how * len(data))])
    elif kind == "flip" and data:
        place = int(how * len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
    elif kind == "append":
        path.write_bytes(data + how + b"\n")
    elif kind in ("replace", "file"):
        path.write_bytes(how + b"\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("nowhere")


def same(one, other):
    assert one.vocabulary == other.vocabulary and one.step == other.step
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


@settings(few, max_examples=20)
@given(st.lists(damages, min_size=1, max_size=2))
def test_a_damaged_run_gives_the_same_model_or_none(whole, damages):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(whole[0], Path(folder, "run")))
        for each in damages:
            damage(run, *each)
        for step in ("latest", "best"):
            try:
                same(load(run, step), whole[1])
            except (InputError, OSError):
                continue


def finished_or_refused(whole, damages):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(whole[0], Path(folder, "run")))
        for each in damages:
            damage(run, *each)
        if not (run / "checkpoints/4").is_dir() or not (run / "config.json").exists():
            # It would be trained anew.
            return
        try:
            result = fit(CONFIG, run, text=TEXT, quiet=True)
        except (InputError, OSError):
            return
        same(result.model, whole[1])
        lines = [line for line in result.history if line in whole[2]]
        assert lines == whole[2][: len(lines)]


@settings(few, max_examples=20)
@given(st.lists(around, min_size=1, max_size=2))
def test_a_damaged_run_is_found_finished_or_refused(whole, damages):
    finished_or_refused(whole, damages)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.decode("latin-1")[:30])
def test_a_run_with_an_odd_line_is_found_finished_or_refused(whole, line):
    finished_or_refused(whole, [("append", "metrics.jsonl", line)])
    finished_or_refused(whole, [("append", "samples.txt", line)])


# Commands, with any options in any environment.


# What an option may be given; none takes long, or more memory than there is by little.
ANY = [
    *("", "-1", "0", "1", "2", "3", "8", "0.5", "1e-9", "1e39", "nan", "-inf", "None"),
    *("True", "9" * 5000, "2147483648", "\udcff", "٣", "'", "[]", "--", "a\nb", "$HOME"),
    *("lstm", "gru", "rnn", "adam", "muon", "sgd", "constant", "linear", "exponential"),
    *("bytes", "windows", "characters", "bfloat16", "utf-16", "latin-1", "skip", "best"),
    *("latest", "4", "train", "test", "windowed", "*.txt", "https://a/b.txt", "/dev/stdin"),
    *("text.txt", "pipe", "loop", "folder", "t\udcff.txt", "run", "new", "anna", "/"),
]
# A resumed run ends at once; a new one is as small as it can be.
TINY = {
    **{"--data.source": "text.txt", "--data.batch_size": "8", "--train.steps": "1"},
    **{"--data.sequence_length": "8", "--model.hidden_size": "8"},
}
OPTIONS = {
    "train": [f"--{name}" for name in FIELDS] + ["--workdir", "--config", "--fresh"],
    "sample": ["--prime", "--prime-file", "--temperature", "--top-k", "--seed", "--step"],
    "evaluate": ["--split", "--text", "--encoding", "--protocol", "--window", "--rows"],
    "inspect": ["--step", "--sharding", "--json", "--workdir"],
}
# Options whose every whole number takes its time, and downloads.
SLOW = {"--train.steps", "--train.epochs", "--model.num_layers", "--train.init_from"}
JAX = {
    **{"jax_enable_x64": True, "jax_numpy_dtype_promotion": "strict"},
    **{"jax_numpy_rank_promotion": "raise", "jax_transfer_guard": "disallow"},
    **{"jax_debug_key_reuse": True, "jax_debug_nans": True},
}
VARIABLES = {
    **{"LC_ALL": ["C", "C.UTF-8", "nonsense"], "PYTHONUTF8": ["0", "1"]},
    **{"PYTHONIOENCODING": ["ascii", "utf-16", "latin-1:strict"], "COLUMNS": ["1", "x"]},
    **{"TERM": ["dumb", "", "xterm"], "HOME": ["/proc/none", ""], "NO_COLOR": ["1"]},
    **{"CHARJAX_CACHE_DIR": ["/proc/none", "", "pipe", "loop"], "TMPDIR": ["/proc/none"]},
    **{"JAX_PLATFORMS": ["cuda", "tpu", "nonsense", "cpu", ""], "TZ": ["nonsense"]},
    **{"JAX_ENABLE_X64": ["1", "maybe"], "JAX_NUM_CPU_DEVICES": ["2", "x", "0", "-3"]},
    **{"JAX_NUMPY_RANK_PROMOTION": ["raise"], "JAX_NUMPY_DTYPE_PROMOTION": ["strict"]},
    **{"JAX_DEFAULT_MATMUL_PRECISION": ["highest", "bogus"], "JAX_DEBUG_NANS": ["1"]},
    **{"JAX_TRANSFER_GUARD": ["disallow"], "JAX_DEFAULT_DEVICE": ["gpu", "cpu"]},
    **{"JAX_COMPILATION_CACHE_DIR": ["/proc/none", "pipe"], "JAX_LOG_COMPILES": ["0"]},
    **{"MPLBACKEND": ["nonsense"], "MPLCONFIGDIR": ["/proc/none"]},
}
STREAMS = ["<&-", ">&-", "2>&-", ">/dev/full", "2>/dev/full", ">/dev/null"]


def random_command(rng):
    name = rng.choice(list(OPTIONS))
    given = dict(TINY) if name == "train" else {"--workdir": "run"}
    if name == "sample":
        given["--length"] = rng.choice(["0", "5", "-1", "x"])
    for option in rng.sample(OPTIONS[name], rng.randrange(4)):
        small = ["0", "1", "2", "-1", "nan", "None", "x", "run"]
        given[option] = rng.choice(small if option in SLOW else ANY)
    words = [name]
    for option, value in given.items():
        # A name of a text would be downloaded.
        value = "text.txt" if (option, value) == ("--data.source", "anna") else value
        flag = option in ("--fresh", "--sharding", "--json")
        words += [option] if flag else [f"{option}={value}"]
    return words


def place(folder, source, rng):
    """A folder to be in: a run, perhaps damaged, and texts of all kinds."""
    shutil.copytree(source, folder / "run")
    for name in ("text.txt", "t\udcff.txt", "folder/a.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(TEXT)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    if rng.random() < 0.3:
        name = rng.choice(TARGETS)
        kind = rng.choice(["cut", "flip", "delete", "folder", "pipe"])
        damage(folder / "run", "delete" if kind == "pipe" else kind, name, rng.random())
        if kind == "pipe":
            os.mkfifo(folder / "run" / name)


def in_this_process(words, rng, monkeypatch):
    """The exit code; whatever else is raised fails the test."""
    before = {name: jax.config.values[name] for name in JAX}
    settings = {name: JAX[name] for name in rng.sample(list(JAX), rng.choice([0, 0, 1, 3]))}
    with monkeypatch.context() as patch:
        for stream in rng.sample(["stdin", "stdout", "stderr"], rng.choice([0, 0, 1, 2])):
            patch.setattr(sys, stream, None)
        patch.setenv("COLUMNS", rng.choice(["1", "80", "x"]))
        try:
            for name, value in settings.items():
                jax.config.update(name, value)
            return cli.main(words)
        except SystemExit as error:
            return error.code
        finally:
            for name, value in before.items():
                jax.config.update(name, value)


def in_a_process(words, rng, folder):
    """The exit code, and what was said."""
    variables = rng.sample(list(VARIABLES), rng.randrange(4))
    variables = {name: rng.choice(VARIABLES[name]) for name in variables}
    streams = " ".join(rng.sample(STREAMS, rng.choice([0, 1, 2])))
    command = [sys.executable, "-m", "charjax", *words]
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {streams}', "_", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )
    assert b"Traceback" not in done.stderr, (variables, streams, done.stderr.decode())
    return done.returncode


def test_any_options_in_any_environment_give_a_result_or_a_refusal(
    whole, tmp_path, monkeypatch, request
):
    """More with `--minutes 60`; `--first N` begins with the N-th command."""
    minutes = request.config.getoption("--minutes")
    first = request.config.getoption("--first")
    ends, codes = time.monotonic() + 60 * minutes, Counter()
    for number in itertools.count(first):
        if number >= first + FEWEST and time.monotonic() >= ends:
            break
        rng, folder = random.Random(number), tmp_path / str(number)
        words = random_command(rng)
        folder.mkdir()
        place(folder, whole[0], rng)
        monkeypatch.chdir(folder)
        try:
            if minutes and rng.random() < 0.2:
                code = in_a_process(words, rng, folder)
            else:
                code = in_this_process(words, rng, monkeypatch)
        except BaseException as error:
            error.add_note(f"--first {number}: {words}")
            raise
        assert code in (0, 1, 2, 3), (number, words)
        codes[words[0], code] += 1
        if words[0] == "train" and code == 0 and "--workdir" not in str(words):
            assert (folder / "runs/default/checkpoints").is_dir(), (number, words)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
    print(f"{codes.total()} commands:", dict(sorted(codes.items())))
