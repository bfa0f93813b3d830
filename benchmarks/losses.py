"""The losses of several runs in one picture, and their last values.

`python -m benchmarks.losses runs/float32 runs/bfloat16 --plot losses.png`
"""

import argparse
from pathlib import Path

import numpy as np

from charjax.reporting.metrics import read
from charjax.storage.run_directory import METRICS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses")
    parser.add_argument("workdirs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "validation"), help="only this one")
    options = parser.parse_args()

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for workdir in options.workdirs:
        for split, alpha, marker in (("train", 0.4, ""), ("validation", 1.0, ".")):
            if options.split not in (None, split):
                continue
            lines = [line for line in read(workdir / METRICS) if line["split"] == split]
            steps = [line["step"] for line in lines]
            losses = np.array([line["loss"] for line in lines], float)
            label = f"{workdir.name}, {split}"
            axes.plot(steps, losses, label=label, alpha=alpha, marker=marker)
            last = losses[-10:] if split == "train" else losses[-1:]
            print(f"{label}: {last.mean():.4f} at step {steps[-1]:,}")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per character")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(options.plot))


if __name__ == "__main__":
    main()
