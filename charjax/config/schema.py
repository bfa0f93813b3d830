"""Everything a run can be told: frozen dataclasses, each field documented and checked.

A `Config` is plain data. It is hashable, so it can be closed over by a jitted function or
passed as a static argument; it goes to JSON and back; and it refuses impossible values
when it is built, naming the field, the value and the remedy.

    >>> from charjax import Config, ModelConfig
    >>> config = Config(model=ModelConfig(cell="gru", hidden_size=64))
    >>> config
    Config(model=ModelConfig(cell='gru', hidden_size=64))
"""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from charjax.config.checks import (
    AtLeast,
    Encoding,
    NotEmpty,
    Positive,
    Section,
    Share,
    check_fields,
    refuse,
    unknown,
)
from charjax.errors import InputError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = typing.get_args(Split)
"""The parts of a text, in this order."""

OnUnknown = Literal["error", "skip"]
"""What to do with characters that a model does not know."""

NOT_AN_OPTION = {"option": False}
"""The metadata of a field that runs write, and that nobody gives by hand."""

ENDING = ("cosine", "linear")
"""The schedules that end at `optimizer.schedule_steps`."""


@dataclasses.dataclass(frozen=True, repr=False)
class DataConfig(Section):
    """The text, its symbols, and how it is cut into batches."""

    source: Annotated[str | tuple[str, ...], NotEmpty()] = ("python-reference",)
    """The text: a file, a folder (its *.txt), a pattern such as 'books/*.txt', several of
    these (read in this order), or one name of python-reference (ships with Python),
    tinyshakespeare, anna, mysterious-island, enwik8, text8 (downloaded once)."""

    vocabulary: Literal["characters", "bytes"] = "characters"
    """The symbols: the Unicode characters that occur, or the 256 bytes."""

    encoding: Annotated[str, Encoding()] = "utf-8"
    """How files become characters. A UTF-8 or UTF-16 byte-order mark overrides it."""

    start_marker: Annotated[str | None, NotEmpty()] = None
    """Drop what comes before the first occurrence of this string, which is kept."""

    end_marker: Annotated[str | None, NotEmpty()] = None
    """Drop everything from the first occurrence of this string after the start."""

    split: Annotated[tuple[float, float, float], Share()] = (0.9, 0.1, 0.0)
    """Shares of train, validation and test, cut from the text in this order."""

    batching: Literal["streams", "windows"] = "streams"
    """streams: batch_size contiguous rows, the recurrent state carried from window to
    window. windows: shuffled windows that start anywhere, the state zero each time."""

    batch_size: Annotated[int, AtLeast(1)] = 32
    """Rows per update, over all devices."""

    sequence_length: Annotated[int, AtLeast(1)] = 64
    """Characters per row and update: the length of back-propagation through time."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if isinstance(self.source, str):
            object.__setattr__(self, "source", (self.source,))
        if abs(sum(self.split) - 1) > 1e-6 or self.split[0] == 0:
            refuse(
                "data.split",
                self.split,
                "the shares must add up to 1 and leave something to train on, "
                "such as 0.9 0.1 0.0",
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """`source` as the tuple it always is after construction."""
        return typing.cast(tuple[str, ...], self.source)


@dataclasses.dataclass(frozen=True, repr=False)
class ModelConfig(Section):
    """The network: input, a stack of recurrent layers, a linear head."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """LSTM, GRU (reset after the product, as in PyTorch and cuDNN) or tanh RNN."""

    num_layers: Annotated[int, AtLeast(1)] = 2
    """Recurrent layers."""

    hidden_size: Annotated[int, AtLeast(1)] = 256
    """Units per layer."""

    embedding_size: Annotated[int | None, AtLeast(1)] = None
    """Width of a learned embedding; None feeds the characters one-hot."""

    dropout: Annotated[float, Share(one=False)] = 0.2
    """Share of activations dropped between layers and before the head."""

    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (Jozefowicz et al. 2015)."""

    def __post_init__(self) -> None:
        check_fields(self, "model")

    @property
    def shape(self) -> dict[str, Any]:
        """The fields that decide which parameters there are."""
        others = ("dropout", "forget_bias")
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in others}

    def shaped_like(self, other: "ModelConfig") -> "ModelConfig":
        """This model with the shape of another."""
        return dataclasses.replace(self, **other.shape)


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
    (cell, layers, sizes) is taken where none is given."""

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
        if self.steps is None and self.epochs is None:
            refuse("train.steps", None, "train.epochs is None too: give one of them")


@dataclasses.dataclass(frozen=True, repr=False)
class ParallelConfig(Section):
    """How several devices share the work; a resumed run may change it."""

    model: Annotated[int, AtLeast(1)] = 1
    """Devices side by side that split each layer's units and the head's symbols. The
    others split the rows of a batch."""

    fsdp: bool = False
    """Split parameters and optimizer state over the devices that split the rows, too."""

    def __post_init__(self) -> None:
        check_fields(self, "parallel")


@dataclasses.dataclass(frozen=True, repr=False)
class Config(Section):
    """A whole run. `Config()` is the default run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        stopping = self.train.early_stopping
        if stopping and (self.train.eval_every is None or self.data.split[1] == 0):
            refuse(
                *("train.early_stopping", stopping),
                "it needs train.eval_every and a share for validation in data.split",
            )
        if self.data.batch_size % self.optimizer.accumulate:
            refuse(
                "optimizer.accumulate",
                self.optimizer.accumulate,
                f"it must divide data.batch_size, which is {self.data.batch_size}",
            )

    def replace(self, **fields: Any) -> "Config":
        """A copy with dotted fields changed.

        >>> Config().replace(**{"model.hidden_size": 64}).model.hidden_size
        64
        """
        values, known = to_dict(self), dict(flatten(self))
        for path, value in fields.items():
            section, _, name = path.partition(".")
            if path not in known:
                raise unknown(path, known)
            values[section][name] = value
        return from_dict(values)


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """The config as nested dictionaries of JSON values."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    if config.optimizer.earlier_schedule_steps is None:
        # Most runs have none, and other versions do not know the field.
        del values["optimizer"]["earlier_schedule_steps"]
    return values


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config that `to_dict` (or a `config.json`) describes.

    Raises InputError for unknown fields, wrong types and impossible values. Fields that
    are absent have their defaults.
    """
    if not isinstance(values, Mapping):
        raise InputError('a config must be an object of sections, such as {"model": {}}.')
    sections = {field.name: field.type for field in dataclasses.fields(Config)}
    built: dict[str, Any] = {}
    for name, section in values.items():
        if name not in sections:
            raise unknown(name, sections)
        if not isinstance(section, Mapping):
            refuse(name, section, "expected an object of fields")
        kind = typing.cast(type, sections[name])
        known = [f"{name}.{field.name}" for field in dataclasses.fields(kind)]
        for field in (f"{name}.{key}" for key in section):
            if field not in known:
                raise unknown(field, known)
        built[name] = kind(**section)
    return Config(**built)


def flatten(config: Config) -> Iterator[tuple[str, Any]]:
    """Each field as (dotted name, value), in the order of declaration."""
    for section in dataclasses.fields(config):
        group = getattr(config, section.name)
        for field in dataclasses.fields(group):
            yield f"{section.name}.{field.name}", getattr(group, field.name)
