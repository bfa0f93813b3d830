"""What the README promises of its first line; minutes, so marked slow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORD = re.compile(r"[A-Za-z]+")


def longest_copied(sample: str, corpus: str) -> str:
    """The longest passage of the sample that stands in the corpus."""
    best = ""
    for start in range(len(sample)):
        while (passage := sample[start : start + len(best) + 1]) in corpus:
            if start + len(best) + 1 > len(sample):
                break
            best = passage
    return best


@pytest.mark.slow
def test_the_default_run_learns_and_writes_words(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}

    def run(*command):
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=environment,
            check=True,
            capture_output=True,
        ).stdout.decode()

    run(ROOT / "train.py")
    lines = (tmp_path / "runs/default/metrics.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    validation = min(x["loss"] for x in history if x["split"] == "validation")
    train = [x["loss"] for x in history if x["split"] == "train"][-10:]
    corpus = (tmp_path / "runs/default/corpus.txt").read_text("utf-8")
    known = set(WORD.findall(corpus))
    report = [f"validation {validation:.4f}, training {sum(train) / len(train):.4f} nats"]
    for temperature in (1.0, 0.8):
        # One text of 2,000 characters is off by up to 5 % of its words either way.
        options = ("--length", 2000, "--num-samples", 8, "--temperature", temperature)
        sample = run(ROOT / "sample.py", *options)
        words = WORD.findall(sample)
        share = sum(word in known for word in words) / len(words)
        copied = longest_copied(sample[:2000], corpus)
        report.append(
            f"temperature {temperature}: {share:.1%} of {len(words)} words occur in the "
            f"text; longest passage copied: {len(copied)} characters, {copied!r}"
        )
        assert share >= (0.9 if temperature == 0.8 else 0.8)
    print("\n".join(report))
    assert validation <= 1.35
