"""`python -m benchmarks train` and `python -m benchmarks sample`.

    python -m benchmarks train                       the canonical work, every row
    python -m benchmarks train --work char-rnn gru   other works
    python -m benchmarks sample --streams 1 256
    python -m benchmarks all --json all.json         every row of this machine in one call
    python -m benchmarks growth --plot growth.png    time per character as sizes grow

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
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.work import CANONICAL, WORKS, Work
from charjax.sampling.chunks import CHUNK

# The growth of one size at a time starts from here.
MIDDLE = replace(CANONICAL, hidden_size=256, batch_size=64)
GROWTH: dict[str, tuple[int, ...]] = {
    "sequence_length": (100, 200, 500, 1000),
    "batch_size": (32, 64, 128, 256, 512),
    "num_layers": (1, 2, 4, 8),
    "hidden_size": (128, 256, 512, 1024),
}


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


def training_rows(work: Work, gpu: bool, torch: bool) -> list[dict[str, Any]]:
    exact = ["float32", "tf32"] if gpu else ["float32"]
    rows = [
        {"name": f"charjax {p}", "system": "charjax", "precision": p}
        for p in (*exact, "bfloat16")
    ]
    if torch:
        precisions = [*exact, "bfloat16", *(["float16"] if gpu else [])]
        rows += [
            {"name": f"PyTorch {p}", "system": "torch", "precision": p, "variant": "stack"}
            for p in precisions
        ]
        if not gpu:
            rows += [
                {**row, "name": f"{row['name']}, memory kept", "keep_memory": True}
                for row in rows[-len(precisions) :]
            ]
        if gpu:
            rows.append(
                {
                    "name": "PyTorch float16, a module a layer",
                    "system": "torch",
                    "precision": "float16",
                    "variant": "layers",
                }
            )
    if work.cell == "lstm" and work.embedding_size is None:
        rows.append(
            {"name": "Flax nn.RNN float32", "system": "flax", "precision": "float32"}
        )
        if gpu:
            rows += [
                {"name": f"jax.experimental.rnn {p}", "system": "cudnn", "precision": p}
                for p in ("float32", "tf32")
            ]
    return [{"task": "train", **row} for row in rows]


def sampling_rows(streams: int, gpu: bool, torch: bool) -> list[dict[str, Any]]:
    rows = [
        {"name": f"charjax {p}", "system": "charjax", "precision": p}
        for p in ("float32", "bfloat16")
    ]
    if torch:
        variants = ["default"] if gpu else ["default", "no-mkldnn"]
        rows += [
            {
                "name": f"PyTorch {precision}, {variant}",
                "system": "torch",
                "precision": precision,
                "variant": variant,
            }
            for variant in variants
            for precision in ("float32", "bfloat16")
        ]
    return [{"task": "sample", "streams": streams, **row} for row in rows]


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


def report(title: str, rows: list[Row], characters: int, floor: dict[str, float]) -> Any:
    medians = {row.name: statistics.median(row.seconds) for row in rows}
    torch = {n: v for n, v in medians.items() if n.startswith("PyTorch")}
    exact = {n: v for n, v in torch.items() if n.startswith("PyTorch float32")}
    print(f"\n{title}")
    print(
        f"{'':36}{'ms':>9}{'low':>9}{'high':>9}{'char/s':>12}{'x PyTorch':>10}{'x best':>7}"
        f"{'GFLOP/s':>9}{'of floor':>9}{'first s':>8}{'loss':>8}"
    )
    lines = []
    for row in rows:
        median = medians[row.name]
        precision = row.request["precision"]
        peers = exact if precision == "float32" else torch
        plain = [v for n, v in peers.items() if not n.endswith("memory kept")]
        ratio = min(plain) / median if plain else None
        best_ratio = min(peers.values()) / median if peers else None
        line = {
            "row": row.name,
            "precision": precision,
            "ms": 1e3 * median,
            "low_ms": 1e3 * min(row.seconds),
            "high_ms": 1e3 * max(row.seconds),
            "characters_per_second": characters / median,
            "times_pytorch": ratio,
            "times_best_pytorch": best_ratio,
            "first_s": row.ready["first_s"],
            "loss": row.loss,
            "versions": row.ready["versions"],
        }
        rate = share = ""
        if row.request["task"] == "train":
            line["gflops"] = 1e-9 * row.work.flops / median
            best = floor.get(f"{precision}_gflops", floor["bfloat16_gflops"])
            line["share_of_floor"] = line["gflops"] / best
            rate, share = f"{line['gflops']:.0f}", f"{line['share_of_floor']:.2f}"
        lines.append(line)
        print(
            f"{row.name:36}{line['ms']:9.1f}{line['low_ms']:9.1f}{line['high_ms']:9.1f}"
            f"{line['characters_per_second']:12,.0f}"
            f"{'' if ratio is None else f'{ratio:.2f}':>10}"
            f"{'' if best_ratio is None else f'{best_ratio:.2f}':>7}{rate:>9}{share:>9}"
            f"{line['first_s']:8.1f}{'' if row.loss is None else f'{row.loss:.3f}':>8}",
            flush=True,
        )
    return {"title": title, "rows": lines}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("task", choices=["train", "sample", "all", "growth"])
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


def growth(turns: int, seconds: float) -> list[dict[str, Any]]:
    """Time per character and achieved GFLOP/s as one size grows and the others stay."""
    results = []
    print(f"{'':24}{'precision':>10}{'us/char':>9}{'GFLOP/s':>9}")
    for size, values in GROWTH.items():
        for value in values:
            work = replace(MIDDLE, **{size: value})
            requests = training_rows(work, False, False)[:2]
            for row in measure(work, requests, turns, seconds, False):
                median = statistics.median(row.seconds)
                line = {
                    "size": size,
                    "value": value,
                    "precision": row.request["precision"],
                    "us_per_character": 1e6 * median / work.characters,
                    "gflops": 1e-9 * work.flops / median,
                }
                results.append(line)
                print(
                    f"{size:16}{value:8}{line['precision']:>10}"
                    f"{line['us_per_character']:9.2f}{line['gflops']:9.0f}",
                    flush=True,
                )
    return results


def plot_growth(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(GROWTH), figsize=(13, 6), sharey="row")
    for column, size in enumerate(GROWTH):
        for precision in ("float32", "bfloat16"):
            lines = [
                line
                for line in results
                if line["size"] == size and line["precision"] == precision
            ]
            values = [line["value"] for line in lines]
            for row, what in enumerate(("us_per_character", "gflops")):
                axes[row, column].plot(
                    values, [line[what] for line in lines], "o-", label=precision
                )
        for row in range(2):
            axes[row, column].set_xscale("log", base=2)
            axes[row, column].grid(alpha=0.3)
            axes[row, column].set_xticks(list(GROWTH[size]), [str(v) for v in GROWTH[size]])
        axes[1, column].set_xlabel(size)
    axes[0, 0].set_ylabel("microseconds per character")
    axes[1, 0].set_ylabel("GFLOP/s")
    for row, what in enumerate(("us_per_character", "gflops")):
        axes[row, 0].set_ylim(0, 1.05 * max(line[what] for line in results))
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


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
