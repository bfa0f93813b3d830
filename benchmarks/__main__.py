"""`python -m benchmarks train` and `python -m benchmarks sample`.

    python -m benchmarks train                       the canonical work, every row
    python -m benchmarks train --work char-rnn gru   other works
    python -m benchmarks sample --streams 1 256
    python -m benchmarks all --json all.json         every row of this machine in one call
    python -m benchmarks growth --plot growth.png    time per character as sizes grow
    python -m benchmarks compiled --help             steps compiled for devices not here
    python -m benchmarks memory                      a step's memory, planned and used
    python -m benchmarks gpu --out DIR --minutes 9   what a GPU is asked first (gpu/)

Rows take turns (A B C A B C ...), each in its own process; what is printed is the median
of the turns, the lowest and highest, and the ratio to the fastest PyTorch row of the same
or a lower precision. Without PyTorch its rows are left out, and that is said.

PyTorch's rows are measured as they come, to which `x PyTorch` is the ratio, and with the
allocator set as charjax's commands set it ("memory kept"), which helps it too: `x best` is
to the fastest of all. On a GPU the rows run one after another, since each fills it.
"""

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.growth import growth, plot_growth
from benchmarks.table import report, sampling_rows, training_rows
from benchmarks.turns import measure
from benchmarks.work import CANONICAL, WORKS
from charjax.sampling.chunks import CHUNK


def main() -> None:
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.gpu.command import main as on_a_gpu

        sys.exit(on_a_gpu(sys.argv[2:]))
    if sys.argv[1:2] == ["compiled"]:
        from benchmarks import compiled

        return compiled.main(sys.argv[2:])
    if sys.argv[1:2] == ["memory"]:
        from benchmarks import memory

        return memory.main(*map(Path, sys.argv[2:3]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    tasks = ["train", "sample", "all", "growth", "compiled", "memory", "gpu"]
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--work", nargs="+", choices=sorted(WORKS), default=["canonical"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn, about")
    parser.add_argument(
        "--json", type=Path, default=None, help="also write the numbers here"
    )
    parser.add_argument("--plot", type=Path, default=None, help="draw the growth here")
    parser.add_argument("--profile", type=Path, default=None, help="trace one charjax step")
    options = parser.parse_args()

    # A process of its own, whose threads are gone when the rows begin.
    code = (
        "import json, jax; from benchmarks.floor import floor; print(json.dumps("
        "{**floor(), 'backend': jax.default_backend()}))"
    )
    floor = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    gpu = floor.pop("backend") == "gpu"
    torch = importlib.util.find_spec("torch") is not None
    if not torch:
        print("PyTorch is not installed: its rows are left out.")
    print(", ".join(f"{name} {value:,.0f}" for name, value in floor.items()))
    works, streams = options.work, options.streams
    if options.task == "all":
        works = [name for name in WORKS if gpu or not name.startswith("batch-")]
        streams = [1, 1024] if gpu else [1, 256]
    results: list[Any] = []

    def write() -> None:
        # After every table, so that what a time limit cuts off is only the rest.
        if options.json is not None:
            version = platform.python_version()
            described = {"python": version, "floor": floor, "results": results}
            options.json.write_text(json.dumps(described, indent=1) + "\n")

    for name in works if options.task in ("train", "all") else []:
        work = WORKS[name]
        requests = training_rows(work, gpu, torch)
        rows = measure(work, requests, options.turns, options.seconds, gpu)
        results.append(report(f"{name}: {work}", rows, work.characters, floor))
        write()
    for count in streams if options.task in ("sample", "all") else []:
        requests = sampling_rows(count, gpu, torch)
        rows = measure(CANONICAL, requests, options.turns, options.seconds, gpu)
        title = f"sampling, 2 x 512, {count} streams, {CHUNK} characters each"
        results.append(report(title, rows, count * CHUNK, floor))
        write()
    if options.task == "growth":
        results = growth(options.turns, options.seconds)
        write()
        if options.plot is not None:
            plot_growth(results, options.plot)
    if options.profile is not None:
        _profile(options.profile)


def _profile(directory: Path) -> None:
    import jax

    from benchmarks import charjax_rows

    run, _ = charjax_rows.training(CANONICAL, "float32")
    run(2)
    with jax.profiler.trace(str(directory)):
        run(2)
    print(f"profile of two canonical steps in {directory}")


if __name__ == "__main__":
    main()
