"""Progress: a bar, plain lines or HTML; never a reason for a run to end."""

import io
import os
import pty
import subprocess
import sys
import types

import pytest

from charjax.reporting import progress as module
from charjax.reporting.display import printable
from charjax.reporting.progress import progress, reading, writing

NASTY = "[red]x[/red] :smile: \x1b[31m\x00\r\u202e\ud800 naïve 中"
SHOWN = r"[red]x[/red] :smile: \x1b[31m\x00\r\u202e\ud800 naïve 中"

SCRIPT = """
import sys
from charjax.reporting.progress import progress
with progress(100) as bar:
    for step in range(1, 101):
        bar.update(step, 1.25, 1.803, 123456.0)
        if step == 50:
            bar.message(%r)
            print("to standard output")
"""


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


def test_controls_are_spelt_out():
    assert printable(NASTY) == SHOWN
    assert printable("a\r\nb\tc") == "a\nb\tc"
    assert printable("👩\u200d👩 é") == "👩\u200d👩 é"


def test_only_slow_reading_is_shown(clock, capsys):
    with reading() as watch:
        clock.seconds = 1.9
        watch("reading the text", 10**9, 10**10)
    assert capsys.readouterr().err == ""
    clock.seconds = 0.0
    with reading() as watch, reading(quiet=True) as silent:
        for gigabytes in range(11):
            clock.seconds += 5
            watch("reading the text", gigabytes * 10**9, 10**10)
            silent("reading the text", gigabytes * 10**9, 10**10)
        watch("waiting for another", 0, 0)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 7
    assert lines[1].startswith("reading the text: 2.0 of 10.0 GB (20%)  0:10 < 0:40")
    assert lines[-1] == "waiting for another"
    clock.seconds = 0.0
    with reading() as watch:
        clock.seconds = 3.0
        watch("downloading", 10**5, 10**6)
    assert "downloading: 0.1 of 1.0 MB (10%)" in capsys.readouterr().err


def test_plain_lines_are_few(clock, capsys):
    with progress(1000) as bar:
        for step in range(1, 1001):
            clock.seconds += 1
            bar.update(step, 1.25, 1.803, 1234.0)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert 20 <= len(lines) <= 40
    assert "\r" not in err
    assert lines[0].startswith(
        "step 1/1000 (0%)  loss 1.2500  1.803 bits/char  1.23k char/s"
    )
    assert lines[-1].startswith("step 1000/1000 (100%)")
    assert lines[-1].endswith("16:40")


def test_a_fast_run_prints_its_first_and_last_line(clock, capsys):
    with progress(1000) as bar:
        for step in range(1, 1001):
            clock.seconds += 0.001
            bar.update(step, 1.25, 1.803, 1234.0)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_time_left_leaves_out_compilation_and_the_steps_before(clock, capsys):
    with progress(5000) as bar:
        clock.seconds = 100
        bar.update(4001, 1.0, 1.0, 1.0)
        clock.seconds = 200
        bar.update(4101, 1.0, 1.0, 1.0)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("1:40 < ?")
    assert second.endswith("3:20 < 14:59")


def test_messages_are_literal_and_replaced_where_need_be(monkeypatch):
    for encoding, expected in (
        ("utf-8", SHOWN),
        ("ascii", SHOWN.replace("ï", "?").replace("中", "?")),
    ):
        data = io.BytesIO()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(data, encoding))
        with progress(10) as bar:
            bar.message(NASTY)
        assert data.getvalue().decode(encoding) == expected + "\n"


def test_quiet_shows_nothing(capsys):
    with progress(10, quiet=True) as bar:
        bar.update(1, 1.0, 1.0, 1.0)
        bar.message("x")
    assert capsys.readouterr() == ("", "")


def test_a_stream_that_has_gone_away_is_ignored(monkeypatch):
    for is_terminal in (False, True):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", stream)
        with progress(10) as bar:
            stream.close()
            bar.update(1, float("nan"), float("inf"), 0.0)
            bar.message("x")


def test_the_writing_of_many_texts_is_shown_on_terminals_only(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for is_terminal in (False, True):
        stream, clock.seconds = io.StringIO(), 0.0
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", stream)
        with writing() as watch:
            watch("writing", 1280, 64_000)
            assert stream.getvalue() == ""
            for clock.seconds in (5.0, 10.0):
                watch("writing", int(3200 * clock.seconds), 64_000)
        shown = stream.getvalue()
        assert ("writing: 32,000 of 64,000 characters  0:10 < 0:10" in shown) == is_terminal
        assert (shown == "") == (not is_terminal)
        # Once texts are printed, nothing is drawn over them.
        watch("writing", 64_000, 64_000)
        assert stream.getvalue() == shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_gets_a_bar(encoding):
    main, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT % NASTY],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**environment, "COLUMNS": "100"},
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(main, 65536):
                shown += piece
        except OSError:  # the other end was closed
            pass
        assert process.stdout is not None
        assert process.stdout.read() == b"to standard output\n"
    os.close(main)
    assert process.returncode == 0
    text = shown.decode(encoding)
    assert SHOWN[:30] in text
    assert "100/100  loss 1.2500  1.803 bits/char  123k char/s" in text
    assert ("━" in text) == (encoding == "utf-8")
    assert "\r\x1b[2K" in text
    assert "Traceback" not in text


def test_a_notebook_gets_html_that_is_updated_in_place(monkeypatch, clock, capsys):
    shown = []
    handle = types.SimpleNamespace(update=shown.append)

    def display(picture, display_id):
        shown.append(picture)
        return handle

    package = types.ModuleType("IPython")
    package.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    inner = types.ModuleType("IPython.display")
    inner.HTML, inner.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    with progress(1000) as bar:
        for step in range(1, 1001):
            clock.seconds += 0.01
            bar.update(step, 1.25, 1.803, 1234.0)
        bar.message(NASTY)
    assert 35 <= len(shown) <= 45
    assert 'value="1.0000"' in shown[-1]
    assert "1000/1000  loss 1.2500" in shown[-1]
    assert " &lt; " in shown[-2]
    assert capsys.readouterr() == (SHOWN + "\n", "")
