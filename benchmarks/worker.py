"""One row of a benchmark in a process of its own, told what to do on standard input.

`python -m benchmarks.worker '{"system": ..., "precision": ..., "work": {...}}'` prepares,
prints a line of JSON, and then for each line with a number N on standard input does N
repetitions and prints {"seconds": ..., "loss": ...}. The parent takes turns, so that rows
interleave and no two compute at once.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.work import Work
from charjax.commands.allocator import keep_freed_memory

# A run does N repetitions and returns the last loss, or None where there is none.
Run = Callable[[int], float | None]


def main() -> None:
    request = json.loads(sys.argv[1])
    work = Work(**request["work"])
    # As charjax's own commands do; JAX's rows with, PyTorch's with and without.
    if request["system"] != "torch" or request.get("keep_memory"):
        keep_freed_memory()
    started = time.perf_counter()
    run, versions = prepare(request, work)
    prepared = time.perf_counter()
    run(1)
    first = time.perf_counter() - prepared
    _say(prepare_s=prepared - started, first_s=first, versions=versions)
    for line in sys.stdin:
        count, begun = int(line), time.perf_counter()
        loss = run(count)
        _say(seconds=time.perf_counter() - begun, loss=loss)


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def prepare(request: dict[str, Any], work: Work) -> tuple[Run, dict[str, str]]:
    """A row's repetitions, nothing compiled yet, and the versions that it runs on."""
    system, precision = request["system"], request["precision"]
    if system == "charjax" and request["task"] == "sample":
        from benchmarks import charjax_rows

        given = request["streams"], request.get("variant", "")
        return charjax_rows.sampling(work, precision, *given)
    if system == "charjax":
        from benchmarks import charjax_rows

        options = ("recurrence", "resident")
        given = {name: request[name] for name in options if name in request}
        return charjax_rows.training(work, precision, **given)
    if system == "flax":
        from benchmarks import flax_rows

        return flax_rows.training(work, precision)
    if system == "cudnn":
        from benchmarks import cudnn_rows

        return cudnn_rows.training(work, precision)
    from benchmarks import torch_rows

    if request["task"] == "sample":
        return torch_rows.sampling(work, precision, request["streams"], request["variant"])
    return torch_rows.training(work, precision, request["variant"])


if __name__ == "__main__":
    main()
