"""Stopped and resumed anywhere, a run ends with the bits of one that never stopped."""

import pytest
from comparison import timeless_metrics

from charjax import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    fit,
    inspect_run,
)

TEXT = "the quick brown fox jumps over the lazy dog. " * 50
STEPS = 30
CONFIG = Config(
    data=DataConfig(batch_size=8, sequence_length=16),
    model=ModelConfig(num_layers=2, hidden_size=16, dropout=0.2),
    optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", warmup_steps=0),
    train=TrainConfig(
        steps=STEPS,
        eval_every=5,
        eval_rows=4,
        checkpoint_every=8,
        log_every=1,
        sample_every=None,
    ),
)
# With the runs of `test_a_stopped_run_equals_one_never_stopped`, every pair of a cell, a
# batching and a precision.
PAIRS = [
    ("lstm", "windows", "bfloat16"),
    ("gru", "streams", "bfloat16"),
    ("gru", "windows", "float32"),
    ("rnn", "streams", "float32"),
]


def done(workdir):
    return inspect_run(workdir)["step"] if workdir.exists() else 0


def same_bits(tmp_path, stops, **changes):
    config = CONFIG.replace(**changes)
    if config.data.batching == "windows":
        # There is a window for each position.
        config = config.replace(**{"data.batch_size": 128})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = fit(config, whole, text=TEXT, quiet=True)
    epoch = result.config.optimizer.epoch_steps
    assert epoch is not None and 11 < epoch < 20
    for stop_at in sorted({*stops, epoch, STEPS - 1}):
        here = done(parts)
        stop = iter([False] * (stop_at - here - 1) + [True]).__next__
        fit(config, parts, text=TEXT, quiet=True, stop=stop)
        assert done(parts) == stop_at
    fit(config, parts, text=TEXT, quiet=True)
    # Once more at the last step, where there is nothing left to do.
    fit(config, parts, text=TEXT, quiet=True)
    assert inspect_run(parts)["digest"] == inspect_run(whole)["digest"]
    assert timeless_metrics(parts) == timeless_metrics(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.cell": "gru", "model.embedding_size": 5, "optimizer.schedule": "cosine"},
        {
            **{"model.cell": "rnn", "data.batching": "windows"},
            **{"optimizer.name": "muon", "train.precision": "bfloat16"},
        },
    ],
    ids=["lstm", "gru-embedding-cosine", "rnn-windows-muon-bfloat16"],
)
def test_a_stopped_run_equals_one_never_stopped(tmp_path, changes):
    # At a save, one after it, at the end of an epoch and one before the last step.
    same_bits(tmp_path, (8, 9), **changes)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "batching", "precision"), PAIRS)
def test_every_cell_batching_and_precision_is_exact(tmp_path, cell, batching, precision):
    same_bits(
        tmp_path,
        (1, 8, 9, 10, 11, 21),
        **{"model.cell": cell, "data.batching": batching, "train.precision": precision},
    )
