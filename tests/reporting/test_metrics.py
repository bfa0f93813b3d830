"""metrics.jsonl and samples.txt: one line each, cut back on resume."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from charjax.errors import InputError
from charjax.reporting import metrics, samples


def write(path, *lines):
    with metrics.MetricsFile(path) as file:
        for line in lines:
            file.write(**line)


def test_lines_are_there_at_once_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with metrics.MetricsFile(path) as file:
        file.write(step=1, split="train", loss=np.float32(0.5), count=jnp.int32(3))
        assert metrics.read(path) == [
            {"step": 1, "split": "train", "loss": 0.5, "count": 3}
        ]
        file.write(step=2, note="line\nend \u2028 中")
    assert metrics.read(path)[1] == {"step": 2, "note": "line\nend \u2028 中"}
    assert len(path.read_text().splitlines()) == 2


def test_a_loss_that_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, *({"loss": value} for value in (float("nan"), np.float32("inf"), jnp.nan)))

    def refuse(name):
        raise AssertionError(name)

    for line in path.read_text().splitlines():
        assert json.loads(line, parse_constant=refuse) == {"loss": None}


@pytest.mark.parametrize("tail", ["", '{"step": 3, "lo', '{"step": 3}', "\xff"])
def test_truncation_drops_later_steps_and_a_half_written_line(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write(path, {"step": 1}, {"step": 2}, {"step": 3}, {"step": 10})
    with open(path, "a", encoding="latin-1") as file:
        file.write(tail)
    assert [line["step"] for line in metrics.read(path)] == [1, 2, 3, 10]
    metrics.truncate_after(path, 2)
    write(path, {"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.mark.parametrize("damage", ["{", "3", "", "\xff"])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + damage + '\n{"step": 2}\n', encoding="latin-1")
    for read in (metrics.read, lambda path: metrics.truncate_after(path, 1)):
        with pytest.raises(InputError, match=r"metrics\.jsonl, line 2, is damaged"):
            read(path)


def test_no_file_is_no_lines(tmp_path):
    assert metrics.read(tmp_path / "absent") == []
    metrics.truncate_after(tmp_path / "absent", 3)
    samples.truncate_after(tmp_path / "absent", 3)
    assert os.listdir(tmp_path) == []


def test_samples_are_cut_at_the_first_later_step(tmp_path):
    path = tmp_path / "samples.txt"
    odd = "--- step 99 ---\r\n中 \ud800\x00 --- step 98 ---\n--- step 97 ---"
    for step in (1, 2):
        samples.append(path, step, odd)
    before = path.read_bytes()
    samples.truncate_after(path, 2)
    assert path.read_bytes() == before
    for step in (9, 10):
        samples.append(path, step, "later")
    samples.truncate_after(path, 2)
    assert path.read_bytes() == before
    assert before.startswith(b"--- step 1 ---\n")
    assert "中".encode() in before
    samples.truncate_after(path, 0)
    assert path.read_bytes() == b""
