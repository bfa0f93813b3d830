"""The fields of `train`."""

import dataclasses
import typing
from typing import Annotated, Literal

from charjax.config.checks import AtLeast, Positive, Section, check_fields, refuse

Group = Literal["embedding", "first", "rest", "head"]
"""The groups of parameters: the first recurrent layer, and the rest of them."""


@dataclasses.dataclass(frozen=True, repr=False)
class TrainConfig(Section):
    """How long to train, and what to do on the way."""

    steps: Annotated[int | None, AtLeast(1)] = 1600
    """Updates; whichever of steps and epochs ends first. None is no limit."""

    epochs: Annotated[float | None, Positive()] = None
    """Passes over the training text. None is no limit."""

    seed: Annotated[int, AtLeast(0, maximum=2**32 - 1)] = 0
    """Fixes the initial parameters, dropout and shuffling."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix operands. Parameters, sums, cell state and loss stay float32."""

    init_from: str | None = None
    """Start from the best parameters of another run's directory, whose model's shape
    (cell, layers, sizes) is taken where none is given. What it learned of a symbol is kept
    for the same symbol."""

    init_new: Literal["drawn", "mean"] = "drawn"
    """Where symbols begin that the run in init_from does not know: drawn as in a new model,
    or at the mean of those that it knows. Their biases begin at the mean."""

    freeze: tuple[Group, ...] | None = None
    """Groups of parameters that stay exactly as they are: embedding, first (the first
    recurrent layer), rest (the other ones), head. They have no moments, and gradient norms
    are without them. None trains all."""

    eval_every: Annotated[int | None, AtLeast(1)] = 250
    """Updates between evaluations of the whole validation split; also at the end."""

    eval_rows: Annotated[int, AtLeast(1)] = 16
    """Contiguous rows a split is cut into for evaluation; each starts from zero state."""

    checkpoint_every: Annotated[int | None, AtLeast(1)] = 250
    """Updates between checkpoints; an evaluation that improves and the end save too."""

    log_every: Annotated[int, AtLeast(1)] = 10
    """Updates between lines of metrics."""

    sample_every: Annotated[int | None, AtLeast(1)] = 250
    """Updates between samples of text; there is one at the end in any case."""

    early_stopping: Annotated[int | None, AtLeast(1)] = None
    """Stop after this many evaluations in a row without improvement."""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.freeze is not None:
            # In the order of the network, each once: the same groups are the same config.
            ordered = (group for group in typing.get_args(Group) if group in self.freeze)
            object.__setattr__(self, "freeze", tuple(ordered))
        if self.steps is None and self.epochs is None:
            refuse("train.steps", None, "train.epochs is None too: give one of them")
