"""The rows of one work: which there are, and how they are printed."""

import statistics
from typing import Any

from benchmarks.turns import Row
from benchmarks.work import Work


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
    rows += [
        {
            "name": f"charjax float32, {variant}",
            "system": "charjax",
            "precision": "float32",
            "variant": variant,
        }
        for variant in ("filters", "filters, no_repeat", "stop")
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
