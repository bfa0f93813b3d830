"""Starting over in a directory that holds a run: with what, and when the old one goes."""

import json
import shutil
import threading

import pytest

import charjax
from charjax import Config, DataConfig, InputError, ModelConfig, TrainConfig, inspect_run
from charjax.commands.cli import main
from charjax.run import run as running
from charjax.storage.run_directory import read_config
from charjax.storage.saver import Saver

TEXT = "the quick brown fox jumps over the lazy dog. " * 80
SMALL = Config(
    data=DataConfig(batch_size=8, sequence_length=16),
    model=ModelConfig(num_layers=1, hidden_size=16),
    train=TrainConfig(steps=4, eval_every=2, checkpoint_every=2, log_every=1),
)
OTHER = SMALL.replace(**{"train.seed": 5})


def train(*options):
    return main(["train", "--workdir", "run", *map(str, options)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a text in a file, and one on a text in memory."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "book.txt").write_text(TEXT)
    source = {"data.source": str(folder / "book.txt")}
    charjax.fit(SMALL.replace(**source), folder / "file", quiet=True)
    charjax.fit(SMALL, folder / "memory", text=TEXT, quiet=True)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "file", tmp_path / "run")
    return tmp_path / "run"


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_command_starts_over_with_the_run_s_own_config_and_text(run, trained, capfd):
    (run / "notes.txt").write_text("mine")
    assert train("--fresh", "--train.steps", 2, "--train.seed", 5) == 0
    told = [line for line in capfd.readouterr().err.splitlines() if "replaces" in line]
    assert len(told) == 1 and "step 4, best loss " in told[0]
    assert f"text {trained / 'book.txt'}, 3,600 characters" in told[0]
    fields = {"data.source": str(trained / "book.txt"), "train.steps": 2, "train.seed": 5}
    # The schedule ends where this run does.
    fields |= {"optimizer.schedule_steps": 2, "optimizer.epoch_steps": 26}
    assert read_config(run) == SMALL.replace(**fields)
    assert inspect_run(run)["steps"] == [2]
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2]
    assert (run / "samples.txt").read_text().startswith("--- step 2 ---")
    assert {path.name for path in run.iterdir()} == {
        *("config.json", "metrics.jsonl", "samples.txt", "curves.png", "checkpoints"),
        "notes.txt",
    }


def test_config_replaces_the_whole_config(run, tmp_path):
    (tmp_path / "other.json").write_text('{"model": {"hidden_size": 8}}')
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["--config", "other.json", "--data.source", "text.txt", "--train.steps", 1]
    assert train("--fresh", *options) == 0
    config = read_config(run)
    assert config.model == ModelConfig(hidden_size=8) and config.data.batch_size == 32


def test_a_text_in_memory_is_kept(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "memory", tmp_path / "run")
    assert train("--fresh", "--train.steps", 2) == 0
    assert (tmp_path / "run/corpus.txt").read_text() == TEXT
    assert charjax.load("run").config.data.sources == ("memory",)
    charjax.fit(read_config(tmp_path / "run"), tmp_path / "run", fresh=True, quiet=True)
    # A text of a file leaves no copy behind.
    assert train("--fresh", "--data.source", trained / "book.txt") == 0
    assert not (tmp_path / "run/corpus.txt").exists()
    shutil.copytree(trained / "memory", tmp_path / "lost")
    (tmp_path / "lost/corpus.txt").unlink()
    with pytest.raises(InputError, match=r"corpus\.txt.*is not there: restore"):
        charjax.fit(read_config(tmp_path / "lost"), tmp_path / "lost", fresh=True)


def test_a_damaged_config_is_taken_from_the_newest_sound_checkpoint(run, capfd):
    own = read_config(run)
    (run / "config.json").write_text("{")
    assert train("--fresh", "--train.steps", 2) == 0
    fields = {"train.steps": 2, "optimizer.schedule_steps": 2}
    assert read_config(run) == own.replace(**fields)
    (run / "config.json").write_text("{")
    for path in (run / "checkpoints").rglob("manifest.json"):
        path.unlink()
    before = tree(run)
    capfd.readouterr()
    assert train("--fresh", "--train.steps", 2) == 2
    said = capfd.readouterr().err
    assert "config.json" in said and "give --config or data.source with --fresh" in said
    assert tree(run) == before
    options = ["--data.source", own.data.sources[0], "--model.hidden_size", 8]
    options += ["--train.steps", 1, "--data.sequence_length", 16]
    assert train("--fresh", *options) == 0
    assert read_config(run).model == ModelConfig(hidden_size=8)


def test_fit_takes_its_config_as_it_is(run):
    fresh = SMALL.replace(**{"train.steps": 1})
    result = charjax.fit(fresh, run, text=TEXT, fresh=True, quiet=True)
    assert result.config.optimizer.schedule_steps == 1
    assert result.config.data.sources == ("memory",)


def test_the_old_run_stays_until_the_new_one_has_a_checkpoint(run, monkeypatch):
    before, seen = inspect_run(run), []

    def killed():
        seen.append((inspect_run(run), charjax.evaluate_run(run, quiet=True)["step"]))
        raise KeyboardInterrupt

    files = tree(run)
    with pytest.raises(KeyboardInterrupt):
        charjax.fit(SMALL, run, text=TEXT, fresh=True, quiet=True, stop=killed)
    assert seen == [(before, before["best"]["step"])] and tree(run) == files
    # What a kill leaves there is no run, neither to go on with nor to start over.
    for fresh in (False, True):
        shutil.copytree(run, run / ".new")
        shutil.rmtree(run / ".new/checkpoints")
        config = OTHER if fresh else read_config(run)
        text = TEXT if fresh else None
        charjax.fit(config, run, text=text, fresh=fresh, quiet=True)
        assert not (run / ".new").exists()
        assert (inspect_run(run)["digest"] == before["digest"]) != fresh


def test_a_first_save_that_fails_leaves_the_old_run_until_one_succeeds(run, monkeypatch):
    before, seen, install = inspect_run(run)["digest"], [], Saver._finish

    def failing(saver, step):
        if step == 2:
            raise OSError("no room")
        install(saver, step)

    def look():
        seen.append(inspect_run(run)["digest"] == before)
        return False

    monkeypatch.setattr(Saver, "_finish", failing)
    config = OTHER.replace(**{"train.steps": 6})
    charjax.fit(config, run, text=TEXT, fresh=True, quiet=True, stop=look)
    assert seen == [True, True, True, True, False, False]
    assert inspect_run(run)["step"] == 6


def test_where_the_new_run_has_only_begun_to_take_its_place_readers_find_it(run, capfd):
    whole = inspect_run(run)
    shutil.copytree(run, run / ".taking")
    (run / "config.json").unlink()
    shutil.rmtree(run / "checkpoints/4")
    for moved in ((), ("config.json", "metrics.jsonl")):
        for name in moved:
            (run / ".taking" / name).rename(run / name)
        if moved:
            shutil.rmtree(run / "checkpoints")
        assert inspect_run(run) == whole
        assert main(["sample", "--workdir", "run", "--length", "5"]) == 0
        assert charjax.evaluate_run("run", quiet=True)["step"] == whole["best"]["step"]
    assert train() == 0
    assert inspect_run(run) == whole and not (run / ".taking").exists()


def test_a_run_that_is_read_while_another_takes_its_place(run):
    """Each reading is of the one or of the other."""
    old, wrong, ended = inspect_run(run)["digest"], [], threading.Event()
    found = {old}

    def read():
        while not ended.is_set():
            try:
                found.add(inspect_run(run)["digest"])
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        charjax.fit(OTHER, run, text=TEXT, fresh=True, quiet=True)
    finally:
        ended.set()
        reader.join()
    assert not wrong and len(found) > 1


# The directory, renamed or deleted while it trains.


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_a_directory_that_is_gone_ends_the_run(run, tmp_path, how, capfd, monkeypatch):
    asked = []

    def move(*_):
        asked.append(1)
        if len(asked) != 4:
            return False
        if how == "deleted":
            shutil.rmtree(run)
        else:
            run.rename(tmp_path / "moved")
            # Another one has its name by now.
            run.mkdir()
        return False

    fields = {"data.source": read_config(run).data.source, "train.steps": 6}
    whole = charjax.fit(SMALL.replace(**fields), tmp_path / "whole", quiet=True)
    monkeypatch.setattr("charjax.commands.signals.Signals.stop", move)
    capfd.readouterr()
    assert train("--fresh", "--train.steps", 6) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {run} is no longer the directory") and "step 2" in last
    assert list(run.iterdir()) == [] if how == "renamed" else not run.exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    if how != "deleted":
        (tmp_path / "moved").rename(tmp_path / "again")
        assert main(["train", "--workdir", "again"]) == 0
        assert inspect_run("again")["digest"] == inspect_run(whole.workdir)["digest"]
        assert not (tmp_path / "again/.charjax-lock").exists()


def test_a_directory_renamed_while_a_step_is_saved_is_not_made_again(
    run, tmp_path, monkeypatch
):
    begin = running.Saver.save

    def save(saver, step, items, record):
        begin(saver, step, items, record)
        if step == 6:
            run.rename(tmp_path / "moved")

    monkeypatch.setattr(running.Saver, "save", save)
    config = read_config(run).replace(**{"train.steps": 8})
    with pytest.raises(charjax.errors.DirectoryGone, match=r"renamed or deleted.*step 4"):
        charjax.fit(config, run, quiet=True)
    assert not run.exists()
    monkeypatch.undo()
    charjax.fit(config, tmp_path / "moved", quiet=True)
    assert inspect_run(tmp_path / "moved")["step"] == 8


# Checkpoints that are gone.


def test_checkpoints_that_are_gone_are_told(run, capfd):
    before = [(run / name).read_bytes() for name in ("metrics.jsonl", "samples.txt")]
    shutil.rmtree(run / "checkpoints")
    for command in (["sample"], ["evaluate"], ["inspect"]):
        assert main([*command, "--workdir", "run"]) == 2
        said = capfd.readouterr().err
        assert len(said.splitlines()) == 1 and "no checkpoint at run/checkpoints" in said
    assert train() == 0
    told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1
    assert "metrics.jsonl goes up to step 4" in told[0] and "from a copy" in told[0]
    assert inspect_run(run)["step"] == 4
    kept = ("metrics-until-4.jsonl", "samples-until-4.txt")
    assert kept[0] in told[0]
    assert [(run / name).read_bytes() for name in kept] == before
    assert train() == 0 and "warning" not in capfd.readouterr().err


# Files and folders of somebody else.


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt", "curves.png"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_is_not_begun_over_a_file_of_somebody_else(tmp_path, name, fresh):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} is there already"):
        charjax.fit(SMALL, tmp_path, text=TEXT, fresh=fresh, quiet=True)
    assert tree(tmp_path) == {tmp_path / name: b"mine"}


def test_a_run_is_begun_over_its_own_text_alone(tmp_path):
    """Which a kill before `config.json` leaves."""
    (tmp_path / "corpus.txt").write_text(TEXT + "!")
    with pytest.raises(InputError, match=r"corpus\.txt is there already"):
        charjax.fit(SMALL, tmp_path, text=TEXT, quiet=True)
    (tmp_path / "corpus.txt").write_text(TEXT)
    charjax.fit(SMALL, tmp_path, text=TEXT, quiet=True)


@pytest.mark.parametrize("name", [".new", ".taking"])
def test_a_folder_of_somebody_else_is_never_thrown_away(run, tmp_path, name, capfd):
    before = tree(run)
    (run / name).symlink_to(tmp_path / "nowhere")
    assert train("--fresh") == 2
    assert f"{name} is not a run's" in capfd.readouterr().err
    (run / name).unlink()
    (run / name).mkdir()
    (run / name / "thesis.txt").write_text("mine")
    for options in ((), ("--fresh",)):
        assert train(*options) == 2
        assert f"{name}/thesis.txt is not a run's" in capfd.readouterr().err
    assert tree(run) == {**before, run / name / "thesis.txt": b"mine"}


def test_checkpoints_on_another_disk_are_not_moved_to_this_one(run, tmp_path, capfd):
    (run / "checkpoints").rename(tmp_path / "disk")
    (run / "checkpoints").symlink_to(tmp_path / "disk")
    assert train("--fresh") == 2
    assert "checkpoints is a link, and --fresh would" in capfd.readouterr().err
    assert (run / "checkpoints").is_symlink() and train() == 0
