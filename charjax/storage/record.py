"""What a checkpoint says of itself, so that it can be read without anything else."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charjax.config.checks import check_fields, refuse
from charjax.config.schema import Config, from_dict, to_dict
from charjax.errors import InputError
from charjax.storage.checkpoints import Checkpoints
from charjax.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Standing:
    """How a run stands: its best evaluation, and what may end it early."""

    best_loss: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    skipped_updates: int = 0
    """How many of the last updates in a row were skipped."""

    def __post_init__(self) -> None:
        check_fields(self, "memory")

    def after(self, loss: float, step: int) -> "Standing":
        """The standing after an evaluation; a loss that is no number improves nothing."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            return dataclasses.replace(
                self, best_loss=loss, best_step=step, stale_evaluations=0
            )
        return dataclasses.replace(self, stale_evaluations=self.stale_evaluations + 1)


@dataclass(frozen=True, eq=False)
class Record:
    """Everything beside the arrays."""

    step: int
    config: Config
    vocabulary: Vocabulary
    symbol_counts: np.ndarray
    """How often each symbol occurs in the corpus, int64 `[v]`."""

    fingerprint: str
    """SHA-256 of the corpus and its vocabulary."""

    characters: int
    """Length of the corpus."""

    validation_loss: float | None
    standing: Standing
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "step": self.step,
            "config": to_dict(self.config),
            "vocabulary": self.vocabulary.to_dict(),
            "symbol_counts": self.symbol_counts.tolist(),
            "corpus": {"fingerprint": self.fingerprint, "characters": self.characters},
            "validation_loss": self.validation_loss,
            "memory": dataclasses.asdict(self.standing),
            "versions": self.versions,
        }


def read(checkpoints: Checkpoints, step: int) -> Record:
    """The record of a step.

    Raises InputError if the step is damaged, and if its record is not one that charjax
    writes, whoever else wrote it.
    """
    values = checkpoints.record(step)
    try:
        return _parsed(values, step)
    except InputError as error:
        words = str(error)
        shown = words if len(words) < 500 else words[:500] + " ..."
        raise InputError(
            f"checkpoint step {step} in {checkpoints.directory} has a record that does not "
            f"fit it: {shown}"
        ) from error


def _parsed(values: Mapping[str, Any], step: int) -> Record:
    corpus = _part(values, "corpus", dict)
    standing = _part(values, "memory", dict)
    if _part(values, "step", int) != step:
        refuse("step", values["step"], f"expected {step}")
    config = from_dict(_part(values, "config", dict))
    vocabulary = Vocabulary.from_dict(_part(values, "vocabulary", dict))
    if vocabulary.kind != config.data.vocabulary:
        refuse("vocabulary.kind", vocabulary.kind, f"expected {config.data.vocabulary}")
    unknown = set(standing) - {field.name for field in dataclasses.fields(Standing)}
    if unknown:
        refuse("memory", sorted(unknown), "there are no such fields")
    versions = _part(values, "versions", dict)
    if not all(isinstance(version, str) for version in versions.values()):
        refuse("versions", versions, "expected a string for each")
    loss = values.get("validation_loss")
    return Record(
        step=step,
        config=config,
        vocabulary=vocabulary,
        symbol_counts=_counts(_part(values, "symbol_counts", list), vocabulary.size),
        fingerprint=_part(corpus, "fingerprint", str),
        characters=_part(corpus, "characters", int),
        validation_loss=loss if isinstance(loss, float) else None,
        standing=Standing(**standing),
        versions=versions,
    )


def _part(values: Mapping[str, Any], name: str, kind: type) -> Any:
    found = values.get(name)
    if type(found) is not kind:
        refuse(name, found, f"expected a {kind.__name__}")
    return found


def _counts(values: list[Any], size: int) -> np.ndarray:
    sound = all(type(value) is int and 0 <= value < 2**63 for value in values)
    if not sound or len(values) != size or not any(values):
        refuse("symbol_counts", values, f"expected how often each of {size} symbols occurs")
    return np.array(values, np.int64)
