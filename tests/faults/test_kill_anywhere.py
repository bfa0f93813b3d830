"""Kill a real run at any moment; start it again until it is done; compare every bit.

`pytest tests/faults/test_kill_anywhere.py --kills 200` is the long one: as many kills at
random moments in one run. The seed is fixed, the moments are not: they depend on the
machine.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from comparison import timeless_metrics
from subprocesses import command

import charjax
from charjax import inspect_run, load
from charjax.storage.run_directory import read_config
from charjax.storage.saver import Saver

TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom.\n" * 60
)
EVERY = 5
OPTIONS = [
    *("--data.source", "text.txt", "--data.batch_size", "4", "--data.sequence_length", "8"),
    *("--model.hidden_size", "32", "--model.num_layers", "2", "--model.dropout", "0.2"),
    *("--train.log_every", "1", "--train.eval_every", "20", "--train.sample_every", "25"),
    *("--train.checkpoint_every", str(EVERY), "--optimizer.warmup_steps", "5"),
]


def environment(tmp_path):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    quick = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**os.environ, **cache, **quick, "CHARJAX_CACHE_DIR": str(tmp_path / "cache")}


def train(folder, workdir, steps, **options):
    length = ("--train.steps", steps)
    return subprocess.Popen(
        command("train.py", "--workdir", workdir, *OPTIONS, *length),
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        **options,
    )


def finished(folder, workdir, steps, **options):
    process = train(folder, workdir, steps, **options)
    _, said = process.communicate(timeout=240 + steps)
    assert process.returncode == 0, said.decode()
    return said.decode()


def outcome(workdir):
    """What must not depend on kills: the digest, the metrics, a text, the samples."""
    inspected = inspect_run(workdir)
    text = load(workdir, "latest").generate(length=300, seed=3)
    samples = (workdir / "samples.txt").read_bytes()
    metrics = timeless_metrics(workdir)
    return inspected["step"], inspected["digest"], metrics, text, samples


def steps_on_disk(workdir):
    folder = workdir / "checkpoints"
    if not folder.exists():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def last_logged(workdir):
    try:
        data = (workdir / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return 0
    whole = data[: data.rfind(b"\n") + 1].splitlines()
    return max((json.loads(line)["step"] for line in whole), default=0)


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, request):
    kills = request.config.getoption("--kills")
    steps = 40 + 8 * kills
    (tmp_path / "text.txt").write_text(TEXT)
    env, draw = environment(tmp_path), random.Random(1)
    finished(tmp_path, "whole", steps, env=env)
    workdir, killed, most_lost, started = tmp_path / "killed", 0, 0, time.monotonic()
    moments = {"starting": 0, "training": 0}
    while True:
        process = train(tmp_path, "killed", steps, env=env)
        reached, kept = last_logged(workdir), max(steps_on_disk(workdir), default=0)
        if killed < kills:
            if draw.random() < 0.15:
                moment, wait = "starting", draw.uniform(0, 3)
            else:
                # Until it trains again, and then a moment of it.
                while process.poll() is None and last_logged(workdir) in (0, reached, kept):
                    time.sleep(0.005)
                moment, wait = "training", draw.expovariate(1 / 0.05)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        # The last of them has all the steps that are left to go.
        _, said = process.communicate(timeout=240 + steps)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        killed += 1
        moments[moment] += 1
        lost = last_logged(workdir) - max(steps_on_disk(workdir), default=0)
        most_lost = max(most_lost, lost)
    took = time.monotonic() - started
    print(f"{killed} kills {moments}, {steps} steps, {took:.0f} s, lost {most_lost} steps")
    assert killed >= min(kills, 3)
    # A save may be under way when the next is due, so up to two intervals are at stake
    # where steps are as short as here.
    assert most_lost <= 2 * EVERY
    assert outcome(workdir) == outcome(tmp_path / "whole")
    left = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert all(name.isdigit() for name in left), left


# What a save asks of the file system: a kill after each of these, one after the other.
CHANGES = "write,pwrite64,writev,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat"
CHANGES += ",rmdir,fsync,fdatasync,ftruncate,link,linkat"
CALLS = f"{CHANGES},openat,close"

SAVE = """
import sys
from pathlib import Path
import jax
from charjax.storage.saver import Saver
directory, saves = Path(sys.argv[1]), {}
for step in map(int, sys.argv[2:]):
    params = {"a": jax.numpy.arange(1000.0) + step, "b": jax.numpy.ones(3) * step}
    saves[step] = {"params": params}
with Saver(directory) as checkpoints:
    print("ready", flush=True)
    sys.stdin.readline()
    for step, items in saves.items():
        checkpoints.save(step, items, {"step": step, "validation_loss": 1.0 / step})
        checkpoints.wait()
"""


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """Checkpoints of the steps 1 and 2, to be copied."""
    directory = tmp_path_factory.mktemp("steps") / "before"
    save = [sys.executable, "-c", SAVE, directory, "1", "2"]
    subprocess.run(save, check=True, input=b"\n", timeout=120)
    return directory


def run_until(limit, script, *arguments, calls=CALLS, env=None):
    """Runs a script in another process, which is killed after `limit` file system calls.

    They are counted from when it has said that it is ready. Each call is held for some
    milliseconds before it happens, so that the kill comes before the next one. Returns
    how many calls there were.
    """
    started = [sys.executable, *map(str, (script, *arguments))]
    child = subprocess.Popen(
        started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert child.stdout.readline() == b"ready\n"
    reading, writing = os.pipe()
    # The kernel lets a tracer see calls only from its own first stop on.
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(child.pid), "-o", f"/dev/fd/{writing}"),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:delay_enter=3000"),
        ],
        pass_fds=[writing],
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert b"attached" in tracer.stderr.readline()
    child.stdin.write(b"\n")
    child.stdin.close()
    count = 0
    with os.fdopen(reading) as lines:
        for line in lines:
            # A call that is held, or goes on while another thread's begins, has two lines.
            count += "resumed" not in line and "(" in line
            if count == limit:
                child.send_signal(signal.SIGKILL)
                break
        child.wait(60)
        for _ in lines:
            pass
    child.stdout.close()
    tracer.communicate(timeout=60)
    return count


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_at_any_file_system_call_of_a_save_leaves_the_old_or_the_new_step(
    two_steps, tmp_path, request
):
    script = tmp_path / "save.py"
    script.write_text(SAVE)
    # The newest step is saved again, as after a resume, and a later one.
    outcomes = {}
    for step in (2, 3):
        scratch = tmp_path / f"counted{step}"
        shutil.copytree(two_steps, scratch)
        total = run_until(None, script, scratch, step)
        assert total > 20
        for number in range(1, total + 1, request.config.getoption("--syscalls")):
            directory = tmp_path / "killed"
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(two_steps, directory)
            run_until(number, script, directory, step)
            with Saver(directory) as checkpoints:
                found = checkpoints.resolve("latest", strict=True)
                target = {"params": checkpoints.metadata(found, "params")}
                params = checkpoints.restore(found, target)["params"]
            assert float(params["a"][0]) == float(params["b"][2]) == found
            left = {path.name for path in directory.iterdir()}
            assert all(name.isdigit() for name in left), left
            key = f"saving {step}: found {found}"
            outcomes[key] = outcomes.get(key, 0) + 1
    print(outcomes)
    assert outcomes["saving 2: found 2"] > 0
    assert outcomes["saving 3: found 2"] > 0


# As `--fresh` on a run of one step; the first save is awaited, and then the renames come.
FRESH = """
import sys
from pathlib import Path
import charjax
from charjax.storage.run_directory import read_config
workdir = Path(sys.argv[1])
config = read_config(workdir).replace(**{"train.seed": 1, "train.sample_every": None})
# Nothing but the files of a run from here on.
charjax.fit(config, text="once upon a time " * 40, quiet=True)
print("ready", flush=True)
sys.stdin.readline()
charjax.fit(config, workdir, fresh=True, quiet=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_at_any_file_system_call_of_starting_over_leaves_the_old_or_the_new_run(
    tmp_path, request
):
    script, before = tmp_path / "fresh.py", tmp_path / "before"
    script.write_text(FRESH)
    config = charjax.Config(
        data=charjax.DataConfig(batch_size=8, sequence_length=8),
        model=charjax.ModelConfig(hidden_size=8, num_layers=1),
        optimizer=charjax.OptimizerConfig(schedule="constant"),
        train=charjax.TrainConfig(steps=1, eval_every=None, log_every=1),
    )
    charjax.fit(config, before, text=TEXT, quiet=True)
    shutil.copytree(before, tmp_path / "counted")
    # As this process sees them, or the bits would differ.
    env = {**environment(tmp_path), "JAX_NUM_CPU_DEVICES": "8"}
    env["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    total = run_until(None, script, tmp_path / "counted", calls=CHANGES, env=env)
    digests = {
        inspect_run(folder)["digest"]: who
        for folder, who in ((before, "old"), (tmp_path / "counted", "new"))
    }
    assert total > 100 and len(digests) == 2
    outcomes = {"old": 0, "new": 0}
    apart = request.config.getoption("--syscalls")
    # The last of them from the end, where the new run takes its place.
    for number in range(total - 5, 0, -apart):
        directory = tmp_path / "killed"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(before, directory)
        run_until(number, script, directory, calls=CHANGES, env=env)
        # Whoever reads it at once finds one of them, and so does whoever goes on.
        found = digests[inspect_run(directory)["digest"]]
        charjax.fit(read_config(directory), directory, quiet=True)
        assert digests[inspect_run(directory)["digest"]] == found
        metrics = (directory / "metrics.jsonl").read_text()
        assert metrics.count('"train"') == 1 and (directory / "corpus.txt").exists()
        left = {path.name for path in directory.iterdir()}
        assert not [name for name in left if name.startswith(".")]
        outcomes[found] += 1
    print(total, outcomes)
    assert outcomes["new"] > 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("number", [1, 4])
def test_a_kill_while_an_old_step_is_deleted_leaves_no_damaged_one(
    two_steps, tmp_path, number
):
    directory = shutil.copytree(two_steps, tmp_path / "steps")
    with Saver(directory) as checkpoints:
        before = checkpoints.steps()
    # Nothing but the files of a step that goes is removed by handle.
    kill = f"inject=unlinkat:signal=SIGKILL:when={number}"
    tracer = ["strace", "-f", "-o", "/dev/null", "-e", "trace=unlinkat", "-e", kill]
    save = [sys.executable, "-c", SAVE, str(directory), "3"]
    done = subprocess.run([*tracer, *save], input=b"\n", timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert any(path.name.endswith(".retired") for path in directory.iterdir())
    with Saver(directory) as checkpoints:
        assert checkpoints.resolve("latest", strict=True) == 3
        assert checkpoints.steps() == [*before[1:], 3]
    assert all(path.name.isdigit() for path in directory.iterdir())
