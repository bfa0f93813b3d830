"""A model saved by itself, and one made of parameters from elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import charjax
from charjax import Config, InputError, LanguageModel, Vocabulary
from charjax.commands.cli import main
from charjax.storage import run_directory, saved_model
from charjax.text.description import TextDescription

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 20
VOCABULARY = Vocabulary.from_text(TEXT)
CONFIG = Config().replace(
    **{"model.hidden_size": 8, "model.num_layers": 1, "data.sequence_length": 16}
)


def made(seed=0, text=TEXT) -> LanguageModel:
    """A model of random parameters that knows its text."""
    vocabulary = Vocabulary.from_text(text)
    params = charjax.init(CONFIG, vocabulary.size, jax.random.key(seed))
    counts = np.bincount(vocabulary.encode(text), minlength=vocabulary.size)
    return LanguageModel(CONFIG, params, TextDescription(vocabulary, counts, "c0ffee"), 7)


def same(a: LanguageModel, b: LanguageModel) -> bool:
    return (a.config, a.vocabulary, a.step, a.generate(length=20)) == (
        *(b.config, b.vocabulary, b.step, b.generate(length=20)),
    ) and all(
        np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "deep" / "model"
    made().save(path)
    return path


def test_a_saved_model_is_loaded_as_it_was(saved):
    assert same(charjax.load(saved), made())
    assert same(charjax.load(str(saved), "latest"), charjax.load(saved, 7))
    assert {path.name for path in saved.iterdir() if path.is_dir()} == {"params", "record"}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    with pytest.raises(InputError, match=r"`step` is 8.*step 7"):
        charjax.load(saved, 8)


def test_a_result_of_fit_is_saved_and_a_saved_model_saved_again(tmp_path):
    config = CONFIG.replace(**{"train.steps": 1, "train.sample_every": None})
    result = charjax.fit(config, text=TEXT, quiet=True)
    result.model.save(tmp_path / "first")
    charjax.load(tmp_path / "first").save(tmp_path / "second")
    assert same(charjax.load(tmp_path / "second"), result.model)
    start = config.replace(**{"train.init_from": str(tmp_path / "second")})
    run = tmp_path / "run"
    more = charjax.fit(start, run, text=TEXT, quiet=True)
    assert int(more.state.step) == 1
    for there in (run, run / "checkpoints" / "1"):
        with pytest.raises(InputError, match="holds something else"):
            result.model.save(there)
    assert same(charjax.load(run), more.model)


def test_the_commands_read_a_saved_model_or_say_what_is_missing(saved, capsys, tmp_path):
    (tmp_path / "other.txt").write_text(TEXT[:100])
    before = sorted(saved.iterdir())
    where = ["--workdir", str(saved)]
    assert main(["sample", *where, "--length", "9"]) == 0
    assert capsys.readouterr().out == made().generate(length=9)
    assert main(["evaluate", *where, "--text", str(tmp_path / "other.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 7
    assert main(["inspect", *where, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["step"] == 7 and facts["steps"] == [7] and facts["best"] is None
    assert main(["inspect", *where, "--sharding"]) == 0
    assert "opt_state" not in capsys.readouterr().out
    for command, words in (
        (["evaluate", *where], "--text"),
        (["train", *where], "train.init_from"),
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said and "saved model" in said
    assert sorted(saved.iterdir()) == before


def test_an_earlier_model_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    for seed in (1, 2):
        made(seed).save(path)
        assert same(charjax.load(path), made(seed))
    link = tmp_path / "link"
    link.symlink_to("model")
    made(3).save(link)
    assert link.is_symlink() and same(charjax.load(path), made(3))
    assert {each.name for each in tmp_path.iterdir()} == {"model", "link"}
    (path / "params" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"something else \(params/notes\.txt\)"):
        made().save(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"something else \(notes\.txt\)"):
        made().save(tmp_path / "folder")
    with pytest.raises(InputError, match="there is a file"):
        made().save(tmp_path / "folder" / "notes.txt")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"


class Killed(BaseException):
    pass


def test_killed_at_any_rename_or_deletion_the_old_model_is_there_or_the_new(
    tmp_path, monkeypatch
):
    outcomes = []
    for moment in range(100):
        path = tmp_path / str(moment) / "model"
        made(1).save(path)
        left = [moment]

        def counting(original, left=left):
            def called(*arguments, **keywords):
                if not left[0]:
                    raise Killed
                left[0] -= 1
                return original(*arguments, **keywords)

            return called

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", counting(Path.rename))
            patch.setattr(shutil, "rmtree", counting(shutil.rmtree))
            patch.setattr(run_directory, "make_directory", counting(lambda path: None))
            patch.setattr(saved_model, "sync", counting(saved_model.sync))
            try:
                made(2).save(path)
            except Killed:
                outcomes.append(
                    [same(charjax.load(path), made(seed)) for seed in (1, 2)].index(True)
                )
            else:
                break
        made(3).save(path)
        assert same(charjax.load(path), made(3))
        assert [each.name for each in path.parent.iterdir()] == ["model"]
    assert outcomes == sorted(outcomes) and {*outcomes} == {0, 1} and len(outcomes) > 5


def test_what_cannot_be_written_leaves_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "model"
    made(1).save(path)

    def full(directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("charjax.storage.manifest.seal", full)
    with pytest.raises(OSError, match=r"no model was saved at .*model: .*No space left"):
        made(2).save(path)
    assert same(charjax.load(path), made(1))
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("file", ["manifest.json", "record/metadata", "params/_METADATA"])
def test_a_damaged_model_is_told(saved, tmp_path, file):
    path = shutil.copytree(saved, tmp_path / "model")
    (path / file).unlink()
    for wanted in ("best", 7):
        with pytest.raises(InputError, match=r"model in .* is damaged \(its? .*\)"):
            charjax.load(path, wanted)


@pytest.mark.parametrize("wrong", [5, "", b"model", None])
def test_a_path_is_a_string_or_a_path(wrong):
    for action in (made().save, charjax.load):
        with pytest.raises(InputError, match="expected a path"):
            action(wrong)


def test_a_model_of_parameters_from_elsewhere(tmp_path):
    own = made()
    params = jax.tree.map(np.float64, own.params)
    model = LanguageModel.from_params(CONFIG, params, VOCABULARY)
    assert model.generate("It ", 20) == own.generate("It ", 20)
    assert model.params["head"]["bias"].dtype == np.float32
    model.save(tmp_path / "model")
    again = charjax.load(tmp_path / "model")
    for each in (model, again):
        assert each.generate("It ", 5) == own.generate("It ", 5)
        np.testing.assert_array_equal(each.score("It was"), own.score("It was"))
        for write in (each.generate, each.stream):
            with pytest.raises(InputError, match=r"`prime` is empty.*give some text"):
                write(length=5)


def test_parameters_that_do_not_fit_are_listed():
    params = jax.tree.map(np.asarray, made().params)
    head = {**params["head"], "bias": np.zeros(3), "gain": np.ones(2)}
    params = {**params, "head": head, "first": {**params["first"]}}
    params["first"]["kernel_h"] = params["first"]["kernel_h"].astype(int)
    with pytest.raises(InputError) as refused:
        LanguageModel.from_params(CONFIG, params, VOCABULARY)
    assert [line.strip() for line in str(refused.value).splitlines()[1:]] == [
        "first/kernel_h: given int64[8, 4, 8], expected float[8, 4, 8]",
        f"head/bias: given float[3], expected float[{VOCABULARY.size}]",
        "head/gain: given float[2], expected nothing",
    ]
    for wrong in ({}, [1.0], {"head": None}, "params", None):
        with pytest.raises(InputError, match="`params` are not those"):
            LanguageModel.from_params(CONFIG, wrong, VOCABULARY)  # pyright: ignore
    with pytest.raises(InputError, match=r"data\.vocabulary is 'characters'.*bytes"):
        LanguageModel.from_params(CONFIG, params, Vocabulary.of_bytes())


def test_a_stream_left_half_read_ends_in_silence(saved):
    program = f"""
import charjax
pieces = charjax.load({str(saved)!r}).stream("It ", 1000)
print(next(pieces), len(next(pieces)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("It  128\n", "")
