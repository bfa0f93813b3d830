"""A split or a text scored: every character after the first, each exactly once.

Two protocols. *stateful*: the text is cut into `rows` contiguous rows; each starts from
zero state with the character before it as input and carries its state to its end.
*windowed*: windows of `window` characters, each from zero state, every position scored,
so that numbers compare with models of limited context. Documents are scored whole, from
the first character after the start to the end, whatever the rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np

from charjax.config.checks import AtLeast, checked, refuse
from charjax.config.schema import Config
from charjax.devices import memory, placement
from charjax.devices import mesh as meshes
from charjax.devices.backend import computing
from charjax.errors import InputError, counted
from charjax.evaluation import units
from charjax.evaluation.dynamic import Learning, dynamic_nats
from charjax.evaluation.protocols import (
    Ids,
    document_batches,
    stateful_batches,
    windowed_batches,
)
from charjax.model.arguments import check_config, check_ids
from charjax.model.network import initial_carry, of_network
from charjax.model.parameters import vocab_size
from charjax.text.batching import Batch
from charjax.text.documents import Documents
from charjax.training.step import eval_step


@dataclass(frozen=True)
class Evaluation:
    """The score of a text."""

    nats_per_char: float
    """Mean cross-entropy, natural log; of a model of bytes per UTF-8 character too."""

    characters: int
    """How many characters were scored: all but the first, or all of documents. Of a model
    of bytes these are the UTF-8 characters that the bytes belong to."""

    rows: int
    """Contiguous rows the text was cut into; windowed: windows scored at a time."""

    window: int | None
    """Length of the windows, or None for the stateful protocol."""

    nats_per_byte: float | None = None
    """The same per byte, for a model of bytes; None for one of characters."""

    bytes: int | None = None
    """How many bytes were scored, for a model of bytes: all but the first."""

    nats_per_symbol: float | None = None
    """The same per symbol, for a model of documents: the end of each counts as one."""

    documents: int | None = None
    """How many documents were scored, each from its first character to its end."""

    @property
    def loss(self) -> float:
        """Nats per symbol: what training makes smaller."""
        if self.nats_per_symbol is not None:
            return self.nats_per_symbol
        return self.nats_per_char if self.nats_per_byte is None else self.nats_per_byte

    @property
    def bits_per_char(self) -> float:
        """Mean cross-entropy, log base 2."""
        return units.bits(self.nats_per_char)

    @property
    def bits_per_byte(self) -> float | None:
        """The same per byte, for a model of bytes."""
        return None if self.nats_per_byte is None else units.bits(self.nats_per_byte)

    @property
    def bits_per_symbol(self) -> float | None:
        """The same per symbol, for a model of documents."""
        return None if self.nats_per_symbol is None else units.bits(self.nats_per_symbol)

    @property
    def symbols(self) -> int:
        """How many were scored: characters or bytes, and ends of documents."""
        of_text = self.characters if self.bytes is None else self.bytes
        return of_text + (self.documents or 0)

    @property
    def perplexity(self) -> float:
        """exp(nats_per_char)."""
        return units.perplexity(self.nats_per_char)


# The config is static and hashable: one compilation serves each network and shape.
jitted_step = jax.jit(eval_step, static_argnums=(0, 4))


@computing()
def evaluate(
    config: Config,
    params: Any,
    ids: Ids | Documents,
    *,
    rows: int | None = None,
    window: int | None = None,
    mesh: Any = None,
    learning: Learning | None = None,
) -> Evaluation:
    """Scores symbols 2 to N of `ids`, or all of documents, each exactly once, without
    dropout.

    Args:
      config: the run's config.
      params: parameters.
      ids: symbol ids `[n]`, at least two; for a model of documents, `Documents`.
      rows: rows the text is cut into; None is `train.eval_rows`. More rows go faster,
        and start more often without context.
      window: length of the windows of the windowed protocol; None is stateful.
      mesh: devices to use; None is all.
      learning: goes on learning from what was scored, on one device, in one row where
        `rows` is None; None does not.

    Raises:
      InputError: fewer than two ids, no document, an id outside the vocabulary, parameters
        of another config, rows or window below 1, or a window for documents
        or for a model that goes on learning.
    """
    check_config(config)
    for name, value in (("rows", rows), ("window", window)):
        checked(f"`{name}`", value, Annotated[int | None, AtLeast(1)])
    if rows is None:
        rows = config.train.eval_rows if learning is None else 1
    if window is not None and learning is not None:
        remedy = "a model that goes on learning carries its state; leave it out"
        refuse("`window`", window, remedy)
    if isinstance(ids, Documents) != config.data.has_documents:
        remedy = "give `ids` as Documents for a model of documents, and for no other"
        refuse("data.documents", config.data.documents, remedy)
    if isinstance(ids, Documents):
        if window is not None:
            refuse("`window`", window, "each document is read from its start; leave it out")
        return _of_documents(config, params, ids, rows, mesh, learning)
    check_ids("ids", ids, "symbols", vocab_size(params))
    if len(ids) < 2:
        raise InputError(
            f"the text to score has {counted(len(ids), config.data.vocabulary)}: it needs "
            "at least 2, since the first only serves as input."
        )
    positions = len(ids) - 1
    if window is None:
        rows = min(rows, positions)
        batches = stateful_batches(ids, rows, _length(config, learning))
    else:
        window = min(window, positions)
        rows = min(rows, -(-positions // window))
        batches = windowed_batches(ids, rows, window)
    total = _total(config, params, batches, rows, mesh, learning)
    if units.unit(config) == "character":
        return Evaluation(total / positions, positions, rows, window)
    characters = units.in_characters(ids[1:])
    per_byte = total / positions
    return Evaluation(total / characters, characters, rows, window, per_byte, positions)


def _of_documents(
    config: Config,
    params: Any,
    documents: Documents,
    rows: int,
    mesh: Any,
    learning: Learning | None,
) -> Evaluation:
    count, symbols, begun = documents.count, vocab_size(params), []
    if count == 0:
        raise InputError("the text to score has no documents: it needs at least 1.")

    def looked_at(batch: Batch) -> Batch:
        # Not all ids at once, most of which may be those of another split.
        check_ids("ids", batch.targets, "batch time", symbols)
        begun.append(units.in_characters_of_documents(batch))
        return batch

    rows, per_byte = min(rows, count), (None, None)
    batches = document_batches(documents, rows, _length(config, learning))
    total = _total(config, params, map(looked_at, batches), rows, mesh, learning)
    characters = of_text = len(documents) - count
    if config.data.vocabulary == "bytes":
        characters, per_byte = sum(begun), (total / of_text, of_text)
    loss = total / len(documents)
    return Evaluation(total / characters, characters, rows, None, *per_byte, loss, count)


def _length(config: Config, learning: Learning | None) -> int:
    return config.data.sequence_length if learning is None else learning.how.length


def _total(
    config: Config,
    params: Any,
    batches: Iterator[Batch],
    rows: int,
    mesh: Any,
    learning: Learning | None,
) -> float:
    """Nats of all symbols."""
    if learning is not None:
        nats = dynamic_nats(config, params, batches, learning)
        return math.fsum(float(each.sum()) for each in nats)
    mesh = meshes.make_mesh() if mesh is None else mesh
    with memory.explain_shortage(
        f"there is not enough memory to score {counted(rows, 'rows')} at once: make rows "
        "(train.eval_rows) smaller."
    ):
        return _summed(config, params, batches, rows, mesh)


def _summed(
    config: Config, params: Any, batches: Iterator[Batch], rows: int, mesh: Any
) -> float:
    params = placement.placed(mesh, config, params)
    share = meshes.rows_share(mesh)
    padded = -(-rows // share) * share
    first, last = meshes.local_rows(mesh, padded)
    carry = jax.tree.map(
        lambda leaf: jax.device_put(leaf, placement.carry_sharding(mesh)),
        initial_carry(config, padded),
    )
    recurrence = meshes.inference_recurrence(config, mesh)
    sums: list[float] = []
    waiting, config = None, of_network(config)
    for batch in batches:
        local = Batch(*(leaf[first:last] for leaf in _pad_rows(batch, padded)))
        placed = placement.put_batch(mesh, local)
        carry, nats = jitted_step(config, params, carry, placed, recurrence)
        # One window runs while the one before it is looked at. Far more at once would
        # fill the memory, and several CPU devices would wait for each other for ever.
        if waiting is not None:
            sums.append(waiting.item())
        waiting = nats.sum()
    if waiting is not None:
        sums.append(waiting.item())
    return math.fsum(sums)


def _pad_rows(batch: Batch, rows: int) -> Batch:
    missing = rows - batch.inputs.shape[0]
    if missing == 0:
        return batch
    return Batch(
        *(np.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)) for leaf in batch)
    )
