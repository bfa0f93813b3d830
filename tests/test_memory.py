"""A text much larger than the memory it may take, through the real command."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_large_text_in_one_line_needs_less_than_a_gigabyte(tmp_path, request):
    megabytes = request.config.getoption("--megabytes")
    random = np.random.default_rng(0)
    words = [bytes(random.integers(97, 123, 6).tolist()) for _ in range(1000)]
    with open(tmp_path / "big.txt", "wb") as file:
        for _ in range(megabytes):
            file.write(b" ".join(words[k] for k in random.integers(1000, size=150_000)))
    assert (tmp_path / "big.txt").stat().st_size > 1e6 * megabytes
    command = [sys.executable, str(ROOT / "train.py"), "--data.source", "big.txt"]
    command += [
        "--model.hidden_size",
        "32",
        "--train.steps",
        "20",
        "--train.eval_rows",
        "256",
    ]
    command += ["--data.split", "0.99", "0.01", "0"]
    environment = {**os.environ, "CHARJAX_CACHE_DIR": str(tmp_path / "cache")}
    peak = 0
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            if found := re.search(r"RssAnon:\s+(\d+) kB", status):
                peak = max(peak, int(found[1]))
            time.sleep(0.02)
        assert process.stderr is not None
        said = process.stderr.read().decode()
    print(f"peak anonymous memory {peak / 1024:.0f} MiB")
    assert process.returncode == 0, said
    assert 0 < peak < 1e6
