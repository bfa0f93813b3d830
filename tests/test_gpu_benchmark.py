"""What a GPU would be asked, rehearsed on a CPU."""

import gzip
import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import jax
import pytest
from subprocesses import ROOT

from benchmarks.gpu import command, worker
from benchmarks.gpu.rows import DEVICE, Row, rows

ROWS = {row.name: row for row in rows(torch=True)}
SOME = [
    ROWS[name]
    for name in (
        "device",
        "gpu float32 against plain",
        "canonical: what auto takes in bfloat16",
        "island: charjax gpu bfloat16",
        "canonical: jax.experimental.rnn tf32",
        "sampling, 256 streams: charjax bfloat16",
    )
]


@pytest.fixture
def ask(monkeypatch):
    """Asks a row in this process."""
    before = jax.config.jax_default_matmul_precision
    monkeypatch.setattr(worker, "CELLS", ("rnn",))

    def ask(row, seconds, out, rehearse):
        *_, answer = worker.answers(command.request_of(row, out, rehearse))
        assert jax.config.jax_default_matmul_precision == before
        return {**answer, "status": "left out" if "left_out" in answer else "done"}

    return ask


def soon():
    return time.monotonic() + 60


def test_a_rehearsal_answers_each_kind_of_row(ask, tmp_path):
    found = command.ask_all(SOME, [], soon(), tmp_path, True, ask)
    lines = command.read(tmp_path / command.RESULTS)
    assert lines == found == json.loads((tmp_path / command.ALL).read_text())
    answers = {line["row"]: line for line in lines}
    assert [line["status"] for line in lines] == 4 * ["done"] + ["left out", "done"]
    assert answers["gpu float32 against plain"]["cells"]["rnn"]["error"] < 1e-5
    assert answers["canonical: what auto takes in bfloat16"]["chosen"] == "scan"
    for name in ("island: charjax gpu bfloat16", "sampling, 256 streams: charjax bfloat16"):
        assert 0 < answers[name]["low_ms"] <= answers[name]["ms"]
    assert math.isfinite(answers["island: charjax gpu bfloat16"]["loss"])
    page = (tmp_path / command.TABLE).read_text()
    assert "A rehearsal on a CPU" in page and "### island: 1 x 512 LSTM, 64 x 40" in page
    assert "| gpu | float32 | rnn |" in page and "it needs a GPU" in page


def test_what_was_asked_is_not_asked_again_and_a_failure_once_more(tmp_path):
    asked = []

    def ask(row, seconds, out, rehearse):
        asked.append(row.name)
        if row.name == "device":
            return {"status": "failed", "reason": "no device"}
        return {"status": "done", "platform": "cpu"}

    two = [Row("device", DEVICE), Row("other", DEVICE)]
    found = []
    for _ in range(3):
        found += command.ask_all(two, found, soon(), tmp_path, True, ask)
    assert asked == ["device", "other", "device"]
    assert "| device | failed | no device |" in (tmp_path / command.TABLE).read_text()


def test_a_row_that_the_end_cuts_off_is_asked_another_time(tmp_path):
    def ask(row, seconds, out, rehearse):
        assert seconds < row.seconds
        return {"status": "failed", "timed_out": True, "reason": "no answer"}

    row = Row("device", DEVICE)
    (line,) = command.ask_all([row], [], soon(), tmp_path, True, ask)
    assert line["status"] == "cut off"
    assert command.ask_all([row], [line] * 5, soon(), tmp_path, True, ask)
    assert command.ask_all([row], [], time.monotonic() + 2, tmp_path, True, ask) == []


def test_a_row_that_fails_or_hangs_is_survived(tmp_path):
    row = replace(ROWS["device"], request={"kind": "nonsense"})
    found = command.in_a_process(row, 60, tmp_path, True)
    assert found == {"status": "failed", "reason": "KeyError: 'nonsense'"}
    begun = time.monotonic()
    found = command.in_a_process(ROWS["device"], 0.1, tmp_path, True)
    assert found["status"] == "failed" and found["timed_out"]
    assert time.monotonic() - begun < 10


def test_a_line_that_was_torn_off_does_not_count(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"row": "one"}\n{"row": "tw')
    assert command.read(path) == [{"row": "one"}]


def test_another_runs_results_are_not_written_over(tmp_path, capsys):
    (tmp_path / command.RESULTS).write_text('{"row": "one"}\n')
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path)])
    assert "give --continue" in capsys.readouterr().err


def test_names_are_unique_and_the_first_rows_are_about_being_right():
    for torch in (False, True):
        names = [row.name for row in rows(torch)]
        assert len(names) == len(set(names))
        assert any("PyTorch" in name for name in names) == torch
    assert ["against plain" in name for name in names[1:7]] == [True] * 6


def test_a_trace_of_a_gpu_is_counted(tmp_path):
    def event(pid, tid, name, **more):
        return {"pid": pid, "tid": tid, "name": name, **more}

    def named(pid, tid, what, name):
        return event(pid, tid, what, ph="M", args={"name": name})

    events = [
        named(1, 0, "process_name", "/device:GPU:0 (H100)"),
        named(1, 7, "thread_name", "Stream #7(Compute)"),
        named(1, 8, "thread_name", "XLA Ops"),
        named(2, 7, "thread_name", "Stream of a host"),
        *[event(1, 7, "gemm", ph="X", dur=20.0)] * 4,
        event(1, 7, "fusion", ph="X", dur=10.0),
        event(1, 8, "dot", ph="X", dur=99.0),
        event(2, 7, "python", ph="X", dur=99.0),
    ]
    folder = tmp_path / "plugins"
    folder.mkdir()
    trace = gzip.compress(json.dumps({"traceEvents": events}).encode())
    (folder / "host.trace.json.gz").write_bytes(trace)
    found = worker.kernels(tmp_path, 2)
    assert found["kernels_per_step"] == 2.5 and found["busy_ms_per_step"] == 0.045
    assert found["longest"][0] == {"name": "gemm", "per_step": 2.0, "ms": 0.04}
    assert worker.kernels(tmp_path / "none", 2) == {}


def test_it_needs_jax_flax_and_optax_alone():
    program = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tyro", "pooch", "matplotlib", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import benchmarks.__main__
from benchmarks import charjax_rows, cudnn_rows, flax_rows, floor, worker
from benchmarks.gpu import command
from benchmarks.gpu import worker
from charjax.devices import proof
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
