"""An opened run: what stays the same from its first step to its last."""

import contextlib
import functools
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charjax.config.schema import Config
from charjax.devices import placement, processes
from charjax.language_model import LanguageModel
from charjax.run import agreement
from charjax.run.plan import Plan
from charjax.storage import run_directory
from charjax.storage.lock import lock
from charjax.storage.record import Record, Standing
from charjax.storage.saver import Saver
from charjax.text.corpus import Corpus, Split
from charjax.training.optimizer import name_of
from charjax.training.state import TrainState


@dataclass(frozen=True, eq=False)
class Run:
    """A run whose directory, if it has one, is this process's to write to."""

    plan: Plan
    corpus: Corpus
    checkpoints: Saver | None

    @property
    def config(self) -> Config:
        return self.plan.config

    @property
    def own_workdir(self) -> Path | None:
        """The directory, in the one process that writes what only one may write."""
        return self.plan.workdir if processes.is_first() else None

    def split(self, name: Split) -> np.ndarray:
        return self.corpus.split(name, self.config.data.split)

    def model(self, state: TrainState) -> LanguageModel:
        """The model as it is now, on one device; all processes must ask."""
        params = state.params
        if self.plan.mesh.size > 1:
            params = placement.on_one_device(params)
        return LanguageModel(self.config, params, self.corpus.text, int(state.step))

    def record(
        self, step: int, standing: Standing, validation_loss: float | None
    ) -> Record:
        """What makes a checkpoint explain itself."""
        return Record(
            step=step,
            config=self.config,
            text=self.corpus.text,
            validation_loss=validation_loss,
            standing=standing,
            versions=_versions(),
            optimizer=self.plan.optimizer and name_of(self.plan.optimizer),
        )


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[None]:
    """Keeps other runs out of the run's directory, which all processes must see."""
    if plan.workdir is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with processes.all_or_none():
            if processes.is_first():
                stack.enter_context(lock(plan.workdir))
        agreement.check_directory(plan.workdir, plan.resuming)
        yield


@contextlib.contextmanager
def opened(plan: Plan, corpus: Corpus) -> Iterator[Run]:
    """The run, its directory made if it is new; the last save is on disk afterwards."""
    if plan.workdir is None:
        yield Run(plan, corpus, None)
        return
    with processes.first_goes_ahead():
        if processes.is_first() and not plan.resuming:
            # Only now that nothing can be refused any more.
            if plan.fresh:
                run_directory.start_over(plan.workdir)
            own_text = plan.surveyed.bytes_to_keep()
            run_directory.create(plan.workdir, plan.config, own_text)
        sound = [] if plan.record is None else [plan.record.step]
        # What a killed run left is tidied up by the first, before the others read.
        checkpoints = Saver(plan.workdir / run_directory.CHECKPOINTS, sound=sound)
    with checkpoints:
        yield Run(plan, corpus, checkpoints)


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("charjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
