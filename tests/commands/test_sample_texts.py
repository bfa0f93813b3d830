"""`charjax sample`: many prompts, JSON, stop strings and the rest, as typed."""

import json
import re

import pytest

import charjax
from charjax import Vocabulary
from charjax.commands.cli import main
from charjax.reporting.samples import laid_out
from tests.untrained import untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from charjax import Config

    workdir = tmp_path_factory.mktemp("sample") / "run"
    config = Config().replace(
        **{
            "model.hidden_size": 8,
            "model.num_layers": 1,
            "data.batch_size": 8,
            "data.sequence_length": 8,
            "train.steps": 2,
        }
    )
    text = "one two\tthree.\nfour five 6 seven!\n" * 40
    charjax.fit(config, workdir=workdir, text=text)
    return str(workdir)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A saved model of documents."""
    path = tmp_path_factory.mktemp("documents") / "names"
    untrained(Vocabulary("characters", "abcd", documents=True)).save(path)
    return str(path)


def test_documents_are_one_a_line(names, capsysbinary):
    printed = sampled(capsysbinary, names, "--num-samples", "50")
    expected = charjax.load(names).generate(num_samples=50)
    assert printed == "".join(name + "\n" for name in expected)
    one = sampled(capsysbinary, names, "--prime", "ab")
    assert one == charjax.load(names).generate("ab") + "\n"
    lines = sampled(capsysbinary, names, "--num-samples", "50", "--json").splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["text"] for each in found] == expected
    assert {each["ended"] for each in found} == {"end"}


def test_a_rule_stands_between_documents_only_where_one_has_line_ends():
    rule = f"\n\n{'-' * 40}\n"
    shown = "".join(laid_out(["a", "b", "c\nd", "", "e"], documents=True))
    assert shown == f"a\nb{rule}c\nd{rule}\ne"
    assert "".join(laid_out(["a", "b"])) == f"a{rule}b"


def test_inspecting_shows_that_a_vocabulary_is_of_documents(names, capsys):
    assert main(["inspect", "--workdir", names]) == 0
    shown = "vocabulary: 6 symbols: 4 characters, start and end of documents\n"
    assert shown in capsys.readouterr().out


def sampled(capsysbinary, run, *arguments):
    assert main(["sample", "--workdir", run, *arguments]) == 0
    return capsysbinary.readouterr().out.decode()


def test_prompts_from_a_file_are_written_on_from(run, tmp_path, capsysbinary):
    path = tmp_path / "prompts.txt"
    path.write_text("one\nfour f\n")
    lines = sampled(capsysbinary, run, "--prompts", str(path), "--length", "9", "--json")
    found = [json.loads(line) for line in lines.splitlines()]
    model = charjax.load(run)
    expected = model.generate(["one", "four f"], 9, log_probs=True)
    assert [each["text"] for each in found] == [each.text for each in expected]
    assert [each["prompt"] for each in found] == ["one", "four f"]
    assert {each["ended"] for each in found} == {"length"}
    assert found[0]["log_prob"] == pytest.approx(expected[0].log_prob)
    plain = sampled(capsysbinary, run, "--prompts", str(path), "--length", "9")
    rule = f"\n\n{'-' * 40}\n"
    assert plain == rule.join(each.text for each in expected)


def test_only_a_line_end_ends_a_prompt(run, tmp_path, capsysbinary):
    path = tmp_path / "prompts.txt"
    path.write_bytes("one\u2028two\x0c\r\n\nfour".encode())
    skipping = ("--on-unknown", "skip", "--length", "0", "--json")
    lines = sampled(capsysbinary, run, "--prompts", str(path), *skipping)
    found = [json.loads(line)["prompt"] for line in lines.splitlines()]
    assert found == ["onetwo", "", "four"]


def test_text_in_options_knows_escapes(run, capsysbinary):
    whole = sampled(capsysbinary, run, "--length", "400", "--ban", "!", "digits")
    assert "!" not in whole and "6" not in whole
    ended = sampled(capsysbinary, run, "--length", "400", "--stop", "\\n", "\\t")
    assert ended.index("\n" if "\n" in ended else "\t") == len(ended) - 1


def test_novelty_is_told_beside_the_text(run, capsysbinary):
    arguments = ("--prime", "one tw", "--length", "90")
    text = sampled(capsysbinary, run, *arguments)
    assert main(["sample", "--workdir", run, *arguments, "--novelty"]) == 0
    said = capsysbinary.readouterr()
    assert said.out.decode() == text
    # Neither the prime's word nor the one that the length cuts is one that it wrote.
    new = re.sub(r"^\w+(?=\W)|(?<=\W)\w+\Z", "", text.removeprefix("one tw"))
    corpus = charjax.text_of_run(run, quiet=True)
    assert said.err.decode().splitlines() == charjax.novelty(new, corpus).lines()
    several = ("--num-samples", "3", "--stop", "e", "--json")
    *lines, last = sampled(capsysbinary, run, *several, "--novelty").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    found = charjax.novelty(texts, corpus).to_dict()
    assert len(texts) == 3 and json.loads(last) == {"novelty": found}


def test_novelty_needs_the_text_before_it_writes(run, tmp_path, capsys):
    saved, moved = str(tmp_path / "saved"), tmp_path / "moved.txt"
    charjax.load(run).save(saved)
    arguments = ["sample", "--workdir", saved, "--length", "50", "--novelty"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and "saved model" in said.err
    assert "give --data.source PATH." in said.err
    assert main([*arguments[:-1], "--data.source", "x"]) == 2
    assert "without --novelty" in capsys.readouterr().err
    moved.write_text("one two\tthree.\nfour five 6 seven!\n" * 40, "utf-8")
    assert main([*arguments, "--data.source", str(moved)]) == 0
    assert "new words: " in capsys.readouterr().err
    moved.write_text("another")
    assert main([*arguments, "--data.source", str(moved)]) == 2
    assert "is not the one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--prompts", "{prompts}"],
            "--prompts, line 2: 1 character is not in the vocabulary: 'Ω' (U+03A9); "
            "--prompts, line 4: 2 characters are not in the vocabulary: '?' (U+003F), 'β' "
            "(U+03B2): take them out, or leave them out with --on-unknown skip.\n",
        ),
        (["--prompts", "{prompts}", "--prime", "x"], "--prompts and --prime are both"),
        (["--prompts", "{prompts}", "--num-samples", "2"], "--num-samples is 2"),
        (["--prompts", "missing.txt"], "--prompts is missing.txt: No such file"),
        (["--stop", ""], "--stop is ''"),
        (
            ["--stop", "Ω"],
            "--stop is 'Ω': the model can never write it: 1 character is not in the "
            "vocabulary: 'Ω' (U+03A9).\n",
        ),
        (["--allow", "Ω"], "--allow is 'Ω': no symbol"),
        (["--top-p", "2"], "--top-p is 2.0"),
        (["--best-of", "0"], "--best-of is 0"),
    ],
)
def test_what_means_nothing_is_refused(run, tmp_path, capsys, arguments, message):
    (tmp_path / "prompts.txt").write_text("one\nΩΩ\ntwo\nβ?\n", "utf-8")
    arguments = [each.format(prompts=tmp_path / "prompts.txt") for each in arguments]
    assert main(["sample", "--workdir", run, *arguments]) == 2
    out, err = capsys.readouterr()
    assert f"error: {message}" in err and out == ""
