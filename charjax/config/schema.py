"""Everything a run can be told: frozen dataclasses, each field documented and checked.

A `Config` is plain data. It is hashable, so it can be closed over by a jitted function or
passed as a static argument; it goes to JSON and back; and it refuses impossible values
when it is built, naming the field, the value and the remedy. Each section has a file.

    >>> from charjax import Config, ModelConfig
    >>> config = Config(model=ModelConfig(cell="gru", hidden_size=64))
    >>> config
    Config(model=ModelConfig(cell='gru', hidden_size=64))
"""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from charjax.config.checks import Section, check_fields, refuse, unknown
from charjax.config.data import DataConfig
from charjax.config.model import ModelConfig
from charjax.config.optimizer import OptimizerConfig
from charjax.config.parallel import ParallelConfig
from charjax.config.train import TrainConfig
from charjax.errors import InputError


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
