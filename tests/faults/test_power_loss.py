"""What would be left if the power went off at any moment of a run.

The file system calls of a real run are recorded and replayed: whatever was written, named
or deleted and not brought to the disk since, may be lost, in any combination.
"""

import os
import re
import shutil
import subprocess

import pytest
from subprocesses import command
from tiny import OPTIONS, TEXT

TRAIN = (
    *("--data.source", "text.txt", *OPTIONS, "--train.steps", "30"),
    *("--train.checkpoint_every", "10", "--train.eval_every", "None"),
)
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate")
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
REMOVES = ("unlink", "unlinkat", "rmdir")
MAKES = ("openat", "creat", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat")
CALLS = (*WRITES, *SYNCS, *RENAMES, *REMOVES, *MAKES)


def calls(log):
    """The calls that succeeded, in the order they ended: (began, ended, name, paths)."""
    begun = {}
    for number, line in enumerate(log.splitlines()):
        thread, rest = line.split(maxsplit=1)
        began = number
        if found := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            began, start = begun.pop(thread)
            rest = start + found[1]
        elif rest.endswith(" <unfinished ...>"):
            begun[thread] = number, rest.removesuffix(" <unfinished ...>")
            continue
        name, _, arguments = rest.partition("(")
        arguments, *result = re.split(r"\) += (?=-?\d)", arguments)
        if name not in CALLS or not result or result[-1].startswith("-"):
            continue
        if name == "openat" and "O_CREAT" not in arguments:
            continue
        if name in WRITES + SYNCS:
            arguments = arguments.partition(", ")[0]
        yield began, number, name, paths(arguments)


def paths(arguments):
    """Paths given by name, or by descriptors as `strace -y` shows them."""
    pattern = r'\w+<([^<>]*)>(?:, "([^"]*)")?|"([^"]*)"'
    found = re.findall(pattern, arguments)
    return [
        os.path.join(folder, name) if name else folder or alone
        for folder, name, alone in found
    ]


class Disk:
    """What is not on the disk yet, and since which call."""

    def __init__(self, workdir):
        self.workdir, self.checkpoints = f"{workdir}", f"{workdir}/checkpoints"
        self.contents, self.names = {}, {}
        self.written, self.lines, self.lines_kept = set(), 0, 0
        self.steps, self.gone, self.lost = [], [], []

    def happen(self, began, ended, name, paths):
        path = paths[0]
        if name in WRITES:
            self.contents[path] = ended
            self.written.add(path)
            self.lines += path == f"{self.workdir}/metrics.jsonl"
        elif name in SYNCS:
            self.sync(path, began)
        elif name in RENAMES:
            self.rename(path, paths[1], ended)
        elif name in REMOVES:
            self.check_removal(path)
            self.contents.pop(path, None)
            self.names.pop(path, None)
        else:
            self.contents[paths[-1]] = self.names[paths[-1]] = ended

    def sync(self, path, began):
        if self.contents.get(path, began) < began:
            del self.contents[path]
        listed = [p for p, since in self.names.items() if os.path.dirname(p) == path]
        for each in listed:
            if self.names[each] < began:
                del self.names[each]
        if path == f"{self.workdir}/metrics.jsonl":
            self.lines_kept = self.lines
        if path == self.checkpoints and self.steps:
            self.check_way()

    def rename(self, old, new, ended):
        self.check_removal(old)
        if (step := self.step(new)) is not None and new.endswith(step):
            self.steps.append(step)
            self.check_step(old, int(step))
        for known in (self.contents, self.names):
            for path in [p for p in known if p == old or p.startswith(old + "/")]:
                known[new + path.removeprefix(old)] = known.pop(path)
        self.written |= {
            new + p.removeprefix(old) for p in self.written if p.startswith(old)
        }
        self.names[new] = ended

    def step(self, path):
        """The step in whose folder a path lies, or whose folder it is."""
        found = re.match(re.escape(self.checkpoints) + r"/(\d+)(?=/|$)", path)
        return found and found[1]

    def check_step(self, folder, step):
        for path in [*self.contents, *self.names]:
            if path.startswith(folder + "/"):
                self.lost.append(f"step {step} got its name before {path} was on the disk")
        if self.lines_kept < step:
            self.lost.append(f"step {step} got its name before the metrics up to it")

    def check_way(self):
        config = f"{self.workdir}/config.json"
        if config in self.contents:
            self.lost.append(f"a step is on the disk before {config}")
        for path in self.names:
            if path in (self.checkpoints, config) or self.workdir.startswith(path):
                self.lost.append(f"a step is on the disk before the name of {path}")

    def check_removal(self, path):
        if (step := self.step(path)) is None:
            return
        self.gone.append(step)
        safe = [s for s in self.steps if s not in self.gone]
        if not any(f"{self.checkpoints}/{s}" not in self.names for s in safe):
            self.lost.append(f"{path} went before a newer step was on the disk")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_power_lost_at_any_moment_leaves_a_run_that_goes_on(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    tracer = ["strace", "-f", "--seccomp-bpf", "-y", "-o", "log"]
    tracer += ["-e", f"trace={','.join(CALLS)}"]
    workdir = tmp_path / "runs/mine"
    train = command("train.py", "--workdir", workdir, *TRAIN)
    done = subprocess.run([*tracer, *train], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    disk = Disk(workdir)
    for call in calls((tmp_path / "log").read_text(errors="replace")):
        disk.happen(*call)
    # Nothing happened unseen.
    assert disk.steps == ["10", "20", "30"]
    assert set(disk.gone) >= {"10", "20"}
    last = (workdir / "checkpoints/30").rglob("*")
    assert {str(path) for path in last if path.is_file()} <= disk.written
    assert not disk.lost, "\n".join(dict.fromkeys(disk.lost))
