"""The work that is timed: sizes with names, and the text they read."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from charjax.compiled.estimate import products
from charjax.text.builtin import python_reference
from charjax.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Work:
    """One training task, the same for every system."""

    cell: str = "lstm"
    num_layers: int = 2
    hidden_size: int = 512
    embedding_size: int | None = None
    vocab_size: int = 83
    batch_size: int = 128
    sequence_length: int = 100
    dropout: float = 0.5
    synthetic: bool = False
    """Drawn ids in place of a text, for machines that have none."""

    @property
    def characters(self) -> int:
        return self.batch_size * self.sequence_length

    @property
    def flops(self) -> float:
        """Floating-point operations of one step's matrix products, forward and backward."""
        config = self.config("float32")
        return products(config, self.vocab_size, self.characters, training=True)

    def config(self, precision: str, recurrence: str = "auto") -> Config:
        return Config(
            data=DataConfig(
                batch_size=self.batch_size, sequence_length=self.sequence_length
            ),
            model=ModelConfig(
                cell=self.cell,  # pyright: ignore[reportArgumentType]
                num_layers=self.num_layers,
                hidden_size=self.hidden_size,
                embedding_size=self.embedding_size,
                dropout=self.dropout,
                recurrence=recurrence,  # pyright: ignore[reportArgumentType]
            ),
            optimizer=OptimizerConfig(
                learning_rate=1e-3, schedule="constant", warmup_steps=0, clip_norm=5.0
            ),
            train=TrainConfig(precision=precision),  # pyright: ignore[reportArgumentType]
        )

    def ids(self) -> np.ndarray:
        """Real text, long enough for the batch, folded into `vocab_size` symbols."""
        if self.synthetic:
            # Some symbols are far more frequent than others, as in a text.
            shares = 1 / np.arange(1, self.vocab_size + 1)
            random = np.random.default_rng(0)
            size, shares = 4 * self.characters, shares / shares.sum()
            return random.choice(self.vocab_size, size, p=shares).astype(np.int32)
        text = python_reference()
        ids = Vocabulary.from_text(text).encode(text).astype(np.int32) % self.vocab_size
        return np.tile(ids, -(-4 * self.characters // len(ids)))


CANONICAL = Work()
WORKS: dict[str, Work] = {
    "canonical": CANONICAL,
    "char-rnn": Work(hidden_size=128, batch_size=50, sequence_length=50, dropout=0.0),
    "island": Work(
        num_layers=1,
        embedding_size=256,
        vocab_size=80,
        batch_size=64,
        sequence_length=40,
        dropout=0.0,
    ),
    "no-dropout": Work(dropout=0.0),
    "gru": Work(cell="gru"),
    "rnn": Work(cell="rnn"),
    "batch-1024": Work(batch_size=1024),
    "batch-8192": Work(batch_size=8192),
}


def to_json(work: Work) -> dict[str, Any]:
    return asdict(work)
