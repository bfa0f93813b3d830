"""`charjax sample --interactive`: what a line means, and a person at a terminal."""

import io
import os
import select
import subprocess
import sys
import time

import pytest

import charjax
from charjax import InputError, SamplingOptions
from charjax.commands.cli import main
from charjax.commands.dialogue import Answer, Dialogue, Told, answer
from tests.subprocesses import command
from tests.tiny import FOUR_STEPS

TEXT = "one two\tthree.\nfour five 6 seven!\n" * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("interactive") / "run"
    charjax.fit(FOUR_STEPS, workdir=workdir, text=TEXT, quiet=True)
    return str(workdir)


def turns(*pairs):
    """A dialogue in which the state is the text itself."""
    dialogue = Dialogue("")
    for typed, written in pairs:
        dialogue = dialogue.after(typed, written, dialogue.standing + typed + written)
    return dialogue


def test_text_is_written_on_from():
    start = Dialogue("")
    for line, text in (("Once ", "Once "), ("", ""), ("//x", "/x"), (r"a\n\\n", "a\n\\n")):
        assert answer(start, line) == (start, Answer("write", text))
    assert turns(("a", "bc"), ("", "d")).text == "abcd"


def test_a_turn_is_taken_back_or_written_anew():
    dialogue = turns(("a", "bc"), ("x", "yz"))
    back, said = answer(dialogue, "/undo")
    assert (back.text, back.standing) == ("abc", "abc")
    assert said == Answer("say", "taken back: the text ends with 'abc'")
    empty, said = answer(back, "/undo")
    assert (empty.text, empty.standing, said.text) == (
        "",
        "",
        "taken back: the text is empty",
    )
    again, todo = answer(dialogue, "/again")
    assert (again.standing, again.told.seed, todo) == ("abc", 1, Answer("write", "x"))
    assert answer(dialogue, "/new")[0].text == ""
    assert answer(dialogue, "/show")[1] == Answer("say", "abcxyz")
    assert answer(dialogue, "/save a b.txt")[1] == Answer("save", "a b.txt")
    assert answer(dialogue, "/quit")[1].what == "quit"


def test_each_option_is_set_shown_and_put_back():
    dialogue = Dialogue("")
    for line, said in (
        ("/temperature 0.7", "temperature is 0.7"),
        ("/TOP-K 5", "top_k is 5"),
        ("/top_p 0.9", "top_p is 0.9"),
        ("/min-p 0.1", "min_p is 0.1"),
        ("/typical_p 0.5", "typical_p is 0.5"),
        ("/repetition_penalty 1.5", "repetition_penalty is 1.5"),
        ("/repetition_window 9", "repetition_window is 9"),
        ("/no_repeat 4", "no_repeat is 4"),
        ("/ban digits '!'", "ban is ('digits', '!')"),
        (r"/stop \n 'the end' \\n", r"stop is ('\n', 'the end', '\\n')"),
        ("/min_length 3", "min_length is 3"),
        ("/length 50", "length is 50"),
        ("/seed 7", "seed is 7"),
    ):
        dialogue, todo = answer(dialogue, line)
        assert todo == Answer("say", said)
    assert dialogue.told == Told(50, 7)
    options = SamplingOptions(
        *(0.7, 5, 0.9, 0.1, 0.5, 1.5, 9, 4, ("digits", "!")),
        stop=("\n", "the end", "\\n"),
        min_length=3,
    )
    assert dialogue.options == options
    assert answer(dialogue, "/stop")[1].text == r"stop is ('\n', 'the end', '\\n')"
    assert "/no_repeat 4" in answer(dialogue, "/options")[1].text.splitlines()
    for name in (*vars(options), "length", "seed"):
        dialogue, _ = answer(dialogue, f"/{name} off")
        assert name in answer(dialogue, "/help")[1].text
    assert dialogue == Dialogue("")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/temprature 1", "no such command; did you mean temperature?"),
        ("/", "no such command; /help"),
        ("/temperature x", "/temperature is 'x': expected a number"),
        ("/temperature -1", "/temperature is -1.0: give 0 or a positive"),
        ("/top_k 5 6", "/top_k|unrecognized"),
        ("/length 0", "/length is 0: give"),
        ("/ban 'x", "'x: a quotation mark is not closed"),
        ("/again", "/again: nothing was written"),
        ("/undo", "/undo: nothing was written"),
        ("/show", "/show: there is no text"),
        ("/save x", "/save: there is no text"),
        ("/quit now", "/quit is followed by 'now': it takes nothing"),
    ],
)
def test_what_means_nothing_is_told_in_a_line(line, message):
    with pytest.raises(InputError, match=message) as refused:
        answer(Dialogue(""), line)
    assert "\n" not in str(refused.value)


def typed(monkeypatch, capfdbinary, run, lines, *arguments):
    """What a script gets for some lines: text, and messages."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    arguments = ("--workdir", run, "--interactive", "--length", "30", *arguments)
    assert main(["sample", *arguments]) == 0
    said = capfdbinary.readouterr()
    return said.out.decode(), said.err.decode()


def test_a_script_can_drive_it(run, monkeypatch, capsysbinary, tmp_path):
    path = tmp_path / "written.txt"
    lines = [
        *("one", "", "/undo", "/again", "/temperature 0", "\N{GREEK SMALL LETTER OMEGA}"),
        *("tw", f"/save {path}", f"/save {path}", "/length x", "/quit", "never read"),
    ]
    out, err = typed(monkeypatch, capsysbinary, run, "\n".join(lines).encode())
    model = charjax.load(run)
    first, second = model.generate("one", 30), model.generate("one", 60)
    again = model.generate("one", 30, seed=1)
    shown = (first[3:], second[33:], again[3:])
    assert out.startswith("".join(f"{text}\n" for text in shown).replace("\n\n", "\n"))
    greedy = model.generate(f"{again}tw", 30, temperature=0)
    assert path.read_text("utf-8") == greedy
    messages = err.splitlines()
    assert messages[0] == f"taken back: the text ends with {first!r}"
    assert messages[1] == "temperature is 0.0" and "'ω'" in messages[2]
    assert messages[3:] == [
        f"saved in {path}",
        f"/save {path}: it is there already; give another name.",
        "/length is 'x': expected a whole number.",
    ]


def test_it_does_one_thing_and_begins_with_the_prime(run, monkeypatch, capsysbinary):
    for option in ("--json", "--novelty", "--num-samples=2", "--best-of=2"):
        assert main(["sample", "--workdir", run, "--interactive", option]) == 2
        name = option.partition("=")[0]
        assert f"--interactive and {name}" in capsysbinary.readouterr().err.decode()
    out, err = typed(monkeypatch, capsysbinary, run, b"\xff\n/show", "--prime", "one")
    text = charjax.load(run).generate("one", 30)
    assert out.rstrip("\n") == text[3:].rstrip("\n")
    assert err.splitlines()[0] == "a line is not UTF-8 at byte 0: it is left out."
    assert err.endswith(f"{text}\n")


TERMINAL = """
import os, sys
# The first terminal that a new session opens is its own.
for number in (0, 1, 2):
    os.dup2(os.open(sys.argv[1], os.O_RDWR), number)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_person_at_a_terminal(run):
    import pty

    ours, theirs = pty.openpty()
    words = command("sample", "--workdir", run, "--interactive", "--length", 9)[1:]
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, os.ttyname(theirs), *words],
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "INPUTRC": "/dev/null"},
    )
    seen = b""

    def until(expected, count=1, again=b""):
        """Reads until something has been seen so often; types once more where nothing
        comes, since a signal just after a prompt is noticed with the next one."""
        nonlocal seen
        end = time.monotonic() + 120
        while seen.count(expected) < count:
            assert time.monotonic() < end and process.poll() is None, seen
            if select.select([ours], [], [], 2)[0]:
                seen += os.read(ours, 65536)
            elif again:
                os.write(ours, again)
        seen = seen.rpartition(expected)[2]

    try:
        until(b"> ")
        os.write(ours, b"one t\n")
        until(b"> ")
        os.write(ours, b"/length 1000000\n")
        until(b"> ")
        os.write(ours, b"\n")
        until(b"\n", 20)
        # Ctrl-C ends the text, then a line, and never the program.
        os.write(ours, b"\x03")
        until(b"> ")
        os.write(ours, b"half a line\x03")
        until(b"Ctrl-D ends", again=b"\x03")
        until(b"> ")
        # Arrow up and Tab are readline's.
        os.write(ours, b"\x1b[A\n")
        until(b"length is 1000000")
        until(b"> ")
        os.write(ours, b"/und\t\n")
        until(b"taken back")
        until(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
