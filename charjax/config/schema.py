"""Everything a run can be told: frozen dataclasses, each field documented and checked.

A `Config` is plain data. It is hashable, so it can be closed over by a jitted function or
passed as a static argument; it goes to JSON and back; and it refuses impossible values
the moment it is built, naming the field, the value and the remedy.

    >>> from charjax import Config, ModelConfig
    >>> config = Config(model=ModelConfig(cell="gru", hidden_size=64))
    >>> config.model.cell
    'gru'
"""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from charjax.config.checks import at_least, check_types, refuse, unknown
from charjax.errors import InputError as InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which text, as which symbols, cut how."""

    source: str | tuple[str, ...] = ("python-reference",)
    """The text: a path, several paths (read in this order), or one name of
    python-reference (ships with Python), tinyshakespeare, anna, mysterious-island,
    enwik8, text8 (downloaded once)."""

    vocabulary: Literal["characters", "bytes"] = "characters"
    """The symbols: the Unicode characters that occur, or the 256 bytes."""

    encoding: str = "utf-8"
    """How files become characters. A UTF-8 or UTF-16 byte-order mark overrides it."""

    start_marker: str | None = None
    """Drop what comes before the first occurrence of this string, which is kept."""

    end_marker: str | None = None
    """Drop everything from the first occurrence of this string after the start."""

    split: tuple[float, float, float] = (0.9, 0.1, 0.0)
    """Shares of train, validation and test, cut from the text in this order."""

    batching: Literal["streams", "windows"] = "streams"
    """streams: batch_size contiguous rows, the recurrent state carried from window to
    window. windows: shuffled windows that start anywhere, the state zero each time."""

    batch_size: int = 32
    """Rows per update, over all devices."""

    sequence_length: int = 64
    """Characters per row and update: the length of back-propagation through time."""

    def __post_init__(self) -> None:
        if isinstance(self.source, str):
            object.__setattr__(self, "source", (self.source,))
        check_types(self, "data")
        object.__setattr__(self, "split", tuple(float(share) for share in self.split))
        if not self.source or not all(self.source):
            refuse("data.source", self.source, "give a path or a name")
        if len(self.split) != 3 or not all(0 <= share <= 1 for share in self.split):
            refuse("data.split", self.split, "give three shares between 0 and 1")
        if abs(sum(self.split) - 1) > 1e-6 or self.split[0] == 0:
            refuse(
                "data.split",
                self.split,
                "the shares must add up to 1 and leave something to train on, "
                "such as 0.9 0.1 0.0",
            )
        for marker in ("start_marker", "end_marker"):
            if getattr(self, marker) == "":
                refuse(f"data.{marker}", "", "give some text, or None for no cut")
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError):
            refuse(
                "data.encoding",
                self.encoding,
                "Python knows no such encoding; try utf-8, latin-1 or cp1252",
            )
        at_least("data.batch_size", self.batch_size, 1)
        at_least("data.sequence_length", self.sequence_length, 1)

    @property
    def sources(self) -> tuple[str, ...]:
        """`source` as the tuple it always is after construction."""
        return typing.cast(tuple[str, ...], self.source)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network: input, a stack of recurrent layers, a linear head."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """LSTM, GRU (reset after the product, as in PyTorch and cuDNN) or tanh RNN."""

    num_layers: int = 2
    """Recurrent layers."""

    hidden_size: int = 256
    """Units per layer."""

    embedding_size: int | None = None
    """Width of a learned embedding; None feeds the characters one-hot."""

    dropout: float = 0.2
    """Share of activations dropped between layers and before the head."""

    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (Jozefowicz et al. 2015)."""

    def __post_init__(self) -> None:
        check_types(self, "model")
        at_least("model.num_layers", self.num_layers, 1)
        at_least("model.hidden_size", self.hidden_size, 1)
        if self.embedding_size is not None:
            at_least("model.embedding_size", self.embedding_size, 1)
        if not 0 <= self.dropout < 1:
            refuse("model.dropout", self.dropout, "give a share from 0 up to below 1")
        if not math.isfinite(self.forget_bias):
            refuse("model.forget_bias", self.forget_bias, "give a finite number")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: Literal["adam", "adamw", "rmsprop", "adagrad", "sgd", "lion", "muon"] = "adam"
    """The optax optimizer. muon orthogonalises the recurrent stack's matrices and
    leaves embedding, head and biases to Adam with Nesterov momentum."""

    learning_rate: float = 4e-3
    """The peak learning rate."""

    schedule: Literal["constant", "exponential", "cosine", "linear"] = "cosine"
    """After the warm-up: constant; exponential, times decay_rate each epoch after
    decay_after_epochs (char-rnn's); cosine or linear down to
    final_scale * learning_rate at schedule_steps."""

    schedule_steps: int | None = None
    """Updates until cosine and linear reach their end; None is the run's length when it
    is born (and stays that if the run is later made longer)."""

    warmup_steps: int = 50
    """Updates over which the learning rate rises linearly to its peak."""

    final_scale: float = 0.0
    """Where cosine and linear end, as a share of learning_rate."""

    decay_rate: float = 0.97
    """exponential: the factor per epoch."""

    decay_after_epochs: int = 10
    """exponential: epochs before the first decay."""

    epoch_steps: int | None = None
    """exponential: updates in an epoch; None is filled in from the text."""

    beta1: float | None = None
    """Decay of the first moment, momentum of sgd; None is the optimizer's usual value
    (0.9; sgd 0, muon 0.95)."""

    beta2: float | None = None
    """Decay of the second moment; None is the optimizer's usual value (adam, adamw and
    muon 0.999, rmsprop 0.95 as in char-rnn, lion 0.99)."""

    clip_norm: float | None = 5.0
    """Scale gradients down to this global norm; None does not."""

    clip_value: float | None = None
    """Clip each gradient element to plus or minus this; None does not."""

    skip_norm: float | None = None
    """Skip an update whose gradient has a larger global norm than this; None skips only
    what is not a finite number."""

    weight_decay: float = 0.0
    """Decoupled weight decay, on matrices only, for every optimizer."""

    accumulate: int = 1
    """Cut each batch into this many parts run one after the other: the same update
    from less memory."""

    def __post_init__(self) -> None:
        check_types(self, "optimizer")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            refuse(
                "optimizer.learning_rate",
                self.learning_rate,
                "give a positive number such as 0.002",
            )
        for name in ("clip_norm", "clip_value", "skip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                refuse(
                    f"optimizer.{name}",
                    value,
                    "give a positive number, or None for no clip",
                )
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                refuse(f"optimizer.{name}", value, "give a number from 0 up to below 1")
        for name in ("schedule_steps", "epoch_steps"):
            value = getattr(self, name)
            if value is not None:
                at_least(f"optimizer.{name}", value, 1)
        for name in ("warmup_steps", "decay_after_epochs"):
            at_least(f"optimizer.{name}", getattr(self, name), 0)
        if not 0 <= self.final_scale <= 1:
            refuse("optimizer.final_scale", self.final_scale, "give a share from 0 to 1")
        if not 0 < self.decay_rate <= 1:
            refuse(
                "optimizer.decay_rate", self.decay_rate, "give a factor above 0, up to 1"
            )
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            refuse(
                "optimizer.weight_decay", self.weight_decay, "give 0 or a positive number"
            )
        at_least("optimizer.accumulate", self.accumulate, 1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train, and what to do on the way."""

    steps: int | None = 1600
    """Updates; whichever of steps and epochs ends first. None is no limit."""

    epochs: float | None = None
    """Passes over the training text. None is no limit."""

    seed: int = 0
    """Initial parameters, dropout and shuffling follow from it."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix operands. Parameters, sums, cell state and loss stay float32."""

    init_from: str | None = None
    """Start from the best parameters of another run's directory."""

    eval_every: int | None = 250
    """Updates between evaluations of the whole validation split; also at the end."""

    eval_rows: int = 16
    """Contiguous rows a split is cut into for evaluation; each starts from zero state."""

    checkpoint_every: int | None = 250
    """Updates between checkpoints; an evaluation that improves and the end save too."""

    log_every: int = 10
    """Updates between lines of metrics."""

    sample_every: int | None = 250
    """Updates between samples of text; there is one at the end in any case."""

    early_stopping: int | None = None
    """Stop after this many evaluations in a row without improvement."""

    def __post_init__(self) -> None:
        check_types(self, "train")
        if self.steps is None and self.epochs is None:
            refuse("train.steps", None, "train.epochs is None too: give one of them")
        if self.epochs is not None and not (math.isfinite(self.epochs) and self.epochs > 0):
            refuse("train.epochs", self.epochs, "give a positive number, or None")
        if not 0 <= self.seed < 2**32:
            refuse("train.seed", self.seed, "give a number from 0 to 4294967295")
        for name in (
            *("steps", "eval_every", "eval_rows", "checkpoint_every"),
            *("log_every", "sample_every", "early_stopping"),
        ):
            if getattr(self, name) is not None:
                at_least(f"train.{name}", getattr(self, name), 1)


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How several devices share the work; a resume may choose anew."""

    model: int = 1
    """Devices side by side that split each layer's units and the head's symbols. The
    others split the rows of a batch."""

    fsdp: bool = False
    """Split parameters and optimizer state over the devices that split the rows, too."""

    def __post_init__(self) -> None:
        check_types(self, "parallel")
        at_least("parallel.model", self.model, 1)


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `Config()` is the default run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        check_types(self, "")
        stopping = self.train.early_stopping
        if stopping and (self.train.eval_every is None or self.data.split[1] == 0):
            refuse(
                "train.early_stopping",
                stopping,
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
        values = to_dict(self)
        for path, value in fields.items():
            section, _, name = path.partition(".")
            if name not in values.get(section, {}):
                raise InputError(unknown(path, [p for p, _ in flatten(self)]))
            values[section][name] = value
        return from_dict(values)


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """The config as nested dictionaries of JSON values."""
    values = dataclasses.asdict(config)
    for section in values.values():
        for name, value in section.items():
            section[name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config that `to_dict` (or a `config.json`) describes.

    Raises InputError for unknown fields, wrong types and impossible values. Fields that
    are absent have their defaults.
    """
    if not isinstance(values, Mapping):
        raise InputError("a config is a group of fields in {}, by section and name.")
    sections = {field.name: field.type for field in dataclasses.fields(Config)}
    built: dict[str, Any] = {}
    for name, section in values.items():
        if name not in sections:
            raise InputError(unknown(name, list(sections)))
        if not isinstance(section, Mapping):
            refuse(name, section, "expected a group of fields")
        kind = typing.cast(type, sections[name])
        known = [field.name for field in dataclasses.fields(kind)]
        for field in section:
            if field not in known:
                raise InputError(unknown(f"{name}.{field}", [f"{name}.{k}" for k in known]))
        built[name] = kind(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
        )
    return Config(**built)


def flatten(config: Config) -> Iterator[tuple[str, Any]]:
    """Each field as (dotted name, value), in the order of declaration."""
    for section in dataclasses.fields(config):
        group = getattr(config, section.name)
        for field in dataclasses.fields(group):
            yield f"{section.name}.{field.name}", getattr(group, field.name)
