"""`python -m benchmarks memory`: what `charjax compile --target cpu` says a step takes,
beside what a step of a real process takes.

A process places state and batch, compiles, gives back what the compiler has freed, and
then runs steps. From there to its peak its anonymous memory (RssAnon) grows by what the
program needs beside its arguments: temporaries and outputs.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.work import Work

WORKS = {
    "lstm 2 x 512, 512 x 100, float32": (Work(batch_size=512), "float32"),
    "gru 3 x 384, 384 x 200, bfloat16": (
        Work("gru", 3, 384, batch_size=384, sequence_length=200),
        "bfloat16",
    ),
}
_STEPS = 2


def main(json_path: Path | None = None) -> None:
    """Prints a row for each work, and writes them to a file if one is given."""
    rows = []
    print(f"{'':36}{'planned MB':>12}{'grown MB':>10}{'ratio':>8}")
    for name, (work, precision) in WORKS.items():
        row = {"work": name, **_measured(work, precision)}
        rows.append(row)
        planned, grown = row["planned"], row["grown"]
        print(
            f"{name:36}{planned / 1e6:12,.0f}{grown / 1e6:10,.0f}{planned / grown:8.3f}",
            flush=True,
        )
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=1) + "\n")


def _measured(work: Work, precision: str) -> dict[str, Any]:
    request = json.dumps({**vars(work), "precision": precision})
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.memory", request],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    ready = json.loads(worker.stdout.readline())
    before = peak = anonymous(worker.pid)
    worker.stdin.write("go\n")
    worker.stdin.flush()
    while worker.poll() is None:
        peak = max(peak, anonymous(worker.pid))
        time.sleep(0.005)
    if worker.returncode:
        raise RuntimeError("the process ended early: see its message above")
    return {**ready, "grown": peak - before}


def anonymous(process: int) -> int:
    """Bytes of memory that a process has of its own; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def _worker(request: dict[str, Any]) -> None:
    import jax
    import jax.numpy as jnp

    from charjax.compiled.memory import memory
    from charjax.compiled.names import TRAINING
    from charjax.compiled.programs import Sizes, build

    config = Work(**{k: v for k, v in request.items() if k != "precision"}).config(
        request["precision"]
    )
    devices = jax.devices()[:1]
    built = build(TRAINING, config, Sizes(request["vocab_size"]), devices)
    state, batch, _ = built.arguments
    compiled = built.jitted.lower(*built.arguments).compile()
    planned = memory(compiled.memory_analysis(), built.parts)
    zeros = jax.jit(
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (state, batch))
    )
    (state, batch), key = jax.block_until_ready(zeros()), jax.random.key(0)
    ctypes.CDLL(None).malloc_trim(0)
    said = {"planned": planned.temporaries + planned.outputs, "peak": planned.peak}
    print(json.dumps(said), flush=True)
    sys.stdin.readline()
    for _ in range(_STEPS):
        state, _ = jax.block_until_ready(compiled(state, batch, key))
    # At once: what happens at the end is not the step's.
    os._exit(0)


if __name__ == "__main__":
    _worker(json.loads(sys.argv[1]))
