"""What a checkpoint says of itself, so that it can be read without anything else."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charjax.config.checks import check_fields, refuse
from charjax.config.schema import Config, from_dict, to_dict
from charjax.devices.proof import Proof
from charjax.errors import InputError
from charjax.storage.checkpoints import Checkpoints
from charjax.text.description import TextDescription
from charjax.text.vocabulary import Vocabulary

# What checkpoints call the standing of a run, since before it had that name.
_STANDING = "memory"


@dataclass(frozen=True)
class Standing:
    """How a run stands: its best evaluation, and what may end it early."""

    best_loss: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0
    skipped_updates: int = 0
    """How many of the last updates in a row were skipped."""

    def __post_init__(self) -> None:
        check_fields(self, "standing")

    def after(self, loss: float, step: int) -> "Standing":
        """The standing after an evaluation; a loss that is not finite improves nothing."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            return dataclasses.replace(
                self, best_loss=loss, best_step=step, stale_evaluations=0
            )
        return dataclasses.replace(self, stale_evaluations=self.stale_evaluations + 1)

    def out_of_patience(self, config: Config) -> bool:
        """Whether `train.early_stopping` ends the run."""
        limit = config.train.early_stopping
        return limit is not None and self.stale_evaluations >= limit


@dataclass(frozen=True, eq=False)
class Record:
    """Everything in a checkpoint but the arrays."""

    step: int
    config: Config
    text: TextDescription
    """The text that was learned; its sources and notes are not kept."""

    validation_loss: float | None
    standing: Standing
    versions: dict[str, str]

    optimizer: str | None = None
    """What was passed to `fit` in place of the config's; None is the config's."""

    optimizer_state: str | None = None
    """The structure of its state, which tells more than the name; None is not known."""

    sources: tuple[str, ...] = ()
    """`data.source` as paths from the run's directory, which may move with its text."""

    proof: Proof | None = None
    """The kernels that were proven on the run's devices; None where none had to be."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = {
            "step": self.step,
            "config": to_dict(self.config),
            "vocabulary": self.text.vocabulary.to_dict(),
            "symbol_counts": self.text.counts.tolist() if self.text.length else None,
            "corpus": {
                "fingerprint": self.text.fingerprint,
                "characters": self.text.length,
                "sources": list(self.sources),
            },
            "validation_loss": self.validation_loss,
            _STANDING: dataclasses.asdict(self.standing),
            "versions": self.versions,
            "optimizer": self.optimizer,
        }
        if self.optimizer_state is not None:
            values["optimizer_state"] = self.optimizer_state
        if self.proof is not None:
            values["proof"] = dataclasses.asdict(self.proof)
        return values


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    packages = ("charjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def read(checkpoints: Checkpoints, step: int) -> Record:
    """The record of a step.

    Raises InputError if the step is damaged, and if its record is not one that charjax
    writes, whoever else wrote it.
    """
    values = checkpoints.record(step)
    try:
        return parsed(values, step)
    except InputError as error:
        words = str(error)
        shown = words if len(words) < 500 else words[:500] + " ..."
        raise InputError(
            f"checkpoint step {step} in {checkpoints.directory} has a record that does not "
            f"fit it: {shown}"
        ) from error


def parsed(values: Mapping[str, Any], step: int) -> Record:
    """The record that JSON values describe; InputError if they are not one of `step`."""
    standing = _part({"standing": values.get(_STANDING)}, "standing", dict)
    if _part(values, "step", int) != step:
        refuse("step", values["step"], f"expected {step}")
    config = from_dict(_part(values, "config", dict))
    text = _text(values)
    kind = text.vocabulary.kind
    if kind != config.data.vocabulary:
        refuse("vocabulary.kind", kind, f"expected {config.data.vocabulary}")
    documents = text.vocabulary.documents
    if documents != config.data.has_documents:
        refuse("vocabulary.documents", documents, f"expected {not documents}")
    unknown = set(standing) - {field.name for field in dataclasses.fields(Standing)}
    if unknown:
        refuse("standing", sorted(unknown), "there are no such fields")
    versions = _part(values, "versions", dict)
    if not all(isinstance(version, str) for version in versions.values()):
        refuse("versions", versions, "expected a string for each")
    own = {name: values.get(name) for name in ("optimizer", "optimizer_state")}
    for name, value in own.items():
        if not isinstance(value, str | None):
            refuse(name, value, "expected a string, or nothing")
    loss = values.get("validation_loss")
    sources = values["corpus"].get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(each, str) for each in sources):
        refuse("sources", sources, "expected paths from the run's directory")
    return Record(
        step=step,
        config=config,
        text=text,
        validation_loss=loss if isinstance(loss, float) else None,
        standing=Standing(**standing),
        versions=versions,
        **own,
        sources=tuple(sources),
        proof=_proof(values.get("proof")),
    )


def _proof(values: Any) -> Proof | None:
    """None in records of runs that had nothing to prove, or of before there was a proof."""
    if values is None:
        return None
    match values:
        case {"place": str(place), "kernels": list(names), **others} if not others:
            if all(isinstance(name, str) for name in names):
                return Proof(place, tuple(names))
    refuse("proof", values, "expected a place and the names of kernels")


def _part(values: Mapping[str, Any], name: str, kind: type) -> Any:
    found = values.get(name)
    if type(found) is not kind:
        refuse(name, found, f"expected a {kind.__name__}")
    return found


def _text(values: Mapping[str, Any]) -> TextDescription:
    vocabulary = Vocabulary.from_dict(_part(values, "vocabulary", dict))
    counts = np.zeros(vocabulary.size, np.int64)
    if values.get("symbol_counts") is not None:
        counts = _counts(_part(values, "symbol_counts", list), vocabulary.size)
    corpus = _part(values, "corpus", dict)
    text = TextDescription(vocabulary, counts, _part(corpus, "fingerprint", str))
    if _part(corpus, "characters", int) != text.length:
        refuse("characters", corpus["characters"], f"symbol_counts add up to {text.length}")
    return text


def _counts(values: list[Any], size: int) -> np.ndarray:
    sound = all(type(value) is int and 0 <= value < 2**63 for value in values)
    if not sound or len(values) != size or not any(values):
        refuse("symbol_counts", values, f"expected how often each of {size} symbols occurs")
    return np.array(values, np.int64)
