"""`python -m benchmarks gpu --out DIR --minutes 9 [--continue]`.

Asks a GPU one row after another, the most worth first, each in a process of its own with
a time limit. Each result is a line of DIR/results.jsonl as soon as it is there; DIR/gpu.md
has the tables and DIR/gpu.json everything. `--continue` goes on with the rows that have no
result yet, then tries those again that failed, once. `--rehearse` does it all on a CPU with
tiny sizes, to find what is broken before a GPU is there.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import EQUAL, Row, rehearsed, rows, work_of
from benchmarks.gpu.table import markdown

RESULTS, TABLE, ALL = "results.jsonl", "gpu.md", "gpu.json"

DONE, LEFT_OUT, FAILED, CUT = "done", "left out", "failed", "cut off"
"""What became of a row: a row that was cut off had less time than it may take."""

# Seconds kept for the tables; and less than that is not worth beginning a row.
_RESERVE, _LEAST = 3, 15
_TRIES = 2

Ask = Callable[[Row, float, Path, bool], dict[str, Any]]
"""(row, seconds, directory, whether it is a rehearsal) -> status and what was found."""


def main(arguments: list[str]) -> int:
    """Asks as many rows as there is time for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the directory for it all")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--continue", action="store_true", dest="going_on")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    parser.add_argument("--only", default="", help="rows whose name matches this pattern")
    parser.add_argument("--list", action="store_true", help="show the rows and end")
    options = parser.parse_args(arguments)
    torch = importlib.util.find_spec("torch") is not None
    asked = [row for row in rows(torch) if re.search(options.only, row.name)]
    if options.list:
        print(*(row.name for row in asked), sep="\n")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    before = read(options.out / RESULTS)
    if before and not options.going_on:
        parser.error(f"{options.out} has results: give --continue, or another directory")
    ends = time.monotonic() + 60 * options.minutes
    if not torch:
        print("PyTorch is not installed: its rows are left out", flush=True)
    found = ask_all(asked, before, ends, options.out, options.rehearse, in_a_process)
    failed = [line for line in found if line["status"] == FAILED]
    left = len(_to_do(asked, before + found))
    print(
        f"{len(found)} rows asked, {len(failed)} failed, {left} left; {options.out / TABLE}"
    )
    return 1 if failed else 0


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far; a last line that was torn off counts as not there."""
    found = []
    if path.exists():
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def ask_all(
    asked: list[Row],
    before: list[dict[str, Any]],
    ends: float,
    out: Path,
    rehearse: bool,
    ask: Ask,
) -> list[dict[str, Any]]:
    """Asks rows until they or the time are over, and keeps each result at once."""
    found: list[dict[str, Any]] = []
    for row in _to_do(asked, before):
        left = ends - time.monotonic() - _RESERVE
        if left < (1 if rehearse else _LEAST):
            break
        print(row.name, end=": ", flush=True)
        begun = time.monotonic()
        answer = ask(row, min(left, row.seconds), out, rehearse)
        if answer["status"] == FAILED and answer.get("timed_out") and left < row.seconds:
            answer["status"] = CUT
        wall = round(time.monotonic() - begun, 1)
        line = {
            **{"row": row.name, "kind": row.kind, "work": row.work, "flags": row.flags},
            **{"request": row.request, "rehearsal": rehearse, "wall_s": wall},
            **answer,
        }
        found.append(line)
        _keep(out, line, before + found)
        print(_in_words(line), flush=True)
    return found


def _to_do(asked: Iterable[Row], before: list[dict[str, Any]]) -> list[Row]:
    """Rows without a result, then those that failed less than twice."""
    over = {line["row"] for line in before if line["status"] in (DONE, LEFT_OUT)}
    failures = [line["row"] for line in before if line["status"] == FAILED]
    left = [row for row in asked if row.name not in over]
    again = [row for row in left if 0 < failures.count(row.name) < _TRIES]
    return [row for row in left if row.name not in failures] + again


def _keep(out: Path, line: dict[str, Any], everything: list[dict[str, Any]]) -> None:
    with (out / RESULTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
    for name, text in (
        (ALL, json.dumps(everything, indent=1)),
        (TABLE, markdown(everything)),
    ):
        working = out / f"{name}.part"
        working.write_text(text + "\n")
        os.replace(working, out / name)


def _in_words(line: dict[str, Any]) -> str:
    words = line["status"]
    if "ms" in line:
        words += f", {line['ms']:.2f} ms"
    if reason := line.get("left_out") or line.get("reason"):
        words += f" ({reason})"
    return f"{words}, {line['wall_s']} s"


def in_a_process(row: Row, seconds: float, out: Path, rehearse: bool) -> dict[str, Any]:
    """Asks a row; its process and those that it started are gone afterwards."""
    name = re.sub(r"\W+", "-", row.name).strip("-")
    answer, log = out / "rows" / f"{name}.json", out / "rows" / f"{name}.txt"
    answer.parent.mkdir(exist_ok=True)
    answer.unlink(missing_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.gpu.worker"),
                *(json.dumps(request_of(row, out, rehearse)), str(answer)),
            ],
            env=_environment(row, rehearse),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = not _ended(process, seconds)
    found = json.loads(answer.read_text()) if answer.exists() else {}
    if timed_out:
        reason = f"no answer within {seconds:.0f} seconds"
        return {**found, "status": FAILED, "timed_out": True, "reason": reason}
    if process.returncode != 0 or not found:
        return {**found, "status": FAILED, "reason": _last_words(log, process.returncode)}
    return {**found, "status": LEFT_OUT if "left_out" in found else DONE}


def request_of(row: Row, out: Path, rehearse: bool) -> dict[str, Any]:
    """What a worker is told."""
    request = rehearsed(row) if rehearse else work_of(row)
    folder = out / "profiles" / re.sub(r"\W+", "-", row.name)
    return {**request, "rehearse": rehearse, "folder": str(folder)}


def _environment(row: Row, rehearse: bool) -> dict[str, str]:
    # JAX would take three quarters of a GPU's memory at once.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    if rehearse:
        environment["JAX_PLATFORMS"] = "cpu"
    if row.kind == EQUAL:
        # Each compares with the plain scan, which is compiled once.
        compiled = Path(tempfile.gettempdir()) / f"charjax-gpu-{os.getuid()}"
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    if row.flags:
        flags = f"{environment.get('XLA_FLAGS', '')} {row.flags}".strip()
        environment["XLA_FLAGS"] = flags
    return environment


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process ended in time; if not it is killed."""
    try:
        process.wait(timeout=seconds)
        return True
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that hangs in a driver may not even die: the next row is asked all the same.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        return False
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _last_words(log: Path, code: int | None) -> str:
    """The error that a process ended with, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    last = [line for line in lines if line][-1:]
    return (errors[-1:] or last or [f"exit code {code}"])[0][:300]
