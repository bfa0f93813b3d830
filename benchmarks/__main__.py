"""`python -m benchmarks train` and `python -m benchmarks sample`.

    python -m benchmarks train                       the canonical work, every row
    python -m benchmarks train --work char-rnn gru   other works
    python -m benchmarks sample --streams 1 256

Rows take turns (A B C A B C ...), each in its own process; what is printed is the median
of the turns, the lowest and highest, and the ratio to the fastest PyTorch row of the same
or a lower precision. Without PyTorch its rows are left out, and that is said.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.work import CANONICAL, WORKS, Work
from charjax.language_model import CHUNK


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
    rows = [
        {"name": f"charjax {p}", "system": "charjax", "precision": p}
        for p in ("float32", "bfloat16")
    ]
    if torch:
        precisions = ["float32", "bfloat16"] + (["float16"] if gpu else [])
        rows += [
            {"name": f"PyTorch {p}", "system": "torch", "precision": p, "variant": "stack"}
            for p in precisions
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
                "name": f"PyTorch float32, {variant}",
                "system": "torch",
                "precision": "float32",
                "variant": variant,
            }
            for variant in variants
        ]
    return [{"task": "sample", "streams": streams, **row} for row in rows]


def measure(
    work: Work, requests: list[dict[str, Any]], turns: int, seconds: float
) -> list[Row]:
    """Starts every row, then lets them take turns of about `seconds` each."""
    rows = []
    for request in requests:
        row = Row(work, request)
        try:
            row.ready = row.hear()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            continue
        row.turn(1)
        rows.append(row)
    slowest = max(row.seconds[0] for row in rows)
    # The same number of repetitions for all, so that losses compare.
    count = max(1, round(seconds / slowest))
    for row in rows:
        row.seconds.clear()
    for _ in range(turns):
        for row in rows:
            row.turn(count)
    for row in rows:
        row.close()
    return rows


def report(title: str, rows: list[Row], characters: int, floor: dict[str, float]) -> Any:
    medians = {row.name: statistics.median(row.seconds) for row in rows}
    torch = [value for name, value in medians.items() if name.startswith("PyTorch")]
    exact = [v for n, v in medians.items() if n.startswith("PyTorch float32")]
    print(f"\n{title}")
    print(
        f"{'':36}{'ms':>9}{'low':>9}{'high':>9}{'char/s':>12}{'x PyTorch':>10}"
        f"{'GFLOP/s':>9}{'of floor':>9}{'first s':>8}{'loss':>8}"
    )
    lines = []
    for row in rows:
        median = medians[row.name]
        precision = row.request["precision"]
        peers = exact if precision == "float32" else torch
        ratio = min(peers) / median if peers else None
        line = {
            "row": row.name,
            "precision": precision,
            "ms": 1e3 * median,
            "low_ms": 1e3 * min(row.seconds),
            "high_ms": 1e3 * max(row.seconds),
            "characters_per_second": characters / median,
            "times_pytorch": ratio,
            "first_s": row.ready["first_s"],
            "loss": row.loss,
            "versions": row.ready["versions"],
        }
        rate = share = ""
        if row.request["task"] == "train":
            line["gflops"] = 1e-9 * row.work.flops / median
            best = floor["float32_gflops" if precision == "float32" else "bfloat16_gflops"]
            line["share_of_floor"] = line["gflops"] / best
            rate, share = f"{line['gflops']:.0f}", f"{line['share_of_floor']:.2f}"
        lines.append(line)
        print(
            f"{row.name:36}{line['ms']:9.1f}{line['low_ms']:9.1f}{line['high_ms']:9.1f}"
            f"{line['characters_per_second']:12,.0f}"
            f"{'' if ratio is None else f'{ratio:.2f}':>10}{rate:>9}{share:>9}"
            f"{line['first_s']:8.1f}{'' if row.loss is None else f'{row.loss:.3f}':>8}",
            flush=True,
        )
    return {"title": title, "rows": lines}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("task", choices=["train", "sample"])
    parser.add_argument("--work", nargs="+", choices=sorted(WORKS), default=["canonical"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn, about")
    parser.add_argument(
        "--json", type=Path, default=None, help="also write the numbers here"
    )
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
    results = []
    if options.task == "train":
        for name in options.work:
            work = WORKS[name]
            requests = training_rows(work, gpu, torch)
            rows = measure(work, requests, options.turns, options.seconds)
            results.append(report(f"{name}: {work}", rows, work.characters, floor))
    else:
        for streams in options.streams:
            requests = sampling_rows(streams, gpu, torch)
            rows = measure(CANONICAL, requests, options.turns, options.seconds)
            title = f"sampling, 2 x 512, {streams} streams, {CHUNK} characters each"
            results.append(report(title, rows, streams * CHUNK, floor))
    if options.profile is not None:
        _profile(options.profile)
    if options.json is not None:
        described = {
            "python": platform.python_version(),
            "floor": floor,
            "results": results,
        }
        options.json.write_text(json.dumps(described, indent=1) + "\n")


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
