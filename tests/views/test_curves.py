"""curves.png: appears whole, whatever the history holds."""

import subprocess
import sys
import time

import pytest

from charjax.views import curves

pytestmark = pytest.mark.curves


def line(step, split="train", **fields):
    return {"step": step, "split": split, "loss": 4 / step + 1, **fields}


@pytest.mark.parametrize(
    "history",
    [
        [line(1)],
        [line(3, "validation")],
        [line(1), line(2, loss=None), line(3, loss=float("inf")), line(4, "test")],
        [line(s, learning_rate=s * 1e-3) for s in range(1, 50)] + [line(9, "validation")],
    ],
)
def test_any_history_is_drawn(tmp_path, history):
    path = tmp_path / "curves.png"
    path.write_text("old")
    curves.draw(history, path, "runs/中文 $x_{ \x1b\n $")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["curves.png"]


def test_a_backend_that_is_not_there_is_no_reason_not_to_draw(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    path = tmp_path / "curves.png"
    program = (
        "import os, sys; from pathlib import Path; from charjax.views.curves import draw\n"
        "draw([{'step': 1, 'split': 'train', 'loss': 2.0}], Path(sys.argv[1]), '')\n"
        "assert os.environ['MPLBACKEND'] == 'nonsense'"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True)
    assert path.exists()


def test_nothing_to_draw_leaves_no_file(tmp_path):
    curves.draw([line(1, loss=None)], tmp_path / "curves.png", "")
    assert list(tmp_path.iterdir()) == []


def test_a_long_history_is_thinned_but_keeps_its_spikes(tmp_path):
    history = [line(step, learning_rate=1e-3) for step in range(1, 100_001)]
    history[70_003]["loss"] = 9.0
    steps, low, high = curves._thinned(*curves._series(history, "train", "loss"))
    assert steps.size <= 1000
    assert high.max() == 9.0
    assert low.max() < 9.0
    curves.draw(history[:10], tmp_path / "curves.png", "")
    began = time.process_time()
    curves.draw(history, tmp_path / "curves.png", "")
    assert time.process_time() - began < 2


def test_smoothing_keeps_constants_and_ends():
    import numpy as np

    assert np.allclose(curves._smoothed(np.full(100, 2.0)), 2.0)
    values = np.random.default_rng(0).normal(size=200)
    smooth = curves._smoothed(values)
    assert (smooth[0], smooth[-1]) == pytest.approx((values[0], values[-1]))
    assert smooth.std() < values.std() / 2


def test_importing_is_light():
    script = (
        "import sys, charjax.views.curves, charjax.reporting.progress\n"
        "assert not {'matplotlib', 'rich.progress', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
