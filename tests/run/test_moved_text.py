"""A run whose folder or text was moved, or copied to another machine."""

import os
import shutil
from pathlib import Path

import pytest

import charjax
from charjax import Config, DataConfig, InputError, ModelConfig, TrainConfig, inspect_run
from charjax.commands.cli import main
from charjax.storage.run_directory import read_config

ONE = "the quick brown fox jumps over the lazy dog. " * 20
TWO = "pack my box with five dozen liquor jugs. " * 20


def config(*paths, steps=2) -> Config:
    return Config(
        data=DataConfig(source=paths, batch_size=8, sequence_length=16),
        model=ModelConfig(num_layers=1, hidden_size=8),
        train=TrainConfig(steps=steps, eval_every=None, sample_every=None, log_every=1),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with texts and a run of two steps of each way to name them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts/more").mkdir(parents=True)
    (folder / "texts/more/a.txt").write_text(ONE)
    (folder / "texts/z.txt").write_text(TWO)
    for name, paths in (
        ("file", [folder / "texts/z.txt"]),
        ("several", [folder / "texts/z.txt", folder / "texts/more/a.txt"]),
        ("folder", [folder / "texts"]),
    ):
        charjax.fit(config(*map(str, paths)), folder / "runs" / name, quiet=True)
    return folder


@pytest.fixture
def moved(made, tmp_path, monkeypatch):
    """All of it somewhere else; where it was there is nothing."""
    folder = shutil.copytree(made, tmp_path / "else/where")
    hidden = made.with_name("hidden")
    made.rename(hidden)
    monkeypatch.chdir(folder)
    yield folder
    hidden.rename(made)


def train(*options):
    return main(["train", *map(str, options)])


def starts_over(workdir):
    assert train("--workdir", workdir, "--fresh", "--train.steps", 1) == 0
    assert inspect_run(workdir)["step"] == 1
    return read_config(Path(workdir)).data.sources


def goes_on(workdir, *options, steps=3):
    assert train("--workdir", workdir, "--train.steps", steps, *options) == 0
    assert inspect_run(workdir)["step"] == steps
    return read_config(Path(workdir)).data.sources


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["file", "several", "folder"])
def test_a_run_that_moved_with_its_text_goes_on(made, moved, name, capsys):
    before = charjax.evaluate_run(f"runs/{name}", "train", quiet=True)
    assert before["characters"] > 500
    found = goes_on(f"runs/{name}")
    there = read_config(moved.parent / "where/runs" / name).data.sources
    assert found == there and all(path.startswith(str(moved)) for path in found)
    assert f"data.source: the run's text is now {found[0]}" in capsys.readouterr().err
    # What is written now knows the way from here.
    shutil.move(moved, moved.with_name("again"))
    os.chdir(moved.with_name("again"))
    assert all("again" in path for path in goes_on(f"runs/{name}", steps=4))


def test_a_run_copied_alone_is_told_where_its_text_is(made, moved, tmp_path, capsys):
    run = shutil.copytree(moved / "runs/several", tmp_path / "alone")
    shutil.rmtree(moved / "runs")
    texts = shutil.move(moved / "texts", tmp_path / "books")
    first, second = f"{texts}/z.txt", f"{texts}/more/a.txt"
    before, text = contents(run), charjax.load(run).text
    commands = (
        ["train", "--workdir", str(run), "--train.steps", "3"],
        ["evaluate", "--workdir", str(run)],
    )
    for command in commands:
        assert main(command) == 2
        said = capsys.readouterr().err
        length = f"{text.length:,}"
        for words in (
            *(f"{made}/texts/z.txt", f"{length} characters", text.fingerprint[:12]),
            *("no such file", "--data.source PATH", "in the order"),
        ):
            assert words in said
        # The same files in another order are another text.
        assert main([*command, "--data.source", second, first]) == 2
        said = capsys.readouterr().err
        assert "the text is not the one" in said and f"({length} characters)" in said
        assert main([*command, "--data.source", str(tmp_path / "none.txt")]) == 2
    assert contents(run) == before
    for command in commands[::-1]:
        assert main([*command, "--data.source", first, second]) == 0
    assert read_config(run).data.sources == (first, second)
    # From now on nobody need be told, whichever checkpoint is meant.
    for step in charjax.inspect_run(run)["steps"]:
        assert charjax.evaluate_run(run, "train", step=step, quiet=True)
    score = charjax.evaluate_run(run, "train", source=[first, Path(second)], quiet=True)
    assert score == charjax.evaluate_run(run, "train", quiet=True)
    with pytest.raises(InputError, match="`source` and `text` are both given"):
        charjax.evaluate_run(run, source=first, text=first)
    with pytest.raises(InputError, match="with `source=PATH`, or score a text"):
        charjax.evaluate_run(run, source=second)


def test_the_library_takes_another_path_or_the_text_itself(moved):
    place = Path("runs/file")
    text = Path("texts/z.txt").rename("elsewhere.txt")
    charjax.fit(config("elsewhere.txt", steps=3), place, quiet=True)
    assert read_config(place).data.sources == (str(moved / text),)
    charjax.fit(config("elsewhere.txt", steps=4), place, text=TWO, quiet=True)
    assert read_config(place).data.sources == (str(moved / text),)
    before = contents(place)
    with pytest.raises(InputError, match=r"^`text`: the text is not the one"):
        charjax.fit(config("elsewhere.txt", steps=5), place, text=ONE, quiet=True)
    for name, words in (("-", "standard input"), ("http://a/b", "an address")):
        with pytest.raises(InputError, match=words):
            charjax.fit(config(name, steps=5), place, quiet=True)
    with pytest.raises(InputError, match="not the one"):
        charjax.fit(config("texts/more/a.txt", steps=5), place, quiet=True)
    assert contents(place) == before


def test_another_text_where_the_run_s_was_is_no_obstacle(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    source = made / "texts/z.txt"
    source.write_text(ONE)
    try:
        found = goes_on(tmp_path / "copy/runs/file")
    finally:
        source.write_text(TWO)
    assert found == (str(tmp_path / "copy/texts/z.txt"),)


def test_one_text_stays_and_the_other_moves_with_the_run(made, moved, tmp_path):
    (made / "texts/more").mkdir(parents=True)
    shutil.move(moved / "texts/more/a.txt", made / "texts/more/a.txt")
    try:
        found = goes_on("runs/several")
    finally:
        shutil.rmtree(made)
    assert found == (str(moved / "texts/z.txt"), str(made / "texts/more/a.txt"))


def test_a_run_with_its_own_copy_goes_on_anywhere(tmp_path):
    run = tmp_path / "run"
    charjax.fit(config("unused"), run, text=ONE, quiet=True)
    run = run.rename(tmp_path / "moved")
    assert goes_on(run) == ("memory",)
    (tmp_path / "text.txt").write_text(ONE)
    (run / "corpus.txt").unlink()
    assert train("--workdir", run, "--train.steps", 4) == 2
    given = ("--data.source", tmp_path / "text.txt")
    assert goes_on(run, *given, steps=4) == (str(tmp_path / "text.txt"),)


def test_without_a_checkpoint_another_path_is_refused(made, tmp_path):
    run = shutil.copytree(made / "runs/file", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"data\.source.*no checkpoint that says"):
        charjax.fit(config(str(made / "texts")), run, quiet=True)
    charjax.fit(config(str(made / "texts/z.txt")), run, quiet=True)
    assert inspect_run(run)["step"] == 2


def test_a_record_without_the_way_from_the_run_is_read(made, moved, monkeypatch):
    from charjax.storage import record

    parsed = record.parsed

    def old(values, step):
        values["corpus"].pop("sources")
        return parsed(values, step)

    monkeypatch.setattr(record, "parsed", old)
    assert train("--workdir", "runs/file", "--train.steps", 3) == 2
    given = ("--data.source", "texts/z.txt")
    assert goes_on("runs/file", *given) == (str(moved / "texts/z.txt"),)


def test_a_run_that_was_moved_with_its_text_starts_over(moved):
    assert starts_over("runs/file") == (str(moved / "texts/z.txt"),)
