"""A split or a text scored: every character after the first, each exactly once.

Two protocols. *stateful*: the text is cut into `rows` contiguous rows; each starts from
zero state with the character before it as input and carries its state to its end.
*windowed*: windows of `window` characters, each from zero state, every position scored,
so that numbers compare with models of limited context.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np

from charjax.config.checks import AtLeast, checked
from charjax.config.schema import Config
from charjax.devices import memory, placement
from charjax.devices import mesh as meshes
from charjax.devices.backend import computing
from charjax.errors import InputError, counted
from charjax.evaluation import units
from charjax.evaluation.protocols import Ids, stateful_batches, windowed_batches
from charjax.model.arguments import check_config, check_ids
from charjax.model.network import initial_carry, of_network
from charjax.model.parameters import vocab_size
from charjax.text.batching import Batch
from charjax.training.step import eval_step


@dataclass(frozen=True)
class Evaluation:
    """The score of a text."""

    nats_per_char: float
    """Mean cross-entropy, natural log; of a model of bytes per UTF-8 character too."""

    characters: int
    """How many characters were scored: all but the first. Of a model of bytes these are
    the UTF-8 characters that the bytes after the first belong to."""

    rows: int
    """Contiguous rows the text was cut into; windowed: windows scored at a time."""

    window: int | None
    """Length of the windows, or None for the stateful protocol."""

    nats_per_byte: float | None = None
    """The same per byte, for a model of bytes; None for one of characters."""

    bytes: int | None = None
    """How many bytes were scored, for a model of bytes: all but the first."""

    @property
    def loss(self) -> float:
        """Nats per symbol: what training makes smaller."""
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
    def perplexity(self) -> float:
        """exp(nats_per_char)."""
        return units.perplexity(self.nats_per_char)


# The config is static and hashable: one compilation serves each network and shape.
jitted_step = jax.jit(eval_step, static_argnums=(0, 4))


@computing()
def evaluate(
    config: Config,
    params: Any,
    ids: Ids,
    *,
    rows: int | None = None,
    window: int | None = None,
    mesh: Any = None,
) -> Evaluation:
    """Scores symbols 2 to N of `ids`, each exactly once, without dropout.

    Args:
      config: the run's config.
      params: parameters.
      ids: symbol ids `[n]`, at least two.
      rows: rows the text is cut into; None is `train.eval_rows`. More rows go faster,
        and start more often without context.
      window: length of the windows of the windowed protocol; None is stateful.
      mesh: devices to use; None is all.

    Raises:
      InputError: fewer than two ids, one outside the vocabulary, parameters of another
        config, or rows or window below 1.
    """
    check_config(config)
    check_ids("ids", ids, "symbols", vocab_size(params))
    for name, value in (("rows", rows), ("window", window)):
        checked(f"`{name}`", value, Annotated[int | None, AtLeast(1)])
    rows = config.train.eval_rows if rows is None else rows
    if len(ids) < 2:
        raise InputError(
            f"the text to score has {counted(len(ids), config.data.vocabulary)}: it needs "
            "at least 2, since the first only serves as input."
        )
    mesh = meshes.make_mesh() if mesh is None else mesh
    positions = len(ids) - 1
    if window is None:
        rows = min(rows, positions)
        batches = stateful_batches(ids, rows, config.data.sequence_length)
    else:
        window = min(window, positions)
        rows = min(rows, -(-positions // window))
        batches = windowed_batches(ids, rows, window)

    with memory.explain_shortage(
        f"there is not enough memory to score {counted(rows, 'rows')} at once: make rows "
        "(train.eval_rows) smaller."
    ):
        total = _total(config, params, batches, rows, mesh)
    if units.unit(config) == "character":
        return Evaluation(total / positions, positions, rows, window)
    characters = units.in_characters(ids[1:])
    per_byte = total / positions
    return Evaluation(total / characters, characters, rows, window, per_byte, positions)


def _total(
    config: Config, params: Any, batches: Iterator[Batch], rows: int, mesh: Any
) -> float:
    """Nats of all characters."""
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
