"""What saving costs a run: the canonical work without saves, with Orbax alone, and with
manifest, fsync and verification, taking turns in one process.

`python -m benchmarks.saves`
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from benchmarks.charjax_rows import training
from benchmarks.work import CANONICAL
from charjax.commands.allocator import keep_freed_memory
from charjax.storage import atomic, manifest, retention
from charjax.storage.saver import Saver
from charjax.training.state import initial_state

STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saves")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--directory", help="where to save; the default is temporary")
    options = parser.parse_args()
    keep_freed_memory()
    run, _ = training(CANONICAL, options.precision)
    config = CANONICAL.config(options.precision)
    state = jax.jit(lambda key: initial_state(config, CANONICAL.vocab_size, key))(
        jax.random.key(0)
    )
    items = {"params": state.params, "opt_state": state.opt_state, "carry": state.carry}
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(items))
    # Orbax alone: what is ours replaced by nothing.
    alone = {
        (manifest, "seal"): lambda directory: None,
        (manifest, "damage"): lambda directory: None,
        (retention, "sync"): lambda path: None,
        (atomic, "sync"): lambda path: None,
    }
    seconds: dict[str, list[float]] = {"no saves": [], "Orbax alone": [], "charjax": []}
    run(2)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for turn in range(options.turns):
            for name, times in seconds.items():
                patches = [
                    mock.patch.object(*where, new)
                    for where, new in alone.items()
                    if name == "Orbax alone"
                ]
                for patch in patches:
                    patch.start()
                with Saver(Path(folder) / name) as kept:
                    begun = time.perf_counter()
                    if name != "no saves":
                        kept.save(turn, items, {"validation_loss": None})
                    run(STEPS)
                    kept.wait()
                    times.append(time.perf_counter() - begun)
                for patch in patches:
                    patch.stop()
    base = statistics.median(seconds["no saves"])
    print(f"{size / 1e6:.0f} MB a save, {options.precision}; {STEPS} steps and one save:")
    for name, times in seconds.items():
        median = statistics.median(times)
        share = (median - base) / (base / STEPS * 100)
        print(
            f"{name:12} {median:.3f} s ({min(times):.3f} to {max(times):.3f}); "
            f"a save each 100 steps costs {share:+.2%} of the run"
        )


if __name__ == "__main__":
    main()
