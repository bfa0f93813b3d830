"""Sizes that no memory holds: one line that says which, and an exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import OPTIONS

COMMANDS = """
import resource, sys, traceback
from charjax.commands import cli
# However much memory there is: no more is given than this.
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for command in sys.stdin.read().splitlines():
    print("command:", command, file=sys.stderr)
    try:
        print(cli.main(command.split()))
    except Exception:
        traceback.print_exc()
        print(-1)
"""


def said_by(folder, *commands):
    """Exit codes and what was said on standard error after each command began."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=folder,
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = [part.splitlines()[1:] for part in done.stderr.split("command:")[1:]]
    return [int(code) for code in done.stdout.splitlines()], said


@pytest.mark.skipif(not Path("/proc").exists(), reason="the limit is Linux's")
def test_a_batch_or_samples_that_memory_does_not_hold_are_told_in_a_line(tmp_path):
    (tmp_path / "text.txt").write_text("all happy families are alike. " * 80_000)
    (tmp_path / "small.txt").write_text("all happy families are alike. " * 80)
    large = "--data.batch_size 1000 --data.sequence_length 2000 --train.steps 2"
    codes, said = said_by(
        tmp_path,
        f"train --workdir run --data.source small.txt --train.steps 2 {' '.join(OPTIONS)}",
        "sample --workdir run --num-samples 1000000000",
        f"train --data.source text.txt --model.hidden_size 128 {large}",
    )
    assert codes == [0, 1, 1], said
    assert len(said[1]) == 1 and "memory" in said[1][0] and "num" in said[1][0]
    for words in (
        "error: ",
        "memory",
        "batch_size 1000",
        "sequence_length 2000",
        "float32",
    ):
        assert words in said[2][-1]
    assert not any("Traceback" in line for lines in said for line in lines)


@pytest.mark.skipif(not Path("/proc").exists(), reason="the limit is Linux's")
def test_a_model_that_memory_does_not_hold_is_told_in_a_line(tmp_path):
    (tmp_path / "text.txt").write_text("all happy families are alike. " * 80)
    source = "--data.source text.txt --data.batch_size 8 --data.sequence_length 8"
    (code,), (said,) = said_by(tmp_path, f"train {source} --model.hidden_size 1000000")
    assert code == 1
    assert said[-1].startswith("error: ")
    assert "memory" in said[-1] and "hidden_size" in said[-1]
    assert not (tmp_path / "runs").exists()
