"""A run compiled for a target, by library and command; and compilers that fail."""

import dataclasses
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import charjax
from charjax.compiled import compile_for as compiling
from charjax.model.parameters import table

ROOT = Path(__file__).parents[2]
CONFIG = charjax.Config(
    data=charjax.DataConfig(batch_size=8, sequence_length=12),
    model=charjax.ModelConfig(hidden_size=32),
    train=charjax.TrainConfig(eval_rows=3),
)
OPTIONS = ("--data.batch_size", 8, "--data.sequence_length", 12, "--model.hidden_size", 32)

needs_tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='libtpu is not installed: pip install "charjax[tpu]"',
)
needs_gpu = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))),
    reason='no compiler for GPUs is installed: pip install "charjax[cuda12]"',
)


@pytest.fixture(scope="module")
def on_cpus():
    return charjax.compile_for(CONFIG, "cpu:2", vocab_size=50)


def test_every_program_of_a_run_is_compiled(on_cpus):
    assert [program.name for program in on_cpus.programs] == [
        *("training", "evaluation", "reading", "sampling")
    ]
    assert (on_cpus.devices, on_cpus.processes, on_cpus.fits) == (2, 1, True)
    for program in on_cpus.programs:
        assert program.failure is None and program.seconds > 0
        assert program.recurrence.startswith("scan")
    # Rows that two devices share.
    assert on_cpus["evaluation"].rows == 4


def test_memory_is_told_by_what_takes_it(on_cpus):
    memory = on_cpus["training"].memory
    shapes = [each.shape for g in table(CONFIG.model, 50).values() for each in g.values()]
    numbers = sum(math.prod(shape) for shape in shapes)
    assert memory.parts["parameters"] == 4 * numbers
    # Two moments, and two counts.
    assert memory.parts["optimizer"] == 8 * numbers + 8
    # Layers, rows of one device, units; two states.
    assert memory.parts["carry"] == 2 * 2 * 4 * 32 * 4
    # Of one device's rows: inputs, targets, mask, reset.
    assert memory.parts["batch"] == 4 * (12 * 4 + 12 * 4 + 12 + 1)
    # At least what the reverse loop needs: hidden state and gates of two layers.
    assert memory.temporaries > 2 * 12 * 4 * 32 * 5 * 4
    others = memory.temporaries + memory.outputs + memory.code
    assert memory.peak == sum(memory.parts.values()) + others


def test_gradients_are_summed_over_devices_outside_every_loop_over_time(on_cpus):
    training = on_cpus["training"]
    (sent,) = training.collectives
    assert sent.kind == "all-reduce" and sent.loops == ()
    assert sent.bytes >= training.memory.parts["parameters"]
    assert training.collectives_over_time == ()
    assert on_cpus["sampling"].collectives == ()


def test_units_split_over_devices_meet_in_each_step_and_that_is_said():
    config = CONFIG.replace(**{"parallel.model": 2})
    found = charjax.compile_for(config, "cpu:2", vocab_size=50, programs=["training"])
    training = found["training"]
    assert training.collectives_over_time
    assert all("time" in each.loops for each in training.collectives_over_time)
    whole = charjax.compile_for(CONFIG, "cpu", vocab_size=50, programs=["training"])
    parts, all_parts = training.memory.parts, whole["training"].memory.parts
    assert parts["parameters"] < 0.6 * all_parts["parameters"]


def test_the_command_prints_what_the_library_finds(call, on_cpus):
    options = ("--target", "cpu:2", *OPTIONS, "--vocab-size", 50, "--train.eval_rows", 3)
    done = call("compile", *options, "--programs", "training", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    (training,) = printed["programs"]
    expected = json.loads(json.dumps(on_cpus.to_dict()))["programs"][0]
    volatile = {"seconds": 0}
    assert {**training, **volatile} == {**expected, **volatile}

    done = call("compile", *options, "--programs", "training")
    said = done.stdout.decode()
    peak = on_cpus["training"].memory.peak
    assert f"memory of a device: {peak / 1e6:,.1f} MB" in said
    assert "all-reduce, " in said and "OVER TIME" not in said
    assert "DOES NOT FIT" not in said


def test_a_preset_and_its_fields_are_those_of_training(call):
    done = call("compile", "--config", "anna", "--help")
    said = " ".join(done.stdout.decode().split())
    assert "Defaults are those of --config anna." in said
    assert "--parallel.fsdp" in said and "(default: 512)" in said


# What is refused.


@pytest.mark.parametrize(
    "options, parts",
    [
        (("--target", "v5e"), ["--target is 'v5e'", "h100", "v6e"]),
        (("--target", "cpu:3"), ["data.batch_size is 8", "3 devices"]),
        (("--target", "cpu:8", "--parallel.model", 3), ["parallel.model is 3"]),
        (("--processes", 2), ["--processes is 2"]),
        (("--programs", "train"), ["--programs is", "training"]),
        (("--programs",), ["--programs is ()", "training"]),
        (("--vocab-size", 0), ["--vocab-size is 0"]),
        (("--streams", 0), ["--streams is 0"]),
        (("--minutes", 0), ["--minutes is 0"]),
        (("--model.recurrence", "tpu"), ["model.recurrence is 'tpu'"]),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_what_cannot_be_compiled_is_refused_in_a_line(call, options, parts):
    done = call("compile", *OPTIONS, *options)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    "programs", ["training", [], ["train"], [["training"]], 5], ids=str
)
def test_programs_are_a_list_of_names(programs):
    with pytest.raises(charjax.InputError, match=r"`programs` is .*give a list of some"):
        charjax.compile_for(CONFIG, "cpu", programs=programs)  # pyright: ignore


def test_a_target_is_a_string():
    with pytest.raises(charjax.InputError, match="`target` is 8"):
        charjax.compile_for(CONFIG, 8)  # pyright: ignore


def test_a_program_that_was_not_asked_for_is_a_key_that_is_not_there(on_cpus):
    with pytest.raises(KeyError, match="layer"):
        on_cpus["layer"]


# Compilers that crash, hang, or have too little memory.


def with_child(monkeypatch, script):
    monkeypatch.setattr(compiling, "_CHILD", (sys.executable, "-c", script))


def test_a_compiler_that_crashes_ends_its_process_alone(monkeypatch, call):
    script = (
        "import os, sys; print('loading'); print('F0000 no such thing', file=sys.stderr);"
        "sys.stdout.flush(); os.abort()"
    )
    with_child(monkeypatch, script)
    found = charjax.compile_for(CONFIG, "cpu", programs=["training", "sampling"])
    for program in found.programs:
        assert program.failure is not None
        assert "SIGABRT" in program.failure
        assert "F0000 no such thing" in program.failure
    done = call("compile", *OPTIONS, "--programs", "training")
    assert done.returncode == 1
    assert "training: not compiled" in done.stdout.decode()
    assert "F0000 no such thing" in done.stderr.decode()


def test_a_compiler_that_hangs_is_ended_with_what_it_started(monkeypatch, tmp_path):
    numbers = tmp_path / "numbers"
    script = (
        "import os, subprocess, sys, time;"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(numbers)!r}, 'w').write(f'{{os.getpid()}} {{other.pid}}');"
        "print('pass 17 of 99', flush=True); time.sleep(600)"
    )
    with_child(monkeypatch, script)
    begun = time.monotonic()
    found = charjax.compile_for(CONFIG, "cpu", programs=["training"], minutes=5 / 60)
    assert time.monotonic() - begun < 60
    failure = found["training"].failure
    assert failure is not None and "not done after 5 seconds" in failure
    assert "pass 17 of 99" in failure
    for number in map(int, numbers.read_text().split()):
        waited(lambda number=number: not is_running(number))


def is_running(process):
    """Whether a process does more than wait to be forgotten."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_child_ends_with_its_parent(tmp_path):
    script = f"""
import subprocess, sys
from charjax.compiled import compile_for as c
import charjax
c._CHILD = (sys.executable, "-c", '''
import os, sys, threading, time
from charjax.compiled import child
sys.stdin.readline()
threading.Thread(target=child._end_with_parent, daemon=True).start()
open({str(tmp_path / "child")!r}, "w").write(str(os.getpid()))
time.sleep(600)
''')
charjax.compile_for(charjax.Config(), "cpu", programs=["training"])
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        number = waited(lambda: (tmp_path / "child").read_text())
        os.kill(parent.pid, signal.SIGKILL)
        waited(lambda: not is_running(int(number)))
    finally:
        parent.kill()
        parent.wait()


def waited(condition):
    """What a condition gives once it holds."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_an_error_of_the_compiler_is_told_by_its_last_lines(monkeypatch):
    with_child(monkeypatch, "raise SystemExit('ptxas is not there')")
    found = charjax.compile_for(CONFIG, "cpu", programs=["training"])
    failure = found["training"].failure
    assert failure is not None and failure.endswith("exit code 1: ptxas is not there")


def test_memory_that_is_not_there_is_told(on_cpus, call, monkeypatch):
    small = dataclasses.replace(on_cpus["training"], limit=1000, fits=False)
    found = dataclasses.replace(on_cpus, programs=(small,))
    assert found.fits is False
    monkeypatch.setitem(vars(charjax), "compile_for", lambda *_, **__: found)
    done = call("compile", "--target", "cpu:2")
    assert done.returncode == 1
    assert "IT DOES NOT FIT" in done.stdout.decode()


def test_the_environment_of_a_compiler_is_its_own(tmp_path, monkeypatch):
    before = dict(os.environ)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    place = compiling.target_named("v5e:2x2")
    made = compiling.environment(place, tmp_path)
    assert made["TPU_SKIP_MDS_QUERY"] == "1" and made["JAX_PLATFORMS"] == "cpu"
    # The user's own flags come last, and hold.
    assert made["LIBTPU_INIT_ARGS"].endswith(" --mine=1")
    monkeypatch.undo()
    assert dict(os.environ) == before


# The compilers themselves, where they are installed.


@needs_tpu
def test_a_step_is_compiled_for_a_tpu():
    config = CONFIG.replace(**{"data.batch_size": 32, "parallel.fsdp": True})
    found = charjax.compile_for(config, "v5e:2x2", programs=["training"])
    training = found["training"]
    assert training.failure is None, training.failure
    assert found.devices == 4 and found.fits
    assert training.collectives and not training.collectives_over_time
    forward = [loop for loop in training.loops if loop.direction == "forward"]
    backward = [loop for loop in training.loops if loop.direction == "backward"]
    assert len(forward) == len(backward) == CONFIG.model.num_layers
    for loop in training.loops:
        assert loop.over == "time" and loop.iterations == loop.steps == 12
        assert 10 < loop.per_step("bundles") < 5000
    assert training.bundles > sum(12 * loop.bundles for loop in training.loops)
    assert training.estimate is not None and training.unknown == 0


@needs_tpu
def test_a_layer_has_the_cycles_of_the_static_profile(call):
    options = ("--target", "v5e:2x2", "--programs", "layer", "--data.batch_size", 32)
    small = ("--data.sequence_length", 4, "--model.hidden_size", 32)
    done = call("compile", *options, *small, "--train.precision", "bfloat16")
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    ways = re.findall(r"(forward|backward): ([\d,.]+) cycles a time step", said)
    assert [way for way, _ in ways] == ["forward", "backward"], said
    assert all(100 < float(n.replace(",", "")) < 1e5 for _, n in ways)


@needs_tpu
def test_a_topology_that_a_tpu_does_not_have_is_refused(call):
    done = call("compile", *OPTIONS, "--target", "v5e:3x3", "--programs", "sampling")
    assert done.returncode == 2
    assert re.search(r"--target is 'v5e:3x3': .*not divisible", done.stderr.decode())


@needs_gpu
@pytest.mark.parametrize("target", ["h100", "2xa100"])
def test_a_step_is_compiled_for_a_gpu(target):
    found = charjax.compile_for(CONFIG, target, programs=["training"])
    training = found["training"]
    assert training.failure is None, training.failure
    assert found.fits and not training.collectives_over_time
    assert bool(training.collectives) == (target == "2xa100")
    kernels = [loop.per_step("kernels") for loop in training.loops if loop.over == "time"]
    assert len(kernels) >= 2 and all(0 < each < 20 for each in kernels)
    assert training.kernels > training.launches > 0
    assert training.launches == training.alone + training.command_buffers


@needs_tpu
def test_training_starts_soon_where_libtpu_finds_no_tpu(tmp_path):
    """The line of the model, which is shown once JAX has its devices."""
    if os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0"):
        pytest.skip("there is a TPU here")
    text = tmp_path / "text.txt"
    text.write_text("all happy families are alike.\n" * 100)
    # JAX and the commands that other tests call set some in this process.
    told = ("JAX_PLATFORMS", "JAX_FORCE_TPU", "TPU_")
    free = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    times = {}
    for name, environment in (("cpu", {"JAX_PLATFORMS": "cpu"}), ("any", {})):
        words = [*(sys.executable, "-m", "charjax", "train", "--data.source", str(text))]
        words += ["--workdir", str(tmp_path / name), "--train.steps", "1"]
        begun, said = time.monotonic(), []
        process = subprocess.Popen(
            words, cwd=ROOT, env={**free, **environment}, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                if line.startswith("model: "):
                    break
            times[name] = time.monotonic() - begun
        finally:
            process.kill()
            process.communicate()
        assert "model: " in said[-1], said
        # Where the extra for GPUs is there too, it has things to say of its own.
        assert "TPU" not in "".join(said), said
    # A busy machine makes both slow.
    assert times["any"] - times["cpu"] < 10, times
