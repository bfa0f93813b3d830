"""Texts at the edge of what a text is: one symbol, and more than any language has."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from subprocesses import command, peak_memory, run

from charjax.commands import cli


@pytest.mark.curves
def test_a_text_of_one_symbol_trains_evaluates_and_samples(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a" * 500)
    options = "--data.source text.txt --data.batch_size 8 --data.sequence_length 8"
    options += " --model.hidden_size 8 --model.num_layers 1 --train.steps 2"
    assert cli.main(f"train --workdir run {options}".split()) == 0
    assert "only one distinct symbol" in capsys.readouterr().err
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["loss"] for line in lines} == {0.0}
    assert (tmp_path / "run/curves.png").exists()
    assert cli.main(["evaluate", "--workdir", "run", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert score["nats_per_char"] == 0 and score["perplexity"] == 1
    for how in ("--temperature 0", "--prime aa --temperature 100"):
        assert cli.main(f"sample --workdir run --length 20 {how}".split()) == 0
        assert capsys.readouterr().out == "a" * (22 if "prime" in how else 20)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_150_000_symbols_take_little_memory(tmp_path):
    symbols = [chr(code) for code in range(0x20, 0x26000) if not 0xD800 <= code < 0xE000]
    symbols = symbols[:150_000]
    order = np.random.default_rng(0).permutation(np.arange(300_000) % 150_000)
    text = "".join(symbols[each] for each in order)
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    options = "--workdir run --data.source text.txt --data.batch_size 4 --train.steps 3"
    options += " --data.sequence_length 16 --model.hidden_size 16 --train.eval_rows 4"
    options += " --data.split 0.99 0.01 0"
    train = command("train.py", *options.split())
    environment = {**os.environ, "CHARJAX_CACHE_DIR": str(tmp_path / "cache")}
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(train, cwd=tmp_path, env=environment, stderr=said)
        (peak,) = peak_memory([process])
    message = (tmp_path / "said").read_text("utf-8", "replace")
    assert process.wait() == 0, message
    assert "150,000 symbols" in message and "are many" in message
    print(f"peak anonymous memory {peak / 2**20:.0f} MiB")
    # Parameters, gradients and moments are 41 MB each; a table of one-hot rows would be
    # 90 GB.
    assert 0 < peak < 1.2e9
    sample = ["sample", "--workdir", "run", "--length", "50", "--prime", text[:3]]
    done = run(*sample, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.decode()) == 53
