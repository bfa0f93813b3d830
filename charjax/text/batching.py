"""Batches as a pure function of ids, seed and step, computed with numpy.

Position p of a text of n symbols is the pair of an input, ids[p], and its target,
ids[p + 1]: there are n - 1. Of documents each symbol is a target, the first of each after
the start symbol: there are n. Nothing is kept between calls but a table of documents that
could be made anew, so the place in the data is the step number, and each host can ask for
only its rows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from charjax.config.checks import refuse
from charjax.config.data import SPLITS, DataConfig, Split
from charjax.errors import InputError, counted
from charjax.text.documents import Documents, Order
from charjax.text.permutation import permuted


class Batch(NamedTuple):
    """One window of every row: `b` rows, `t` positions.

    `inputs` and `targets` are int32 `[b, t]`, 0 where masked; `mask` is bool `[b, t]`,
    the positions that count; `reset` is bool, where the recurrent state becomes zero before
    a position: `[b, t]`, or `[b, 1]` where only the first one can ask for it. NumPy arrays
    on the host; the same structure holds them on devices.
    """

    inputs: Any
    targets: Any
    mask: Any
    reset: Any


def stream_windows(n: int, rows: int, sequence_length: int) -> int:
    """How many windows take `rows` contiguous rows through a text of `n` symbols once.

    >>> stream_windows(n=21, rows=2, sequence_length=4)
    3
    """
    return _ceil(_ceil(max(n - 1, 0), rows), sequence_length)


def stream_window(
    ids: np.ndarray,
    rows: int,
    sequence_length: int,
    window: int,
    row_range: tuple[int, int] | None = None,
) -> Batch:
    """Window `window` of a text cut into contiguous rows, or of some of those rows.

    The positions are cut into `rows` rows of equal length, the last ones shorter or empty;
    a window is the next `sequence_length` positions of each. What lies beyond a row's end
    is masked, so the windows of a pass hold every position exactly once. Rows begin from
    zero state at window 0 and go on from there.

    >>> batch = stream_window(np.arange(8), rows=2, sequence_length=3, window=1)
    >>> batch.inputs.tolist(), batch.reset.tolist()
    ([[3, 0, 0], [0, 0, 0]], [[False], [False]])
    >>> batch.mask.tolist()
    [[True, False, False], [False, False, False]]
    """
    first, last = row_range or (0, rows)
    positions = max(len(ids) - 1, 0)
    row_length = _ceil(positions, rows)
    columns = np.arange(sequence_length) + window * sequence_length
    starts = np.arange(first, last)[:, None] * row_length
    indices = starts + columns
    mask = (columns < row_length) & (indices < positions)
    reset = np.full((last - first, 1), window == 0)
    return _gather(ids, indices, mask, reset)


def random_windows(n: int, rows: int, sequence_length: int) -> int:
    """How many batches of `rows` windows hold each window of a text once.

    >>> random_windows(n=21, rows=4, sequence_length=10)
    3
    """
    return _ceil(max(n - sequence_length, 0), rows)


def random_window(
    ids: np.ndarray,
    rows: int,
    sequence_length: int,
    window: int,
    seed: int,
    epoch: int,
    row_range: tuple[int, int] | None = None,
) -> Batch:
    """Batch `window` of an epoch over all windows of a text, shuffled, from zero state.

    A window may start at any of the `len(ids) - sequence_length` places; an epoch has
    each once, in an order given by `seed` and `epoch`. Rows that the last batch of an
    epoch has no window for are masked.

    >>> batch = random_window(np.arange(9), 2, 3, window=0, seed=0, epoch=0)
    >>> batch.targets - batch.inputs
    array([[1, 1, 1],
           [1, 1, 1]], dtype=int32)
    """
    first, last = row_range or (0, rows)
    total = max(len(ids) - sequence_length, 0)
    order = np.arange(first, last) + window * rows
    present = order < total
    starts = np.zeros(last - first, np.int64)
    starts[present] = permuted(order[present], total, seed, epoch)
    indices = starts[:, None] + np.arange(sequence_length)
    mask = np.broadcast_to(present[:, None], indices.shape).copy()
    return _gather(ids, indices, mask, np.ones((last - first, 1), bool))


def document_window(
    documents: Documents,
    order: Order,
    begins: np.ndarray,
    sequence_length: int,
    window: int,
    row_range: tuple[int, int] | None = None,
) -> Batch:
    """Window `window` of documents one after the other, cut into rows.

    `begins` has the position at which each row begins, and one more: where the last one
    ends. A document may be cut by the end of a row, as by that of a window. The state is
    zero before each document, and where a row begins.

    >>> from charjax.text.vocabulary import Vocabulary
    >>> documents = Documents.of(["no", "so"], Vocabulary("characters", "nos", True))
    >>> order, begins = documents.order(), np.array([0, 4, 6])
    >>> batch = document_window(documents, order, begins, sequence_length=4, window=0)
    >>> batch.inputs.tolist(), batch.reset.tolist()[0]
    ([[3, 0, 1, 3], [2, 1, 0, 0]], [True, False, False, True])
    >>> batch.targets.tolist()
    [[0, 1, 4, 2], [1, 4, 0, 0]]
    """
    first, last = row_range or (0, len(begins) - 1)
    columns = np.arange(sequence_length) + window * sequence_length
    positions = begins[first:last, None] + columns
    mask = positions < begins[first + 1 : last + 1, None]
    positions = np.where(mask, positions, 0)
    ranks = np.searchsorted(order.stops, positions, side="right")
    number = order.documents[ranks].astype(np.int64)
    # As far before the end of its document in the order as in the text.
    indices = documents.stops[number] - (order.stops[ranks] - positions)
    fresh = indices == np.where(number > 0, documents.stops[number - 1], 0)
    before = np.where(fresh, documents.start, documents.ids[indices - 1])
    inputs = np.where(mask, before, 0).astype(np.int32)
    targets = np.where(mask, documents.ids[indices], 0).astype(np.int32)
    return Batch(inputs, targets, mask, mask & (fresh | (columns == 0)))


def batches_per_epoch(n: int, data: DataConfig) -> int:
    """Batches in one pass over a training text of `n` symbols, or over documents that have
    `n` with their ends.

    Raises InputError where the text has none at all.

    >>> batches_per_epoch(1_786_700, DataConfig())
    873
    """
    symbols = n + 1 if data.has_documents else n
    count = _windows_of(data)(symbols, data.batch_size, data.sequence_length)
    if count == 0:
        check_length(n, data, "train")
    return count


def batch_at(
    ids: np.ndarray | Documents,
    data: DataConfig,
    seed: int,
    step: int,
    row_range: tuple[int, int] | None = None,
) -> Batch:
    """The batch of a training step, or `row_range` (from, up to) of its rows.

    `step` counts from 0 and on through the epochs. The shape is always
    `[data.batch_size or fewer rows, data.sequence_length]`. Documents come in an order
    given by `seed` and epoch, and the state is zero before each: `reset` is `[b, t]`.

    >>> data = DataConfig(batch_size=2, sequence_length=3)
    >>> batch_at(np.arange(13), data, seed=0, step=3).inputs.tolist()
    [[3, 4, 5], [9, 10, 11]]
    """
    if isinstance(ids, Documents) != data.has_documents:
        remedy = f"`ids` is of type {type(ids).__name__}; with Documents name what they are"
        refuse("data.documents", data.documents, remedy)
    epoch, window = divmod(step, batches_per_epoch(len(ids), data))
    if isinstance(ids, Documents):
        rows, length = data.batch_size, len(ids)
        begins = np.minimum(np.arange(rows + 1) * _ceil(length, rows), length)
        order = _order(ids, seed, epoch)
        return document_window(ids, order, begins, data.sequence_length, window, row_range)
    if data.batching == "windows":
        return random_window(
            ids, data.batch_size, data.sequence_length, window, seed, epoch, row_range
        )
    return stream_window(ids, data.batch_size, data.sequence_length, window, row_range)


@functools.lru_cache(maxsize=1)
def _order(documents: Documents, seed: int, epoch: int) -> Order:
    # The table of an epoch takes far longer to make than a batch.
    return documents.order(seed, epoch)


def check_length(n: int, data: DataConfig, split: Split) -> None:
    """Refuse a split of `n` symbols that is too short, with what would fit.

    Training needs one whole batch: batch_size * sequence_length positions for streams,
    batch_size windows for windows. The others need 2 symbols, or one document, or a share
    of 0.

    >>> check_length(100, DataConfig(batch_size=4, sequence_length=24), "train")
    """
    rows, length, unit = data.batch_size, data.sequence_length, data.vocabulary
    share, first = data.split[SPLITS.index(split)], 1
    if data.has_documents:
        # Each symbol of documents is predicted, the first ones too.
        unit, first = "symbols", 0
    if n < 1 + first:
        if n == 0 and share == 0:
            return
        left, needed = f"{counted(n, unit)} for {split}, and at least 2 are", "longer text"
        if data.has_documents:
            left, needed = f"no document for {split}, and at least 1 is", "more documents"
        raise InputError(
            f"data.split is {data.split!r}: it leaves {left} needed; give "
            f"{'a ' if first else ''}{needed}, or other shares."
        )
    if split != "train":
        return
    if data.batching == "streams":
        needed = rows * length + first
        fitting = [((n - first) // length, length), (rows, (n - first) // rows)]
    else:
        needed = rows + length
        fitting = [(n - length, length), (rows, n - rows)]
    if n >= needed:
        return
    possible = [pair for pair in fitting if min(pair) >= 1] or [(1, n - first)]
    advice = " or ".join(
        f"data.batch_size {rows} with data.sequence_length {length}"
        for rows, length in possible
    )
    raise InputError(
        f"data.batch_size is {rows} and data.sequence_length {length}: {data.batching} of "
        f"that size need {needed:,} {unit} to train on, and there are {n:,}. Give a longer "
        f"text, or {advice}, which would fit."
    )


def _windows_of(data: DataConfig) -> Callable[[int, int, int], int]:
    return random_windows if data.batching == "windows" else stream_windows


def _gather(
    ids: np.ndarray, indices: np.ndarray, mask: np.ndarray, reset: np.ndarray
) -> Batch:
    if len(ids) < 2:
        zeros = np.zeros(indices.shape, np.int32)
        return Batch(zeros, zeros.copy(), mask, reset)
    plain = np.asarray(ids)
    indices = np.where(mask, indices, 0)
    inputs = np.where(mask, plain[indices], 0).astype(np.int32)
    targets = np.where(mask, plain[indices + 1], 0).astype(np.int32)
    return Batch(inputs, targets, mask, reset)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
