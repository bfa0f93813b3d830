"""Answers one row in a process of its own.

`python -m benchmarks.gpu.worker '{"kind": ..., "work": {...}}' ANSWER.json` writes what it
knows so far, again and again, so that what a time limit cuts off is only the rest.
"""

import contextlib
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import CHOICE, DEVICE, EQUAL, PROFILE, SAMPLING, TRAINING
from benchmarks.work import Work

CELLS = ("lstm", "gru", "rnn")
_TURNS, _SECONDS = 5, 1.0
_STEPS = 3

Answer = dict[str, Any]


def main() -> None:
    request, path = json.loads(sys.argv[1]), Path(sys.argv[2])
    for answer in answers(request):
        working = path.with_suffix(".part")
        working.write_text(json.dumps(answer))
        os.replace(working, path)


def answers(request: dict[str, Any]) -> Iterator[Answer]:
    """What is known of a row, more each time; the last one is the answer, `left_out` where
    what it asks for cannot be done."""
    from charjax.errors import InputError

    try:
        yield from _answers(request)
    except InputError as error:
        yield {"left_out": str(error)}


def _answers(request: dict[str, Any]) -> Iterator[Answer]:
    work, kind = Work(**request["work"]), request["kind"]
    kinds: dict[str, Callable[[dict[str, Any], Work], Iterator[Answer]]] = {
        DEVICE: _device,
        EQUAL: _equal,
        CHOICE: _choice,
        TRAINING: _timed,
        SAMPLING: _timed,
        PROFILE: _profile,
    }
    yield from kinds[kind](request, work)


def _device(request: dict[str, Any], work: Work) -> Iterator[Answer]:
    del work
    import jax

    from benchmarks.charjax_rows import versions
    from benchmarks.floor import floor

    device = jax.devices()[0]
    found: Answer = {"versions": versions(), "platform": device.platform}
    found["memory_gb"] = 1e-9 * (device.memory_stats() or {}).get("bytes_limit", 0)
    if shutil.which("nvidia-smi"):
        query = "name,driver_version,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found["nvidia_smi"] = subprocess.check_output(command, text=True, timeout=20)
    yield found
    if not request.get("rehearse"):
        yield {**found, "floor": floor()}


def _equal(request: dict[str, Any], work: Work) -> Iterator[Answer]:
    """Each cell's largest difference from the plain scan."""
    from benchmarks.charjax_rows import on_device
    from charjax.devices import mesh as meshes
    from charjax.devices.proof import BOUNDS, Check
    from charjax.errors import InputError

    name, precision = request["recurrence"], on_device(request["precision"])
    import jax

    mesh, cells = meshes.make_mesh(jax.devices()[:1]), {}
    for cell in CELLS:
        config = work.config(precision).replace(**{"model.cell": cell})
        try:
            check = Check(config, mesh, work.vocab_size, name, "scan")
            errors = check.errors()
            worst = max(
                errors, key=lambda what: (errors[what] != errors[what], errors[what])
            )
            cells[cell] = {"error": errors[worst], "where": worst}
        except InputError as error:
            cells[cell] = {"left_out": str(error)}
        except Exception as error:
            cells[cell] = {"failed": _first_line(error)}
        yield {"bound": BOUNDS.get(request["precision"]), "cells": cells}


def _choice(request: dict[str, Any], work: Work) -> Iterator[Answer]:
    """What a run would take, and what the check of its kernels says."""
    import jax

    from benchmarks.charjax_rows import on_device
    from charjax.devices import mesh as meshes
    from charjax.devices.proof import prove

    config = work.config(on_device(request["precision"]))
    mesh, begun = meshes.make_mesh(jax.devices()[:1]), time.perf_counter()
    proof, lines = prove(config, mesh, work.vocab_size, None)
    kernels = () if proof is None else proof.kernels
    chosen = meshes.recurrence_for(config, mesh, proven=kernels)
    seconds = time.perf_counter() - begun
    yield {"chosen": chosen.name, "lines": lines, "check_s": seconds}


def _timed(request: dict[str, Any], work: Work) -> Iterator[Answer]:
    needs_gpu = request["system"] == "cudnn" or request["precision"] == "float16"
    if request.get("rehearse") and needs_gpu:
        yield {"left_out": "it needs a GPU"}
        return
    run, found = _started(request, work)
    yield found
    begun = time.perf_counter()
    run(2)
    once = (time.perf_counter() - begun) / 2
    seconds = 0.02 if request.get("rehearse") else _SECONDS
    count, times, loss = max(1, round(seconds / once)), [], None
    for _ in range(_TURNS):
        begun = time.perf_counter()
        loss = run(count)
        times.append((time.perf_counter() - begun) / count)
        yield {
            **found,
            "ms": 1e3 * statistics.median(times),
            "low_ms": 1e3 * min(times),
            "high_ms": 1e3 * max(times),
            "turns": len(times),
            "repetitions": count,
            "loss": loss,
            "peak_gb": _peak(request),
        }


def _started(request: dict[str, Any], work: Work) -> tuple[Any, Answer]:
    from benchmarks.worker import prepare

    begun = time.perf_counter()
    run, versions = prepare({"task": "train", **request}, work)
    run(1)
    return run, {"versions": versions, "first_s": time.perf_counter() - begun}


def _peak(request: dict[str, Any]) -> float | None:
    """Gigabytes of the device's memory that were in use at most; None if unknown."""
    if request["system"] == "torch":
        import torch

        there = torch.cuda.is_available()
        return 1e-9 * torch.cuda.max_memory_allocated() if there else None
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return 1e-9 * stats["peak_bytes_in_use"] if "peak_bytes_in_use" in stats else None


def _profile(request: dict[str, Any], work: Work) -> Iterator[Answer]:
    """Kernels of a step and how long the device is busy with them."""
    import jax

    run, found = _started(request, work)
    run(2)
    folder = Path(request["folder"])
    with jax.profiler.trace(str(folder)):
        run(_STEPS)
    yield {**found, "trace": str(folder), **kernels(folder, _STEPS)}


def kernels(folder: Path, steps: int) -> Answer:
    """What a trace says of a device's streams, for each step; empty if it has none."""
    count, busy, names = 0, 0.0, dict[str, list[float]]()
    for path in folder.rglob("*.trace.json.gz"):
        events = json.loads(gzip.decompress(path.read_bytes())).get("traceEvents", [])
        processes = {
            event["pid"]
            for event in events
            if event.get("name") == "process_name"
            and "/device:GPU" in str(event.get("args", {}).get("name"))
        }
        streams = {
            (event["pid"], event["tid"])
            for event in events
            if event.get("name") == "thread_name"
            and str(event.get("args", {}).get("name", "")).startswith("Stream")
        }
        for event in events:
            where = event.get("pid"), event.get("tid")
            if event.get("ph") != "X" or where[0] not in processes or where not in streams:
                continue
            count, busy = count + 1, busy + event.get("dur", 0)
            names.setdefault(event["name"], []).append(event.get("dur", 0))
    if not count:
        return {}
    longest = sorted(names.items(), key=lambda item: -sum(item[1]))[:12]
    return {
        "kernels_per_step": count / steps,
        "busy_ms_per_step": 1e-3 * busy / steps,
        "longest": [
            {"name": name[:80], "per_step": len(us) / steps, "ms": 1e-3 * sum(us) / steps}
            for name, us in longest
        ],
    }


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


if __name__ == "__main__":
    main()
