"""A new run takes an old one's place: killed at any moment, one of them is there, whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from charjax.config.schema import Config
from charjax.errors import DirectoryGone, InputError
from charjax.storage import replacement
from charjax.storage.lock import lock
from charjax.storage.place import Place
from charjax.storage.replacement import description, own_config
from charjax.storage.run_directory import WRITTEN, check_replaceable, write_config

# Without jax, so that it can fork: each child is killed at its next call.
DRIVER = """
import os, shutil, sys
from pathlib import Path
from charjax.storage import replacement
from charjax.storage.run_directory import WRITTEN, located

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"}

def make(folder, who, names):
    for name in names:
        if name == "checkpoints":
            for step in "12":
                (folder / name / step / "params").mkdir(parents=True)
                (folder / name / step / "params/data").write_text(who)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(who)

def run_at(workdir):
    found = {}
    for name in WRITTEN:
        path = located(workdir, name)
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        found[name] = {p.read_text() for p in files if p.exists()}
    return found

def killed_at(number, action):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in CHANGES:
            seen += 1
            if seen == number:
                os._exit(9)
    sys.addaudithook(hook)
    action()
    os._exit(0)

old_names, new_names = (set(argument.split()) for argument in sys.argv[2:4])
workdir, outcomes = Path(sys.argv[1]), []
# What a loss of power would need, and a kill does not.
os.fsync = lambda descriptor: None

def prepare():
    shutil.rmtree(workdir, ignore_errors=True)
    make(workdir, "old", old_names)
    make(workdir / ".new", "new", new_names)
    (workdir / "mine.txt").write_text("mine")

def expected(who):
    names = old_names if who == "old" else new_names
    return {name: {who} if name in names else set() for name in WRITTEN}

first, ended = 0, True
while ended:
    first += 1
    prepare()
    ended = killed_at(first, lambda: replacement.take_place(workdir))
    who = "old" if (workdir / ".new").exists() else "new"
    outcomes.append(who)
    # Whoever finishes it is killed, too. Readers find all of that run at any moment.
    for second in (1, 2, 5, 20, None):
        if run_at(workdir) != expected(who):
            sys.exit(f"killed at {first}, then before {second}: {who}, {run_at(workdir)}")
        killed_at(second, lambda: replacement.settle(workdir))
    left = {path.name for path in workdir.iterdir()}
    names = old_names if who == "old" else new_names
    if run_at(workdir) != expected(who) or left != names | {"mine.txt"}:
        sys.exit(f"settled after {first}: {who}, {left}, {run_at(workdir)}")
print(first, outcomes.count("old"), outcomes.count("new"))
"""


@pytest.mark.parametrize("swapped", [False, True])
def test_killed_at_any_call_the_old_run_or_the_new_one_is_there_and_whole(
    tmp_path, swapped
):
    some = " ".join(set(WRITTEN) - {"corpus.txt", "samples.txt"})
    every = " ".join(WRITTEN)
    names = (some, every) if swapped else (every, some)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, tmp_path / "driver.py", tmp_path / "run", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    moments, old, new = map(int, done.stdout.split())
    assert old > 0 and new > 20 and moments == old + new


def test_each_rename_is_on_the_disk_before_what_relies_on_it(tmp_path, monkeypatch):
    run, happened = tmp_path / "run", []

    def note(what, act):
        def noted(path, *target):
            happened.append(" ".join([what, *(p.name for p in (path, *target))]))
            act(path, *target)

        return noted

    for folder in (run, run / ".new"):
        write_config(folder, Config())
        (folder / "checkpoints").mkdir()
    monkeypatch.setattr(replacement, "sync", note("sync", replacement.sync))
    monkeypatch.setattr(replacement, "remove", note("delete", replacement.remove))
    monkeypatch.setattr(Path, "rename", note("move", Path.rename))
    replacement.take_place(run)
    deleted = [i for i, event in enumerate(happened) if event.startswith("delete")]
    assert happened[:3] == ["sync .new", "move .new .taking", "sync run"]
    assert deleted[:-1] == list(range(3, len(happened) - 7))
    assert happened[-7:] == [
        *("sync run", "move config.json config.json", "sync run", "sync .taking"),
        *("move checkpoints checkpoints", "sync run", "delete .taking"),
    ]


def test_only_a_run_can_be_replaced(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(InputError, match="not a run's"):
        check_replaceable(tmp_path)
    (tmp_path / "config.json").write_text("{")
    check_replaceable(tmp_path)
    write_config(tmp_path, Config())
    check_replaceable(tmp_path)


def test_checkpoints_of_something_else_are_never_deleted(tmp_path):
    theirs = tmp_path / "checkpoints/100/model.pt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("weights")
    for config in ('{"architectures": []}', "{", None):
        if config is None:
            (tmp_path / "config.json").unlink()
        else:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(InputError, match="checkpoints/100 is not a run's"):
            check_replaceable(tmp_path)
    (tmp_path / "checkpoints/.DS_Store").write_text("")
    theirs.rename(tmp_path / "checkpoints/100/params")
    check_replaceable(tmp_path)


def test_the_lengths_of_a_schedule_are_not_taken_over(tmp_path):
    fixed = {"optimizer.schedule_steps": 7, "optimizer.epoch_steps": 3, "train.steps": 9}
    write_config(tmp_path, Config().replace(**fixed))
    assert own_config(tmp_path) == Config().replace(**{"train.steps": 9})
    assert "no checkpoint" in description(tmp_path)


def test_a_directory_with_another_inode_is_not_the_same(tmp_path):
    (tmp_path / "run").mkdir()
    place = Place(tmp_path / "run")
    place.check()
    (tmp_path / "run").rename(tmp_path / "moved")
    for again in (False, True):
        if again:
            (tmp_path / "run").mkdir()
        with pytest.raises(DirectoryGone, match=r"/run .*renamed or deleted"):
            place.check()


def test_the_lock_of_another_run_of_that_name_stays(tmp_path):
    with lock(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        (tmp_path / "run/.charjax-lock").write_text("1")
    assert (tmp_path / "run/.charjax-lock").read_text() == "1"
