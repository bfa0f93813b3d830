"""Disks that fail in the middle of a run: what is told, what is lost, what goes on."""

import contextlib
import os
import resource
import shutil
import subprocess

import pytest
from subprocesses import run_script
from tiny import CONFIG, TEXT

from charjax import fit, load
from charjax.reporting.metrics import read
from charjax.storage.saver import Saver

pytestmark = pytest.mark.curves

SAVING = CONFIG.replace(**{"train.steps": 120})


def train_steps(lines):
    return [line["step"] for line in lines if line["split"] == "train"]


def only_abandoned_work_complains(said):
    """Threads of TensorStore that a failed save leaves may print this at any later time,
    past every hook of Python's."""
    return said.count("Traceback") <= said.count("Event loop is closed")


# Files that training can do without.


@contextlib.contextmanager
def growth_of_files():
    """Gives a function that limits the growth of this process's files, or lifts that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=limits[0]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    try:
        yield limit
    finally:
        limit()


def test_metrics_samples_and_curves_that_cannot_be_written_are_told(tmp_path, capfd):
    metrics, asked = tmp_path / "metrics.jsonl", []
    config = CONFIG.replace(**{"train.eval_every": 20, "train.checkpoint_every": 1000})
    with growth_of_files() as limit:

        def stop():
            asked.append(1)
            if len(asked) == 10:
                # The disk is full in the middle of a line.
                limit(metrics.stat().st_size + 50)
            if len(asked) == 15:
                limit()
                (tmp_path / "samples.txt").mkdir()
                (tmp_path / "curves.png").mkdir()
            return False

        result = fit(config, tmp_path, text=TEXT, stop=stop)
    said = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert [line.split()[1] for line in said] == [
        "metrics.jsonl",
        "curves.png",
        "samples.txt",
    ]
    assert all("goes on" in line for line in said)
    assert read(metrics) == result.history
    assert train_steps(result.history) == list(range(1, 41))

    for name in ("samples.txt", "curves.png"):
        (tmp_path / name).rmdir()
    longer = config.replace(**{"train.steps": 50})
    resumed = fit(longer, tmp_path, text=TEXT, quiet=True).history
    assert resumed[: len(result.history)] == result.history == read(metrics)[:-11]
    assert train_steps(resumed) == list(range(1, 51))


# A disk that is really full.

FULL = """
import contextlib, io, os, shutil, subprocess, sys
from pathlib import Path
from charjax.commands import cli
from charjax import fit, load
from faults.test_disk_faults import SAVING, TEXT
disk, outside = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
ballast, asked = disk / "ballast", []

def fill():
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))

def stop():
    asked.append(1)
    if len(asked) == 11:
        while not (disk / "run/checkpoints/10").exists():
            pass
        fill()
    if len(asked) == 35:
        ballast.unlink()
    return False

fill()
(outside / "text.txt").write_text(TEXT)
options = ["--workdir", f"{disk}/run", "--data.source", str(outside / "text.txt")]
code = cli.main(["train", *options])
print(code, sorted(path.name for path in disk.rglob("*")))
print("begun on a full disk", file=sys.stderr)
ballast.unlink()
changes = {"train.steps": 80, "train.eval_every": 20, "train.sample_every": 20}
fit(SAVING.replace(**changes), disk / "run", text=TEXT, stop=stop)
shutil.copytree(disk / "run", outside / "run")
"""


def can_mount(folder):
    command = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*command, folder], capture_output=True).returncode == 0


def test_a_full_disk_is_told_and_training_goes_on_once_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("no file system may be mounted here")
    prefix = ("unshare", "--mount", "--map-root-user")
    done = run_script(FULL, disk, tmp_path, prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert only_abandoned_work_complains(done.stderr)
    refused, said = done.stderr.split("begun on a full disk")
    assert "No space left on device" in refused
    assert done.stdout in ("1 ['ballast']\n", "2 ['ballast']\n")
    assert "step 20 was not saved" in said
    for name in ("metrics.jsonl", "samples.txt", "curves.png"):
        assert f"warning: {name}" in said
    run = tmp_path / "run"
    assert load(run, "latest").step == 80
    assert train_steps(read(run / "metrics.jsonl")) == list(range(1, 81))
    assert {path.name for path in run.iterdir()} == {
        *("config.json", "corpus.txt", "checkpoints"),
        *("metrics.jsonl", "samples.txt", "curves.png"),
    }


# Other errors of the disk, one after the other in one run. Each begins once a step is on
# disk, and ends when the run has noticed that the next one does not get there.

ERRORS = {
    "Input/output error": "strace fsync:error=EIO",
    "Disk quota exceeded": "strace mkdir:error=EDQUOT",
    "Read-only file system": "strace rename:error=EROFS",
    "Too many open files": "descriptors",
    "Permission denied": "permission",
}

FAILING = """
import ctypes, os, resource, subprocess, sys, time
from pathlib import Path
from charjax import fit
from faults.test_disk_faults import SAVING, TEXT
workdir, said, errors = Path(sys.argv[1]), open(sys.argv[2], "rb"), sys.argv[3:]
checkpoints, limits = workdir / "checkpoints", resource.getrlimit(resource.RLIMIT_NOFILE)
asked, tracers = [], []

def begin(kind, what=""):
    if kind == "strace":
        # Linux may let nobody but a parent trace a process that does not allow it.
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
        options = ["-e", "trace=" + what.partition(":")[0], "-e", "inject=" + what]
        tracer = subprocess.Popen(
            ["strace", "-f", "-p", str(os.getpid()), "-o", "/dev/null", *options],
            stderr=subprocess.PIPE)
        assert b"attached" in tracer.stderr.readline()
        tracers.append(tracer)
    elif kind == "descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    else:
        checkpoints.chmod(0o500)

def end(kind, what=""):
    if kind == "strace":
        tracers[-1].terminate()
        tracers[-1].communicate()
    elif kind == "descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    else:
        checkpoints.chmod(0o700)

def steps():
    names = sorted(os.listdir(checkpoints))
    return [name for name in names if name.isdigit() or name.endswith(".retired")]

def stop():
    asked.append(1)
    number, place = divmod(len(asked) - 11, 20)
    if number < 0 or number >= len(errors):
        return False
    first = 10 + 20 * number
    if place == 0:
        while steps() != [str(first)]:
            time.sleep(0.01)
        begin(*errors[number].split())
    noticed = f"step {first + 10}".encode() in os.pread(said.fileno(), 1 << 20, 0)
    if 10 <= place < 18 and not noticed:
        time.sleep(0.2 * 1.5 ** (place - 10))
    if place == 18:
        end(*errors[number].split())
        print(first, *steps(), int(noticed), flush=True)
    return False

fit(SAVING, workdir, text=TEXT, stop=stop)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_error_of_the_disk_is_told_and_the_next_save_succeeds(tmp_path):
    prefix = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root is denied nothing, and setpriv is not installed")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    with open(tmp_path / "said", "w") as said:
        done = run_script(
            *(FAILING, tmp_path / "run", tmp_path / "said", *ERRORS.values()),
            prefix=prefix,
            stderr=said,
        )
    said = (tmp_path / "said").read_text()
    assert done.returncode == 0, said
    warnings = [line for line in said.splitlines() if line.startswith("warning: ch")]
    left = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    for number, (reason, warning) in enumerate(zip(ERRORS, warnings, strict=True)):
        step = 20 + 20 * number
        assert f"step {step} was not saved" in warning and "goes on" in warning
        assert reason in warning
        # Noticed in the steps after, and not only by the next save.
        assert left[number] == [step - 10, step - 10, 1]
    with Saver(tmp_path / "run/checkpoints") as checkpoints:
        assert checkpoints.resolve("latest", strict=True) == SAVING.train.steps
    assert only_abandoned_work_complains(said) and "RuntimeWarning" not in said
