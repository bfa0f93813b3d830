"""How a text is cut to be scored: the windows of each protocol."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from charjax.text.batching import Batch, document_window, stream_window, stream_windows
from charjax.text.documents import Documents

Ids = Integer[np.ndarray, " symbols"]


def stateful_batches(ids: Ids, rows: int, length: int) -> Iterator[Batch]:
    """The windows of the stateful protocol, in order."""
    for window in range(stream_windows(len(ids), rows, length)):
        yield stream_window(ids, rows, length, window)


def document_batches(documents: Documents, rows: int, length: int) -> Iterator[Batch]:
    """The documents of a part, each read whole from its start.

    A row has those that begin in its share of all positions, so that what a document's
    score is does not depend on how many rows there are.
    """
    order, total = documents.order(), len(documents)
    starts = np.concatenate([[0], order.stops])
    begins = starts[np.searchsorted(starts, -(-np.arange(rows + 1) * total // rows))]
    for window in range(-(-int(np.diff(begins).max()) // length)):
        yield document_window(documents, order, begins, length, window)


def windowed_batches(ids: Ids, rows: int, window: int) -> Iterator[Batch]:
    """The windows of the windowed protocol, `rows` at a time."""
    positions = len(ids) - 1
    for first in range(0, positions, rows * window):
        index = first + np.arange(rows)[:, None] * window + np.arange(window)
        mask = index < positions
        index = np.where(mask, index, 0)
        inputs = np.where(mask, ids[index], 0).astype(np.int32)
        targets = np.where(mask, ids[index + 1], 0).astype(np.int32)
        yield Batch(inputs, targets, mask, np.ones((rows, 1), bool))
