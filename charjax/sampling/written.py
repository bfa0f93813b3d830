"""A text that a model has written."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True)
class Written:
    """A text that a model has written, and what it thought of each new symbol: of each
    character (of a model of bytes each byte), and of the end of a document where it ended
    one."""

    prompt: str
    text: str
    """The prompt and what was written after it."""

    ended: str
    """Why it ends: `length`, `stop` (a stop string), `end` (the end symbol) or `exhausted`
    (nothing was left to draw)."""

    log_probs: Float32[np.ndarray, " new"] = field(repr=False)
    """Nats of each new symbol under the model as it is."""

    drawn_log_probs: Float32[np.ndarray, " new"] = field(repr=False)
    """The same under the options, which it was drawn with."""

    @property
    def log_prob(self) -> float:
        """Mean nats of a new symbol under the model; 0 where there is none."""
        return float(self.log_probs.mean()) if len(self.log_probs) else 0.0
