"""The run directory: layout, lock, resume rules."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.storage import run_directory
from charjax.storage.lock import lock
from charjax.storage.run_directory import (
    check_apart,
    create,
    holds_run,
    newest_run,
    read_config,
    resumed_config,
    write_config,
)


def test_config_goes_to_disk_and_back(tmp_path):
    config = Config().replace(**{"data.source": "naïve.txt", "train.steps": 7})
    assert not holds_run(tmp_path / "run")
    write_config(tmp_path / "run", config)
    assert holds_run(tmp_path / "run")
    assert read_config(tmp_path / "run") == config
    assert os.listdir(tmp_path / "run") == ["config.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"model": 3}', '{"model": {"size": 3}}', "\xff", "[" * 9999],
)
def test_a_damaged_config_is_refused_by_name(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json"):
        read_config(tmp_path)


def test_an_absent_config_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no .*config\.json.*`fresh=True`"):
        read_config(tmp_path)


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_config(tmp_path, Config())
    write_bytes = Path.write_bytes

    def half(path, data):
        write_bytes(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "write_bytes", half)
        write_config(tmp_path, Config().replace(**{"train.steps": 7}))
    assert read_config(tmp_path) == Config()
    assert os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.steps", 9),
        ("train.epochs", 3.0),
        ("train.eval_every", None),
        ("train.checkpoint_every", 3),
        ("train.log_every", 3),
        ("train.sample_every", None),
        ("train.early_stopping", 3),
    ],
)
def test_length_and_cadences_may_change(field, value):
    requested = Config().replace(**{field: value})
    assert resumed_config(Config(), requested) == requested


def test_every_other_difference_is_listed():
    requested = Config().replace(
        **{"model.hidden_size": 64, "train.seed": 5, "data.batch_size": 8, "train.steps": 9}
    )
    with pytest.raises(InputError) as refusal:
        resumed_config(Config(), requested)
    message = str(refusal.value)
    assert "model.hidden_size: the run has 256, asked for 64" in message
    assert "train.seed: the run has 0, asked for 5" in message
    assert "data.batch_size: the run has 32, asked for 8" in message
    assert "train.steps" not in message
    assert "`fresh=True`" in message
    assert "`workdir`" in message


def test_one_difference_is_enough():
    with pytest.raises(InputError, match=r"train\.seed: the run has 0, asked for 5"):
        resumed_config(Config(), Config().replace(**{"train.seed": 5}))


@pytest.mark.parametrize("field", ["optimizer.schedule_steps", "optimizer.epoch_steps"])
def test_what_was_settled_at_birth_stays(field):
    stored = Config().replace(**{field: 100})
    assert resumed_config(stored, Config()) == stored
    assert resumed_config(stored, stored) == stored
    endless = {"optimizer.schedule": "exponential"}
    stored, asked = stored.replace(**endless), Config().replace(**endless, **{field: 200})
    with pytest.raises(InputError, match=field):
        resumed_config(stored, asked)
    with pytest.raises(InputError, match=field):
        resumed_config(Config().replace(**endless), stored)


def test_a_new_end_of_the_schedule_is_for_who_knows_the_step():
    stored = Config().replace(**{"optimizer.schedule_steps": 100})
    asked = Config().replace(**{"optimizer.schedule_steps": 200, "train.steps": 200})
    config = resumed_config(stored, asked)
    assert config.train.steps == 200 and config.optimizer.schedule_steps == 100
    earlier = {"optimizer.earlier_schedule_steps": [[50, 80]]}
    assert resumed_config(stored.replace(**earlier), asked.replace(**earlier))
    with pytest.raises(InputError, match="earlier_schedule_steps"):
        resumed_config(stored, asked.replace(**earlier))


def test_the_lock_refuses_a_second_holder_and_leaves_nothing(tmp_path):
    workdir = tmp_path / "runs/deep/x"
    with lock(workdir):
        assert not holds_run(workdir)
        refusal = pytest.raises(InputError, match=f"in use by process {os.getpid()}")
        with refusal, lock(workdir):
            pass
        with lock(tmp_path / "runs/deep/y"):
            pass
    assert os.listdir(tmp_path) == []


def test_the_lock_leaves_a_run_and_what_was_there(tmp_path):
    (tmp_path / "there").mkdir()
    with lock(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()
    with pytest.raises(RuntimeError), lock(tmp_path / "run"):
        write_config(tmp_path / "run", Config())
        raise RuntimeError
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_a_killed_holder_s_lock_is_free(tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from charjax.storage.lock import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        refusal = pytest.raises(InputError, match=f"in use by process {process.pid}")
        with refusal, lock(tmp_path / "x"):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with lock(tmp_path / "x"):
        pass


def test_the_lock_needs_a_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(InputError, match="cannot be written"), lock(path):
            pass
    assert (tmp_path / "file").read_text() == "x"


def test_what_is_no_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path, said in (
        ("file", "file is not a directory"),
        ("file/run", "file is not a directory"),
        ("link", "link is a link to nothing"),
    ):
        with pytest.raises(InputError, match=said), lock(tmp_path / path):
            pass


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/5"])
def test_no_run_among_the_checkpoints_of_another(tmp_path, inside):
    write_config(tmp_path, Config())
    with pytest.raises(InputError, match="in the directory of another run"):
        check_apart(tmp_path / inside, Config())
    check_apart(tmp_path / "next", Config())


def test_without_file_locks_there_is_no_protection(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with lock(tmp_path / "x"), lock(tmp_path / "x"):
        assert os.listdir(tmp_path / "x") == []


def test_the_newest_run_is_the_one_written_to_last(tmp_path):
    with pytest.raises(InputError, match="`workdir`"):
        newest_run(tmp_path / "runs")
    for seconds, name in ((200, "a"), (100, "b")):
        (tmp_path / name / "checkpoints/5").mkdir(parents=True)
        os.utime(tmp_path / name / "checkpoints/5", (seconds, seconds))
    write_config(tmp_path / "without_checkpoint", Config())
    (tmp_path / "file").touch()
    assert newest_run(tmp_path) == tmp_path / "a"
    metrics = tmp_path / "b" / run_directory.METRICS
    metrics.touch()
    assert newest_run(tmp_path) == Path(tmp_path / "b")


def test_the_config_comes_last_in_a_new_run(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            create(tmp_path / "run", Config(), b"text" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not holds_run(tmp_path / "run")
    assert os.listdir(tmp_path / "run") == []
