"""What surrounds a process: settings of JAX, devices, standard streams, odd paths."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import charjax
from charjax.commands.cli import main

ROOT = Path(__file__).parents[2]
TEXT = "all happy families are alike; every unhappy family is unhappy.\n" * 20
CONFIG = charjax.Config(
    data=charjax.DataConfig(source="text.txt", batch_size=8, sequence_length=8),
    model=charjax.ModelConfig(hidden_size=8, embedding_size=4),
    optimizer=charjax.OptimizerConfig(weight_decay=0.1),
    train=charjax.TrainConfig(steps=4, eval_every=2, log_every=1),
)


# Settings of JAX.


def everything(folder):
    """All that a user does with a run, in a folder of its own: the results."""
    os.chdir(folder)
    Path("text.txt").write_text(TEXT)
    steps = iter(range(1, 5))
    charjax.fit(CONFIG, "run", quiet=True, stop=lambda: next(steps) == 2)
    assert main(["train", "--workdir", "run"]) == 0
    assert main(["evaluate", "--workdir", "run", "--json"]) == 0
    model = charjax.load("run")
    keys = ("step", "split", "loss", "learning_rate", "grad_norm")
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    return {
        "digest": charjax.inspect_run("run")["digest"],
        "metrics": [[json.loads(line).get(key) for key in keys] for line in lines],
        "samples": Path("run/samples.txt").read_text(),
        "text": model.generate("all ", 40, seed=3, top_k=4),
        "texts": model.generate("all ", 40, num_samples=2, temperature=0.5),
        "pieces": list(model.stream("all ", 300)),
        "score": model.score("all happy").tolist(),
        "predicted": model.predict("all")[0].tolist(),
        "evaluated": charjax.evaluate_run("run", text="text.txt", window=16),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    before, folder = os.getcwd(), tmp_path_factory.mktemp("usual")
    results = everything(folder)
    os.chdir(before)
    return folder, results


@pytest.fixture
def usual(made, monkeypatch):
    """The results where nothing is set, and its folder to be in."""
    monkeypatch.chdir(made[0])
    return made[1]


SETTINGS = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_transfer_guard": "disallow",
    "jax_debug_key_reuse": True,
    "jax_debug_nans": True,
}


def test_settings_of_jax_change_no_result_and_stay_what_they_were(usual, tmp_path):
    before = {name: jax.config.values[name] for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            jax.config.update(name, value)
        assert everything(tmp_path) == usual
        pieces = charjax.load("run").stream("all ", 300)
        next(pieces)
        # Also between two pieces.
        assert {name: getattr(jax.config, name) for name in SETTINGS} == SETTINGS
        pieces.close()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_64_bits_and_closed_streams_change_no_result_of_a_process(usual, tmp_path):
    program = (
        "import json, sys; from test_environment import everything; "
        "from pathlib import Path; print(json.dumps(everything(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" <&- 2>&-', "_", sys.executable, "-c", program, tmp_path],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            **{"JAX_ENABLE_X64": "1", "JAX_NUM_CPU_DEVICES": "8"},
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == usual


def test_the_pure_functions_keep_their_types_where_jax_computes_in_64_bits():
    smaller = {"model.num_layers": 1, "model.embedding_size": None}
    config = CONFIG.replace(**smaller, **{"optimizer.accumulate": 2})
    key, ids = jax.random.key(0), np.arange(200) % 30
    batch = jax.tree.map(jax.numpy.asarray, charjax.batch_at(ids, config.data, 0, 0))

    def results():
        state = charjax.initial_state(config, 30, key)
        logits, _ = charjax.apply(config, state.params, batch.inputs, state.carry)
        text = charjax.sample(config, state.params, ids[:4], 20, key, 0.5, 3)
        after, metrics = charjax.train_step(config, state, batch, key)
        return state, logits, text, after, metrics

    narrow = jax.jit(results)()
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        wide = jax.jit(results)()

    def same(one, other):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, 1e-6, 1e-7)

    jax.tree.map(same, narrow, wide)


# Standard streams.


@pytest.mark.parametrize(
    "arguments", [["inspect", "--workdir", "run"], ["--version"], ["--help"]], ids=str
)
def test_a_result_that_cannot_be_written_is_told(usual, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: standard output is closed") and said.count("\n") == 1


def test_training_needs_no_standard_streams(usual, monkeypatch):
    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    assert main(["train", "--workdir", "run"]) == 0
    assert main(["train", "--workdir", "run", "--data.batch_size", "0"]) == 2
    with contextlib.suppress(OSError), open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        codes = [main(["train", "--workdir", "run"]), main(["sample", "--workdir", "no"])]
    assert codes == [0, 2]


def test_a_device_that_is_not_there_is_told_in_a_line(monkeypatch):
    def devices(backend=None):
        # What JAX does where there is no plugin for it.
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", "cuda")
    try:
        with pytest.raises(charjax.InputError) as caught:
            charjax.fit(CONFIG, text=TEXT)
    finally:
        jax.config.update("jax_platforms", before)
    said = str(caught.value)
    for part in ("$JAX_PLATFORMS is 'cuda'", "only cpu", "jax[cuda12]", "unset"):
        assert part in said


def test_a_setting_that_jax_refuses_is_told_in_a_line(usual):
    done = subprocess.run(
        [sys.executable, "-m", "charjax", "inspect", "--workdir", "run"],
        env={**os.environ, "JAX_ENABLE_X64": "maybe", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert re.search(r"JAX does not start: .*'maybe'.*JAX_ENABLE_X64", done.stderr)


# Paths.


@pytest.fixture
def run(usual, made, tmp_path, monkeypatch):
    """A copy of the run, with its text, in a folder to be in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made[0] / "run", "run")
    Path("text.txt").write_text(TEXT)
    return tmp_path / "run"


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "samples.txt", "curves.png", "corpus.txt"]
)
def test_a_pipe_in_the_place_of_a_file_is_refused(run, capsys, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    for command in ("train", "inspect", "evaluate", "sample"):
        said = refused(capsys, command, "--workdir", "run")
        assert name in said and "is a pipe" in said


@pytest.mark.parametrize("name", ["manifest.json", "params/manifest.ocdbt", "another"])
def test_a_pipe_in_a_checkpoint_is_damage(run, capsys, name):
    (run / "checkpoints/4" / name).unlink(missing_ok=True)
    os.mkfifo(run / "checkpoints/4" / name)
    shutil.rmtree(run / "checkpoints/2", ignore_errors=True)
    assert "damaged" in refused(capsys, "sample", "--workdir", "run")


def test_pipes_as_texts_are_refused_alike(run, capsys):
    os.mkfifo("pipe")
    for stream in ("pipe", f"/dev/fd/{os.open('text.txt', os.O_RDONLY)}"):
        for command in (
            ["train", "--workdir", "new", "--data.source", stream],
            ["evaluate", "--workdir", "run", "--text", stream],
        ):
            assert "not a regular file" in refused(capsys, *command)


def test_a_prime_may_come_from_a_pipe_that_is_open(run, capfdbinary):
    reading, writing = os.pipe()
    os.write(writing, b"all ")
    os.close(writing)
    command = ["sample", "--workdir", "run", "--length", "0", "--prime-file"]
    assert main([*command, f"/dev/fd/{reading}"]) == 0
    assert capfdbinary.readouterr().out == b"all "
    # Nobody may ever write to this one.
    os.mkfifo("pipe")
    assert main([*command, "pipe"]) == 2
    assert b"it is a pipe" in capfdbinary.readouterr().err


def test_loops_of_links_are_refused(run, capsys):
    os.symlink("loop", "loop")
    tiny = ["--data.source", "text.txt", "--data.batch_size", "8"]
    assert "cannot be written" in refused(capsys, "train", "--workdir", "loop", *tiny)
    assert "cannot be written" in refused(capsys, "train", "--workdir", "loop/in", *tiny)
    assert "cannot be read" in refused(capsys, "train", "--data.source", "loop")
    assert "no such file" in refused(capsys, "train", "--config", "loop/config.json")
    assert "no such file" in refused(
        capsys, "evaluate", "--workdir", "run", "--text", "loop"
    )
    assert "holds no run" in refused(capsys, "inspect", "--workdir", "loop")


def test_names_that_are_not_utf_8_are_read_or_refused(run, monkeypatch, capsys):
    odd = "t\udcff.txt"
    shutil.copy("text.txt", odd)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["evaluate", "--workdir", "run", "--text", odd]) == 0
    assert b"t\\udcff.txt" in sys.stdout.buffer.getvalue()  # pyright: ignore
    assert "not UTF-8" in refused(capsys, "train", "--workdir", "r\udcff")
    assert "not UTF-8" in refused(capsys, "sample", "--workdir", "r\udcff")
    config = CONFIG.replace(**{"data.source": odd, "train.steps": 1})
    charjax.fit(config, "new", quiet=True)
    assert charjax.fit(config, "new", quiet=True).config.data.sources[0].endswith(odd)
