"""The fields of `optimizer`."""

import dataclasses
from typing import Annotated, Literal

from charjax.config.checks import AtLeast, Positive, Section, Share, check_fields, refuse

NOT_AN_OPTION = {"option": False}
"""The metadata of a field that runs write, and that nobody gives by hand."""

ENDING = ("cosine", "linear")
"""The schedules that end at `optimizer.schedule_steps`."""


@dataclasses.dataclass(frozen=True, repr=False)
class OptimizerConfig(Section):
    """How gradients become updates."""

    name: Literal["adam", "adamw", "rmsprop", "adagrad", "sgd", "lion", "muon"] = "adam"
    """The optax optimizer. muon orthogonalises the recurrent stack's matrices and
    leaves embedding, head and biases to Adam with Nesterov momentum."""

    learning_rate: Annotated[float, Positive()] = 4e-3
    """The peak learning rate."""

    schedule: Literal["constant", "exponential", "cosine", "linear"] = "cosine"
    """After the warm-up: constant; exponential, times decay_rate each epoch after
    decay_after_epochs (char-rnn's); cosine or linear down to
    final_scale * learning_rate at schedule_steps."""

    schedule_steps: Annotated[int | None, AtLeast(1)] = None
    """Updates until cosine and linear reach their end; None is the length that the run
    starts with, even if it is made longer later. A resumed run may be given another, which
    holds from there on."""

    earlier_schedule_steps: Annotated[tuple[tuple[int, int], ...] | None, AtLeast(1)] = (
        dataclasses.field(default=None, metadata=NOT_AN_OPTION)
    )
    """Written where a resumed run is given another schedule_steps: pairs of a number of
    updates and the schedule_steps that held up to there, oldest first."""

    warmup_steps: Annotated[int, AtLeast(0)] = 50
    """Updates over which the learning rate rises linearly to its peak."""

    final_scale: Annotated[float, Share()] = 0.0
    """Where cosine and linear end, as a share of learning_rate."""

    decay_rate: Annotated[float, Share(zero=False)] = 0.97
    """exponential: the factor per epoch."""

    decay_after_epochs: Annotated[int, AtLeast(0)] = 10
    """exponential: epochs before the first decay."""

    epoch_steps: Annotated[int | None, AtLeast(1)] = None
    """exponential: updates in an epoch; None is filled in from the text."""

    beta1: Annotated[float | None, Share(one=False)] = None
    """Decay of the first moment, momentum of sgd; None is the optimizer's usual value
    (0.9; sgd 0, muon 0.95)."""

    beta2: Annotated[float | None, Share(one=False)] = None
    """Decay of the second moment; None is the optimizer's usual value (adam, adamw and
    muon 0.999, rmsprop 0.95 as in char-rnn, lion 0.99)."""

    clip_norm: Annotated[float | None, Positive()] = 5.0
    """Scale gradients down to this global norm; None leaves them as they are."""

    clip_value: Annotated[float | None, Positive()] = None
    """Clip each element of the gradient to plus or minus this; None leaves it as it is."""

    skip_norm: Annotated[float | None, Positive()] = None
    """Skip an update whose gradient has a larger global norm than this. An update that is
    not finite is skipped in any case."""

    weight_decay: Annotated[float, Positive(zero=True)] = 0.0
    """Decoupled weight decay, on matrices only, for every optimizer."""

    accumulate: Annotated[int, AtLeast(1)] = 1
    """Cut each batch into this many parts, run one after the other: the same update in
    less memory."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")
        until = [updates for updates, _ in self.earlier_schedule_steps or ()]
        if until != sorted(set(until)):
            refuse(
                "optimizer.earlier_schedule_steps",
                self.earlier_schedule_steps,
                "the numbers of updates must ascend",
            )
