"""Real faults through the commands and the public API: what is promised of each."""

import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from subprocesses import command, run_script
from tiny import CONFIG, TEXT

from charjax import InputError, fit, load
from charjax.commands.cli import main
from charjax.errors import Diverged
from charjax.reporting.metrics import read
from charjax.run.loop import SKIPPED_UPDATES
from charjax.text.batching import batch_at
from charjax.training.state import initial_state
from charjax.training.step import train_step

# Numbers.


def one_step(config, poison):
    """The state before and after a step whose state was poisoned, and its metrics."""
    config = config.replace(**{"optimizer.schedule": "constant"})
    state = poison(initial_state(config, 128, jax.random.key(0)))
    ids = np.frombuffer(TEXT.encode(), np.uint8)
    batch = batch_at(ids, config.data, 0, 3)
    after, metrics = jax.jit(train_step, static_argnums=0)(
        config, state, batch, jax.random.key(1)
    )
    return state, after, metrics


def poisoned_carry(state):
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[0, 0, 0].set(jnp.nan) if "carry" in str(path) else leaf,
        state,
    )


def overflowing_head(state):
    head = {**state.params["head"], "bias": state.params["head"]["bias"].at[3].set(jnp.inf)}
    return type(state)(
        state.step, {**state.params, "head": head}, state.opt_state, state.carry
    )


def steep_head(state):
    """Loss and gradient are finite numbers; the gradient's norm is not."""
    head = {**state.params["head"], "kernel": state.params["head"]["kernel"] * 1e30}
    return dataclasses.replace(state, params={**state.params, "head": head})


@pytest.mark.parametrize("poison", [poisoned_carry, overflowing_head, steep_head])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_an_update_that_is_no_number_changes_no_bit(poison, precision, name):
    config = CONFIG.replace(**{"train.precision": precision, "optimizer.name": name})
    state, after, metrics = one_step(config, poison)
    assert metrics["skipped"]
    assert np.isfinite(metrics["loss"]) == (poison is steep_head)
    assert after.step == state.step + 1
    # All but the schedule's count of steps.
    before = (state.params, state.opt_state[:-1], state.carry)
    kept = (after.params, after.opt_state[:-1], after.carry)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(before), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_gradient_above_skip_norm_is_skipped_and_one_below_is_not():
    for limit, skipped in ((1e-6, True), (1e6, False)):
        config = CONFIG.replace(**{"optimizer.skip_norm": limit})
        state, after, metrics = one_step(config, lambda state: state)
        assert bool(metrics["skipped"]) is skipped
        same = np.array_equal(
            after.params["head"]["kernel"], state.params["head"]["kernel"]
        )
        assert same is skipped
    norm = metrics["grad_norm"].item()
    for limit, skipped in ((norm, False), (math.nextafter(norm, 0) * (1 - 1e-6), True)):
        config = CONFIG.replace(**{"optimizer.skip_norm": limit})
        metrics = one_step(config, lambda state: state)[2]
        assert bool(metrics["skipped"]) is skipped


def test_update_after_update_skipped_ends_the_run_and_is_not_saved(tmp_path):
    config = CONFIG.replace(**{"optimizer.skip_norm": 1e-9, "train.checkpoint_every": 5})
    with pytest.raises(Diverged, match=r"10 updates in a row .*learning_rate"):
        fit(config, tmp_path, text=TEXT, quiet=True)
    lines = read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("skipped")] == list(range(1, 11))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_good_update_ends_the_row_of_skipped_ones(tmp_path):
    config = CONFIG.replace(**{"optimizer.learning_rate": 1e-6})
    norms = [
        line["grad_norm"]
        for line in fit(config, text=TEXT, quiet=True).history
        if line["split"] == "train"
    ]
    limit = sorted(norms)[len(norms) // 2]
    config = config.replace(**{"optimizer.skip_norm": limit})
    history = fit(config, text=TEXT, quiet=True).history
    assert sum(line.get("skipped", False) for line in history) > SKIPPED_UPDATES


def test_a_run_that_diverged_ends_with_3(tmp_path, capfd):
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["--workdir", str(tmp_path / "run"), "--optimizer.skip_norm", "1e-9"]
    options += ["--data.source", str(tmp_path / "text.txt"), "--data.batch_size", "8"]
    options += ["--data.sequence_length", "8", "--model.hidden_size", "16"]
    assert main(options, only="train") == 3
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: training diverged: 10 updates in a row")


def test_skips_are_counted_across_a_resume(tmp_path):
    config = CONFIG.replace(**{"optimizer.skip_norm": 1e-9, "train.checkpoint_every": 6})
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 6

    fit(config, tmp_path, text=TEXT, quiet=True, stop=stop)
    with pytest.raises(Diverged, match="up to step 10"):
        fit(config, tmp_path, text=TEXT, quiet=True)


# Saves that fail.

LONGER = CONFIG.replace(**{"train.steps": 80})

FAILING = """
import os, resource, signal, sys, time
from charjax import fit
from faults.test_faults import LONGER, TEXT
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
workdir, mended = sys.argv[1], sys.argv[2] == "mended"
limits, asked, told = resource.getrlimit(resource.RLIMIT_FSIZE), [], []
write = sys.stderr.write
def listen(text):
    told.append("was not saved" in text)
    return write(text)
sys.stderr.write = listen
def stop():
    asked.append(1)
    if len(asked) == 11:
        while not os.path.exists(f"{workdir}/checkpoints/10"):
            time.sleep(0.01)
        # No file may grow beyond this any more, as on a disk that is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    if mended and any(told):
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return False
fit(LONGER.replace(**{"train.log_every": 100}), workdir, text=TEXT, stop=stop)
"""


def test_a_save_that_fails_is_warned_of_and_training_goes_on(tmp_path):
    done = run_script(FAILING, tmp_path / "run", "mended")
    assert done.returncode == 0, done.stderr
    assert "step 20 was not saved" in done.stderr
    assert "training goes on" in done.stderr
    assert load(tmp_path / "run", "latest").step == 80
    whole = fit(LONGER, text=TEXT, quiet=True)
    for a, b in zip(
        jax.tree.leaves(load(tmp_path / "run", "latest").params),
        jax.tree.leaves(whole.model.params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_saves_that_fail_in_a_row_end_the_run_and_keep_the_last_good_one(tmp_path):
    done = run_script(FAILING, tmp_path / "run", "never")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "step 40 was not saved" in last and "Make room on the disk or repair it" in last
    assert load(tmp_path / "run", "latest").step == 10
    result = fit(LONGER, tmp_path / "run", text=TEXT, quiet=True)
    assert int(result.state.step) == 80


# Damage, on the way back into a run.


def test_a_run_whose_newest_step_is_damaged_goes_on_from_the_one_before(tmp_path, capfd):
    config = CONFIG.replace(**{"train.sample_every": 24})
    whole = fit(config, tmp_path / "whole", text=TEXT, quiet=True)
    run, steps = tmp_path / "run", tmp_path / "run/checkpoints"
    born = config.replace(**{"optimizer.schedule_steps": 40})
    fit(born.replace(**{"train.steps": 20}), run, text=TEXT, quiet=True)
    shutil.copytree(steps / "20", tmp_path / "20")
    fit(born.replace(**{"train.steps": 30}), run, text=TEXT, quiet=True)
    shutil.rmtree(steps / "20", ignore_errors=True)
    shutil.copytree(tmp_path / "20", steps / "20")
    path = steps / "30/record/metadata"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))

    with pytest.raises(InputError, match=r"damaged.*`strict`"):
        fit(config, run, text=TEXT, quiet=True, strict=True)
    result = fit(config, run, text=TEXT, quiet=True)
    assert "step 30" in capfd.readouterr().err
    for a, b in zip(
        jax.tree.leaves(result.state), jax.tree.leaves(whole.state), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    lines = read(run / "metrics.jsonl")
    trained = [line["step"] for line in lines if line["split"] == "train"]
    assert trained == list(range(1, 41))
    headings = re.findall(r"--- step (\d+) ---", (run / "samples.txt").read_text())
    assert headings == ["20", "24", "40"]
    # The step that was damaged was made again, and went in its turn.
    assert os.listdir(steps) == os.listdir(tmp_path / "whole/checkpoints")


# Signals.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_step_ends_the_command_at_once(tmp_path, number, code):
    (tmp_path / "text.txt").write_text(TEXT)
    sizes = ("--data.batch_size", 4, "--data.sequence_length", 16)
    train = command("train.py", "--data.source", "text.txt", *sizes)
    # Without the cache, or there may be nothing left to compile.
    compiling = {**os.environ, "JAX_COMPILATION_CACHE_DIR": ""}
    process = subprocess.Popen(
        train,
        cwd=tmp_path,
        env=compiling,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    # The introduction is over: what follows is compilation.
    while not process.stderr.readline().startswith(b"run:"):
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(number)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert time.monotonic() - begun < 2
    assert b"interrupted" in said and b"Traceback" not in said
    # Nothing stands in the way of the next start.
    process = subprocess.run(
        [*train, "--train.steps", "3"], cwd=tmp_path, capture_output=True, timeout=240
    )
    assert process.returncode == 0, process.stderr


def test_a_second_signal_ends_training_at_once(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 20)
    sizes = ("--model.hidden_size", 768, "--data.batch_size", 64, "--train.log_every", 1)
    process = subprocess.Popen(
        command("train.py", "--data.source", "text.txt", "--workdir", "run", *sizes),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    metrics = tmp_path / "run/metrics.jsonl"
    while not metrics.exists() or not metrics.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    # The first of these steps, which take seconds, is done.
    process.send_signal(signal.SIGTERM)
    while b"again to stop now" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - begun < 1
    assert not [path for path in (tmp_path / "run/checkpoints").iterdir()]


def test_a_signal_while_sampling_ends_it_at_once(tmp_path):
    fit(CONFIG.replace(**{"train.steps": 10}), tmp_path / "run", text=TEXT, quiet=True)
    process = subprocess.Popen(
        command("sample.py", "--workdir", tmp_path / "run", "--length", 100_000_000),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert len(process.stdout.read(200)) == 200
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in said
