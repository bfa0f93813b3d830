"""Rows that take turns, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks.work import Work


class Row:
    """A worker process and its measurements."""

    def __init__(self, work: Work, request: dict[str, Any]) -> None:
        self.name, self.work, self.request = request["name"], work, request
        self.seconds: list[float] = []
        self.loss: float | None = None
        self.ready: dict[str, Any] = {}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.worker"),
                json.dumps({**request, "work": asdict(work)}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # JAX would take three quarters of a GPU's memory at once.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: see its message above")
        return json.loads(line)

    def turn(self, count: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self.hear()
        self.seconds.append(answer["seconds"] / count)
        self.loss = answer["loss"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    work: Work, requests: list[dict[str, Any]], turns: int, seconds: float, apart: bool
) -> list[Row]:
    """Starts every row, then lets them take turns of about `seconds` each.

    With `apart` a row starts when the one before it has ended. A row that fails is left
    out, and said.
    """
    rows: list[Row] = []
    groups = [[request] for request in requests] if apart else [requests]
    for group in groups:
        started = [row for request in group if (row := _started(work, request))]
        slowest = max((row.seconds[0] for row in started), default=1.0)
        # The same number of repetitions for all, so that losses compare.
        count = max(1, round(seconds / slowest))
        for row in started:
            row.seconds.clear()
        for _ in range(turns):
            for row in list(started):
                if not _attempt(row, lambda row=row, count=count: row.turn(count)):
                    started.remove(row)
        for row in started:
            row.close()
        rows += started
    return rows


def _started(work: Work, request: dict[str, Any]) -> Row | None:
    row = Row(work, request)

    def start() -> None:
        row.ready = row.hear()
        row.turn(1)

    return row if _attempt(row, start) else None


def _attempt(row: Row, action: Callable[[], None]) -> bool:
    try:
        action()
    except (RuntimeError, OSError) as error:
        print(f"left out: {error}", file=sys.stderr, flush=True)
        row.process.kill()
        row.process.wait()
        return False
    return True
