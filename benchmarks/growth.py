"""Time per character as one size grows and the others stay."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.table import training_rows
from benchmarks.turns import measure
from benchmarks.work import CANONICAL

# Sizes grow from here.
MIDDLE = replace(CANONICAL, hidden_size=256, batch_size=64)
GROWTH: dict[str, tuple[int, ...]] = {
    "sequence_length": (100, 200, 500, 1000),
    "batch_size": (32, 64, 128, 256, 512),
    "num_layers": (1, 2, 4, 8),
    "hidden_size": (128, 256, 512, 1024),
}


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
