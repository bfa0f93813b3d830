import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charjax.config.data import DataConfig
from charjax.errors import InputError
from charjax.text import batching
from charjax.text.batching import batch_at, batches_per_epoch, check_length
from charjax.text.permutation import permuted


@given(st.integers(2, 90), st.integers(1, 100), st.integers(1, 30))
def test_a_pass_of_streams_has_every_position_once(n, rows, length):
    ids = np.arange(1, n + 1)
    seen = []
    state = [None] * rows
    for window in range(batching.stream_windows(n, rows, length)):
        batch = batching.stream_window(ids, rows, length, window)
        assert (
            batch.inputs.shape == batch.targets.shape == batch.mask.shape == (rows, length)
        )
        assert batch.reset.tolist() == [[window == 0]] * rows
        assert (batch.targets[batch.mask] == batch.inputs[batch.mask] + 1).all()
        assert not batch.inputs[~batch.mask].any() and not batch.targets[~batch.mask].any()
        for row in range(rows):
            for position in batch.inputs[row][batch.mask[row]].tolist():
                assert state[row] in (None, position - 1)
                state[row] = position
                seen.append(position)
    assert sorted(seen) == list(range(1, n))


@given(st.integers(2, 90), st.integers(1, 40), st.integers(1, 30), st.integers(0, 3))
def test_an_epoch_of_windows_has_every_window_once(n, rows, length, epoch):
    ids = np.arange(1, n + 1)
    starts = []
    for window in range(batching.random_windows(n, rows, length)):
        batch = batching.random_window(ids, rows, length, window, 5, epoch)
        assert batch.reset.all()
        present = batch.mask.all(axis=1)
        assert np.array_equal(present, batch.mask.any(axis=1))
        expected = batch.inputs[present][:, :1] + np.arange(length)
        assert np.array_equal(batch.inputs[present], expected)
        assert np.array_equal(batch.targets[present], expected + 1)
        assert not batch.inputs[~present].any()
        starts += batch.inputs[present][:, 0].tolist()
    assert sorted(starts) == list(range(1, max(n - length, 0) + 1))


@given(st.integers(1, 700), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_the_permutation_is_a_bijection(total, seed, epoch):
    places = permuted(np.arange(total), total, seed, epoch)
    assert np.array_equal(np.sort(places), np.arange(total))


def test_the_permutation_mixes():
    total = 100_003
    order = np.arange(total)
    one = permuted(order, total, 0, 0)
    for other in (
        order,
        permuted(order, total, 0, 1),
        permuted(order, total, 1, 0),
    ):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    # Neighbours end up far apart: two random places differ by a third of the total.
    assert abs(np.abs(np.diff(one)).mean() / total - 1 / 3) < 0.01
    # A few places alone are the same as among all, and so is a huge text's.
    assert np.array_equal(permuted(order[7:9], total, 0, 0), one[7:9])
    assert 0 <= permuted(np.array([10**12]), 10**12 + 1, 0, 0)[0] <= 10**12


def test_small_permutations_reach_every_order():
    orders = {tuple(permuted(np.arange(3), 3, seed, 0).tolist()) for seed in range(200)}
    assert len(orders) == 6


@settings(max_examples=30)
@given(st.data())
def test_hosts_get_the_rows_of_the_whole_batch(draw):
    data = DataConfig(
        batching=draw.draw(st.sampled_from(["streams", "windows"])),
        batch_size=draw.draw(st.integers(1, 12)),
        sequence_length=draw.draw(st.integers(1, 9)),
    )
    ids = np.arange(draw.draw(st.integers(data.sequence_length + 1, 120)))
    step = draw.draw(st.integers(0, 200))
    cut = draw.draw(st.integers(0, data.batch_size))
    whole = batch_at(ids, data, 3, step)
    parts = [
        batch_at(ids, data, 3, step, rows) for rows in ((0, cut), (cut, data.batch_size))
    ]
    for index in range(4):
        assert np.array_equal(np.concatenate([part[index] for part in parts]), whole[index])


def test_steps_go_on_through_the_epochs():
    ids = np.arange(50, dtype=np.uint8)
    streams = DataConfig(batch_size=3, sequence_length=5)
    per_epoch = batches_per_epoch(50, streams)
    assert per_epoch == 4
    for step in range(per_epoch):
        first, second = (batch_at(ids, streams, 0, s) for s in (step, step + per_epoch))
        assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
        assert first.reset.all() == (step == 0)
    windows = DataConfig(batch_size=3, sequence_length=5, batching="windows")
    per_epoch = batches_per_epoch(50, windows)
    assert per_epoch == 15
    first, again, later = (batch_at(ids, windows, 0, s) for s in (2, 2, 2 + per_epoch))
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, later.inputs)
    assert first.inputs.dtype == first.targets.dtype == np.int32


def test_texts_too_short_are_refused_with_what_fits():
    data = DataConfig(batch_size=8, sequence_length=10)
    check_length(81, data, "train")
    with pytest.raises(
        InputError, match=r"need 81 .* are 80\..* 7 with .*length 10 or .* 9,"
    ):
        check_length(80, data, "train")
    with pytest.raises(InputError, match=r"batch_size 1 with .*length 2,"):
        check_length(3, data, "train")
    check_length(72, DataConfig(batch_size=7, sequence_length=10), "train")
    windows = DataConfig(batch_size=8, sequence_length=10, batching="windows")
    check_length(18, windows, "train")
    with pytest.raises(InputError, match=r"need 18 .* are 17"):
        check_length(17, windows, "train")
    with pytest.raises(InputError, match=r"2\s*are needed"):
        check_length(1, windows, "train")
    with pytest.raises(InputError, match="need"):
        batch_at(np.arange(10), windows, 0, 0)
    with pytest.raises(InputError, match="needed"):
        batch_at(np.arange(1), data, 0, 0)


def test_other_splits_need_two_symbols_or_no_share():
    data = DataConfig(split=(0.9, 0.1, 0.0))
    check_length(2, data, "validation")
    check_length(0, data, "test")
    for n, split in ((1, "validation"), (0, "validation"), (1, "test")):
        with pytest.raises(InputError, match=rf"data.split .* {split}"):
            check_length(n, data, split)


@pytest.mark.parametrize("kind", ["streams", "windows"])
def test_a_batch_takes_well_under_a_millisecond(kind):
    ids = np.zeros(2_000_000, np.uint8)
    data = DataConfig(batch_size=128, sequence_length=100, batching=kind)
    times = []
    for step in range(60):
        start = time.perf_counter()
        batch_at(ids, data, 0, step)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3
