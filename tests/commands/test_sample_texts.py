"""`charjax sample`: many prompts, JSON, stop strings and the rest, as typed."""

import json

import pytest

import charjax
from charjax.commands.cli import main


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "{prompts}"], "--prompts, line 2: "),
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
    (tmp_path / "prompts.txt").write_text("one\nΩmega\n", "utf-8")
    arguments = [each.format(prompts=tmp_path / "prompts.txt") for each in arguments]
    assert main(["sample", "--workdir", run, *arguments]) == 2
    assert f"error: {message}" in capsys.readouterr().err
