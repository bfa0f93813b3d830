"""Other processes: the project's commands and scripts, their memory, a free address."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def command(name: object, *arguments: object) -> list[str]:
    """The words that start `train.py` or `sample.py`, or a command of the package."""
    start = (
        [str(ROOT / name)] if str(name).endswith(".py") else ["-m", "charjax", str(name)]
    )
    return [sys.executable, *start, *map(str, arguments)]


def run(
    name: object, *arguments: object, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command to its end, with what it says."""
    words = command(name, *arguments)
    return subprocess.run(words, capture_output=True, timeout=240, **options)


def run_script(
    script: str, *arguments: object, prefix: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs Python's statements to their end; they may import what stands in `tests/`."""
    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [*prefix, sys.executable, "-c", script, *map(str, arguments)],
        text=True,
        timeout=240,
        env={**os.environ, **path},
        **streams,
    )


def peak_memory(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Waits for processes to end; the most bytes that each had of its own.

    Pages of a file that is mapped are the kernel's.
    """
    peaks = [0] * len(processes)
    try:
        while any(process.poll() is None for process in processes):
            peaks = [max(pair) for pair in zip(peaks, map(_memory, processes), strict=True)]
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
    return peaks


def _memory(process: subprocess.Popen[bytes]) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def free_address() -> str:
    """Where processes may meet: the host and a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
