"""curves.png: a run's losses at a glance."""

import contextlib
import math
import os
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charjax.evaluation.units import bits
from charjax.storage.atomic import replacing

_POINTS = 1000
_TRAIN, _VALIDATION, _INK, _FAINT = "#4c78a8", "#d1495b", "#333333", "#bbbbbb"


def _figure(size: tuple[int, int]) -> tuple[Any, Any]:
    """A figure and its canvas: no global figure, no display, and nothing of matplotlib is
    imported before the first picture."""
    if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
        # It cannot be imported with a backend that there is not, and a picture in a file
        # needs none.
        backend = os.environ.pop("MPLBACKEND")
        try:
            import matplotlib
        finally:
            os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def draw(history: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw losses, and the learning rate if it varies, over steps as a PNG file.

    `history` is what `metrics.read` returns; other splits than train and validation, and
    losses that are None or not finite, are left out. A history with nothing to draw
    leaves no file.
    """
    train = _series(history, "train", "loss")
    validation = _series(history, "validation", "loss")
    rate = _series(history, "train", "learning_rate")
    if not train[0].size and not validation[0].size:
        return

    varies = rate[1].size > 1 and float(np.ptp(rate[1])) > 0
    figure, canvas = _figure((9, 6 if varies else 5))
    rows = figure.subplots(
        2 if varies else 1, sharex=True, squeeze=False, height_ratios=[5, 1][: 1 + varies]
    )
    axes = rows[0, 0]
    # Of a run that an earlier version began, only later lines have a unit.
    found = [line["unit"] for line in history if isinstance(line.get("unit"), str)]
    _draw_losses(axes, train, validation, found[-1] if found else "nats per character")
    axes.set_title(_one_line(title), loc="left", color=_INK, parse_math=False)
    if varies:
        steps, low, high = _thinned(*rate)
        rows[1, 0].plot(steps, (low + high) / 2, color=_INK, linewidth=1.2)
        rows[1, 0].set_ylabel("learning rate")
        rows[1, 0].set_ylim(bottom=0)
    rows[-1, 0].set_xlabel("step")
    for row in rows[:, 0]:
        _plain(row)
    # A title may name anything; a character the font lacks becomes a box, no more.
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        canvas.print_png(str(temporary))


def _draw_losses(axes: Any, train: Any, validation: Any, unit: str) -> None:
    steps, low, high = _thinned(*train)
    if steps.size:
        # Each bin goes down and up once, so that thinning hides no spike.
        axes.plot(
            np.repeat(steps, 2),
            np.stack([low, high], axis=1).ravel(),
            color=_TRAIN,
            alpha=0.3,
            linewidth=0.8,
        )
        label = f"training, last {train[1][-1]:.3f}"
        mark = "o" if steps.size == 1 else None
        middle = _smoothed((low + high) / 2)
        axes.plot(steps, middle, color=_TRAIN, marker=mark, label=label)
    steps, losses = validation
    if steps.size:
        best = int(np.argmin(losses))
        axes.plot(
            steps,
            losses,
            color=_VALIDATION,
            marker="o" if steps.size <= 60 else None,
            markersize=3.5,
            label=f"validation, last {losses[-1]:.3f}",
        )
        axes.plot(steps[best], losses[best], "o", color=_VALIDATION, markersize=7)
        axes.annotate(
            f"best {losses[best]:.3f} nats, {bits(losses[best]):.3f} bits\n"
            f"at step {steps[best]:,}",
            (steps[best], losses[best]),
            xytext=(0, 26),
            textcoords="offset points",
            horizontalalignment="right" if steps[best] > steps[-1] / 2 else "left",
            color=_VALIDATION,
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": _VALIDATION, "linewidth": 0.8},
        )
    axes.set_ylabel(unit)
    in_bits = axes.secondary_yaxis("right", functions=(bits, lambda b: b * math.log(2)))
    in_bits.set_ylabel(unit.replace("nats", "bits", 1), color=_INK)
    in_bits.tick_params(colors=_INK)
    in_bits.spines["right"].set_visible(False)
    axes.legend(frameon=False, loc="upper right")


def _plain(axes: Any) -> None:
    axes.grid(color=_FAINT, alpha=0.4, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.tick_params(colors=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _series(history: Sequence[dict[str, Any]], split: str, field: str) -> Any:
    """Steps and finite values of one field, in the order they were written."""
    points = [
        (line["step"], line[field])
        for line in history
        if line.get("split") == split
        and line.get(field) is not None
        and math.isfinite(line[field])
    ]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, np.int64), np.asarray(values, np.float64)


def _thinned(steps: Any, values: Any) -> Any:
    """At most about `_POINTS` bins: their first steps, lowest and highest values."""
    if not steps.size:
        return steps, values, values
    starts = np.arange(0, steps.size, math.ceil(steps.size / _POINTS))
    low = np.minimum.reduceat(values, starts)
    return steps[starts], low, np.maximum.reduceat(values, starts)


def _smoothed(values: Any) -> Any:
    """A centred mean over a twentieth of the points, narrower towards the ends."""
    reach = np.minimum(np.arange(values.size), np.arange(values.size)[::-1])
    reach = np.minimum(reach, values.size // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(values.size)
    return (total[middle + reach + 1] - total[middle - reach]) / (2 * reach + 1)


def _one_line(title: str) -> str:
    return "".join(" " if unicodedata.category(c)[0] == "C" else c for c in title)
