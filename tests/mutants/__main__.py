"""Breaks the code in small ways, one at a time; each must turn a test red.

    python -m tests.mutants                  every mutant, against the tests it names
    python -m tests.mutants --only manifest  those whose promise or file says so
    python -m tests.mutants --some 5         five of them; `--seed` decides which
    python -m tests.mutants --list           what there is; nothing runs
    python -m tests.mutants --check          first see that the named tests pass unbroken

The tracked files are copied once, and the mutants are made in the copy. A mutant is killed
if its tests fail, or do not end; it survives if they pass, or if no test ran. It is stale
if the code it changes is not there exactly once. The exit status is 1 if any survived or
is stale.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.breakages import MUTANTS, Mutant

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 600
"""Seconds after which tests count as hanging."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutants; 1 if any survived or is stale."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", default="", help="part of a promise or of a file's name")
    parser.add_argument("--some", type=int, help="as many of them, drawn by the seed")
    parser.add_argument("--seed", default="0", help="any text, such as that of a commit")
    parser.add_argument("--list", action="store_true", help="print them, run nothing")
    parser.add_argument("--check", action="store_true", help="run the tests unbroken first")
    options = parser.parse_args(arguments)
    wanted = options.only.lower()
    chosen = [m for m in MUTANTS if wanted in f"{m.promise} {m.file}".lower()]
    if options.some is not None:
        count = min(options.some, len(chosen))
        chosen = random.Random(options.seed).sample(chosen, count)
    if options.list:
        for mutant in chosen:
            print(f"{mutant.promise}\n  {mutant.file}\n  {mutant.tests}")
        return 0
    with tempfile.TemporaryDirectory(prefix="charjax-mutants-") as folder:
        copy = Path(folder, "copy")
        _copy_tracked_files(copy)
        if options.check and not _are_green(copy, chosen):
            return 1
        counts = {"killed": 0, "survived": 0, "stale": 0}
        for mutant in chosen:
            began = time.monotonic()
            outcome, why = _try(copy, mutant)
            counts[outcome] += 1
            shown = outcome if outcome == "killed" else outcome.upper()
            seconds = time.monotonic() - began
            print(f"{shown}: {mutant.promise} ({why}, {seconds:.0f} s)", flush=True)
    print(
        f"{len(chosen)} mutants: {counts['killed']} killed, {counts['survived']} survived, "
        f"{counts['stale']} stale"
    )
    return 1 if counts["survived"] or counts["stale"] else 0


def _try(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """What became of a mutant (killed, survived, stale), and by what or why."""
    path = copy / mutant.file
    original = path.read_text("utf-8") if path.is_file() else ""
    found = original.count(mutant.old)
    if found != 1:
        return "stale", f"its code occurs {found} times in {mutant.file}"
    path.write_text(original.replace(mutant.old, mutant.new), "utf-8", newline="\n")
    try:
        code, output = _run_tests(copy, shlex.split(mutant.tests))
    finally:
        path.write_text(original, "utf-8", newline="\n")
    if code is None:
        return "killed", f"no end within {TIMEOUT} s"
    if code == 1:
        return "killed", next(_failures(output), "a test that is not named")
    if code == 0:
        return "survived", mutant.tests
    # Not collected, or not there: nothing was tested.
    return "survived", f"pytest ended with {code}: {_last_line(output)}"


def _are_green(copy: Path, mutants: Sequence[Mutant]) -> bool:
    """Whether all the tests named pass where nothing is broken."""
    plain: dict[str, None] = {}
    selections: dict[tuple[str, ...], None] = {}
    for mutant in mutants:
        words = shlex.split(mutant.tests)
        if any(word.startswith("-") for word in words):
            # Its options are not for the tests of others.
            selections[tuple(words)] = None
        else:
            plain.update(dict.fromkeys(words))
    if plain:
        selections[tuple(plain)] = None
    for selection in selections:
        code, output = _run_tests(copy, selection, timeout=None)
        if code != 0:
            failed = next(_failures(output), _last_line(output))
            print(f"unbroken, and yet not green: {failed} (pytest ended with {code})")
            return False
    print("unbroken: all green", flush=True)
    return True


def _run_tests(
    copy: Path, selection: Sequence[str], timeout: float | None = TIMEOUT
) -> tuple[int | None, str]:
    """pytest's exit code, or None if it did not end in time, and what it printed."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            # Two versions of a file may have the same size and be of the same second.
            "PYTHONDONTWRITEBYTECODE": "1",
            # What a mutant leaves there must not reach the next one.
            "CHARJAX_CACHE_DIR": scratch,
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-x", "-q", "-n", "0"),
                *("-p", "no:cacheprovider", *selection),
            ],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own, so that what the tests started can be ended with them.
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def _failures(output: str) -> Iterator[str]:
    for line in output.splitlines():
        if found := re.match(r"(?:FAILED|ERROR) (.+?)(?: - |$)", line):
            yield found[1]


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


def _copy_tracked_files(target: Path) -> None:
    command = ("git", "ls-files", "-z")
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name)


if __name__ == "__main__":
    sys.exit(main())
