"""A text much larger than the memory it may take, through the real command."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from subprocesses import command, free_address, peak_memory

FILES = 10
OPTIONS = [
    *("--data.source", "texts", "--model.hidden_size", "32", "--train.steps", "20"),
    *("--train.eval_rows", "256", "--data.split", "0.99", "0.01", "0"),
]

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs /proc"
)


def write(folder, megabytes):
    """Files of one line each, as a folder."""
    random = np.random.default_rng(0)
    words = [bytes(random.integers(97, 123, 6).tolist()) for _ in range(1000)]
    folder.mkdir()
    for number in range(FILES):
        with open(folder / f"{number}.txt", "wb") as file:
            for _ in range(megabytes // FILES):
                file.write(b" ".join(words[k] for k in random.integers(1000, size=150_000)))
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert total > 1e6 * megabytes


@pytest.mark.parametrize(
    "count", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["alone", "two"]
)
def test_a_large_text_needs_less_than_a_gigabyte(tmp_path, request, count):
    megabytes = request.config.getoption("--megabytes")
    write(tmp_path / "texts", megabytes)
    meeting = free_address()
    environment = {**os.environ, "CHARJAX_CACHE_DIR": str(tmp_path / "cache")}
    began, processes = time.monotonic(), []
    for index in range(count):
        together = ("--distributed", f"{meeting},{count},{index}") if count > 1 else ()
        train = command("train.py", *OPTIONS, *together)
        with open(tmp_path / f"{index}.log", "wb") as log:
            process = subprocess.Popen(train, cwd=tmp_path, env=environment, stderr=log)
        processes.append(process)
    peaks = peak_memory(processes)
    said = [(tmp_path / f"{index}.log").read_text() for index in range(count)]
    shown = ", ".join(f"{peak / 2**20:.0f}" for peak in peaks)
    print(f"peak anonymous memory {shown} MiB, {time.monotonic() - began:.0f} s")
    print(*(line for line in said[0].splitlines() if " GB" in line), sep="\n")
    assert [process.returncode for process in processes] == [0] * count, said
    assert min(peaks) > 0 and max(peaks) < 1e9
    # One of them wrote what both read.
    entries = [path for path in (tmp_path / "cache" / "tokens").iterdir()]
    assert len(entries) == 2 and {"index"} < {path.name for path in entries}
