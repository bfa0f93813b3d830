"""What tells people how to write a command: help, completion, options of other programs."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import charjax
from charjax.commands import peers
from charjax.commands.cli import found, main
from charjax.commands.fields import options

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shown(capsys):
    """What a request for help prints."""

    def shown(*arguments, only=None):
        with pytest.raises(SystemExit) as ended:
            main([*arguments], only)
        assert not ended.value.code
        return capsys.readouterr().out

    return shown


def test_help_and_version_are_commands(shown, capsys):
    assert shown() == shown("help") == shown("--help")
    assert re.search(r"• help +Show", shown()) and re.search(r"• version +Print", shown())
    assert shown("help", "train") == shown("train", "--help") == shown("train", "-h")
    assert "those of --config anna" in shown("help", "train", "--config", "anna")
    for version in ("version", "--version", "-V"):
        assert main([version]) == 0
        assert capsys.readouterr().out == f"charjax {charjax.__version__}\n"
    # `charjax` alone starts nothing, but an empty word is a mistake.
    assert main([""]) == 2 and "no command ''" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(found()))
def test_options_are_listed_as_help_shows_them(monkeypatch, shown, name):
    monkeypatch.setenv("COLUMNS", "120")
    boxes = re.findall(r"^[│ ] ? ?(--[a-z][^ ,]+(?:, --[^ ]+)*)", shown("help", name), re.M)
    said = {option for box in boxes for option in box.split(", ")}
    assert said == {option.name for option in options(found()[name].Options)}


def test_help_ends_with_two_examples_that_are_read(tmp_path, monkeypatch, shown):
    monkeypatch.chdir(tmp_path)
    for only in ("train", "sample"):
        examples = shown("--help", only=only).split("Examples:\n")[1].splitlines()
        assert len(examples) == 2
        assert all(line.startswith(f"    python {only}.py ") for line in examples)
    for name, command in found().items():
        examples = shown(name, "--help").split("Examples:\n")[1].splitlines()
        assert examples == [f"    {example}" for example in command.EXAMPLES]
        assert len(examples) == 2
        for example in command.EXAMPLES:
            called = re.sub(r'^eval "\$\((.*?)\)"', r"\1", example)
            words = shlex.split(called, comments=True)
            words = list(itertools.takewhile("|".__ne__, words))
            assert words[0] == "charjax" and words[1] in (name, f"--{name}")
            asked = []
            with monkeypatch.context() as changes:
                changes.setattr(command, "run", lambda *given: asked.append(given) or 0)  # noqa: B023
                assert main(words[1:]) == 0
            assert len(asked) == 1, example


COMPLETED = {
    "charjax ": " ".join(found()),
    "charjax tr": "train",
    "charjax help sa": "sample",
    "charjax completion ": "bash zsh fish",
    "charjax train --data.batch_": "--data.batch-size",
    "charjax train --model.cell ": "lstm gru rnn mingru minlstm",
    "charjax train --model.cell = g": "gru",
    "charjax train --model.cell =": "lstm gru rnn mingru minlstm",
    "charjax train --config an": "anna",
    "charjax train --fresh --dis": "--distributed",
    "charjax train --parallel.n": "--parallel.no-fsdp",
    "charjax evaluate --split train --on_unknown s": "skip",
    # Nothing of ours: bash completes files.
    "charjax evaluate --text --spl": "",
    "charjax train --data.source ": "",
    "charjax sample --prime-file te": "",
    "charjax train --data.source a.txt b": "",
}


def test_bash_completes_commands_options_choices_and_files(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + (
        "complete -p charjax\n"
        'each() { COMP_WORDS=($1); case "$1" in *" ") COMP_WORDS+=(""); esac\n'
        "COMPREPLY=(); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _charjax; "
        'printf "%s " "${COMPREPLY[@]}"; echo; }\n'
    )
    script += "".join(f"each '{typed}'\n" for typed in COMPLETED)
    done = subprocess.run(["bash", "--norc"], input=script, capture_output=True, text=True)
    assert done.stderr == ""
    registered, *completed = done.stdout.splitlines()
    assert "-o default" in registered and registered.endswith("-F _charjax charjax")
    words = map(str.strip, completed)
    assert dict(zip(COMPLETED, words, strict=True)) == COMPLETED


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_has_every_option(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name, command in found().items():
        for option in options(command.Options):
            word = f"-l {option.name[2:]} " if shell == "fish" else option.name
            assert word in script, (name, option)
            assert " ".join(option.choices) in script, (name, option)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_options_of_other_programs_are_answered_as_the_readme_says():
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.partition("## Coming from elsewhere\n\n")[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.splitlines()[2:]]
    own = {name: list(options(command.Options)) for name, command in found().items()}
    checked = 0
    for *theirs, ours in rows:
        wanted = re.findall(r"`(--[\w.-]+(?: 0\b(?!\.))?)", ours)
        command = "train" if "." in wanted[0] else "sample"
        for name in re.findall(r"`-?(\w+)(?: \w+)?`", " ".join(theirs)):
            for written in (f"-{name}", f"--{name}"):
                if written in [option.name for option in own[command]]:
                    continue
                (line,) = peers.remedies(command, [written, "3"], own[command])
                said = line.replace("-", "_")
                assert any(each.replace("-", "_") in said for each in wanted), line
                checked += 1
    assert checked > 90


def test_what_is_said_of_other_programs_names_options_that_there_are():
    for command, rows in peers.OTHERWISE.items():
        own = {
            option.name.replace("-", "_") for option in options(found()[command].Options)
        }
        for here, names in rows.items():
            for option in re.findall(r"--[\w.-]+", here):
                assert option.replace("-", "_") in own, (command, option)
            assert len(set(names.split())) == len(names.split())
            for name in names.split():
                assert f"__{name}" not in own, (command, name)


def test_a_file_whose_name_begins_with_a_dash_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-my text.txt").touch()
    assert main(["train", "--data.source", "-my text.txt"]) == 2
    err = capsys.readouterr().err
    assert "-my text.txt is a file here: write './-my text.txt'." in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --hidden_size 64", "--hidden_size is --model.hidden_size here."),
        ("train -num_layers 2", "-num_layers is --model.num_layers here."),
        ("train --rnn_size=9", "--rnn_size is --model.hidden_size here."),
        ("train -n_embd 9", "is --model.hidden_size or --model.embedding_size here."),
        ("train --fresh --lr 1 -seed 3", "--lr is --optimizer.learning_rate here.\n-seed"),
        ("sample -primetext a", "-primetext is --prime here."),
        ("sample --max_new_tokens 9", "--max_new_tokens is --length here."),
        ("sample -sample 0 -length 5", "-sample is --temperature 0 (for 0; else left out)"),
        ("train --epochs 3 --data x", "--epochs is --train.epochs here.\n--data is"),
        ("evaluate --gpuid 0", "--gpuid is JAX_PLATFORMS=cpu"),
        ("train anna", "anna has no option before it: write --config anna."),
        ("train README.md", "write --data.source README.md."),
        ("evaluate README.md", "write --text README.md."),
        ("inspect docs", "write --workdir docs."),
        ("inspect runs/absent", "write --workdir runs/absent."),
        ("sample cv/lm.t7 -length 5", "write --workdir cv/lm.t7.\n-length is --length"),
        ("sample Once upon a", "write --prime 'Once upon a'."),
    ],
)
def test_a_foreign_option_is_told_what_it_is_here(monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(ROOT)
    assert main(arguments.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: unrecognized options: ")
    # Nothing is guessed beside it.
    assert "imilar to" not in err and "you meant" not in err
    assert main(["generate"]) == 2
    assert "no command 'generate'; it is sample here." in capsys.readouterr().err
