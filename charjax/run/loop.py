"""The loop: step, log, evaluate, sample, save.

Everything here has side effects on purpose; what it calls to compute is pure.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charjax.config.schema import Config
from charjax.devices import placement, processes
from charjax.errors import Diverged
from charjax.evaluation.evaluate import Evaluation, evaluate
from charjax.evaluation.units import bits
from charjax.language_model import LanguageModel
from charjax.model.network import Params
from charjax.reporting import samples
from charjax.reporting.metrics import MetricsFile
from charjax.reporting.progress import Progress
from charjax.storage import run_directory
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.record import Memory, Record
from charjax.text import batching
from charjax.text.corpus import Corpus, Split
from charjax.training.state import TrainState
from charjax.training.step import train_step
from charjax.views import curves

# Characters of the samples that training shows.
SAMPLE_LENGTH = 300
# So many in a row end the run.
SKIPPED_UPDATES = 10
FAILED_SAVES = 3


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    config: Config
    corpus: Corpus
    mesh: Any
    workdir: Path | None
    checkpoints: Checkpoints | None

    def split(self, name: Split) -> np.ndarray:
        return self.corpus.split(name, self.config.data.split)

    def model(self, params: Params, step: int) -> LanguageModel:
        text = self.corpus
        return LanguageModel(
            self.config, params, text.vocabulary, text.counts, step, text.fingerprint
        )

    def record(self, step: int, memory: Memory, validation_loss: float | None) -> Record:
        """What makes a checkpoint explain itself."""
        text = self.corpus
        return Record(
            step=step,
            config=self.config,
            vocabulary=text.vocabulary,
            symbol_counts=text.counts,
            fingerprint=text.fingerprint,
            characters=len(text.ids),
            validation_loss=validation_loss,
            memory=memory,
            versions=_versions(),
        )


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("charjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def prng_keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """The keys of the initial parameters and of the steps."""
    initial, steps = jax.random.split(jax.random.key(config.train.seed))
    return initial, steps


@dataclass(frozen=True)
class Report:
    """Where a run's news goes."""

    bar: Progress
    file: MetricsFile | None
    history: list[dict[str, Any]]
    patience: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """A context for what waits for other processes."""

    failing: set[str] = dataclasses.field(default_factory=set)
    """Names of files that could not be written the last time."""

    def write(self, **fields: Any) -> None:
        self.history.append(fields)
        if self.file is not None:
            file = self.file
            self.attempt(run_directory.METRICS, lambda: file.write(**fields))

    def sync(self) -> None:
        """The lines so far survive a loss of power."""
        if self.file is not None:
            self.attempt(run_directory.METRICS, self.file.sync)

    def attempt(self, name: str, write: Callable[[], None]) -> None:
        """Writes a file that training can do without; a warning if that fails."""
        try:
            write()
        except OSError as error:
            if name not in self.failing:
                self.bar.message(
                    f"warning: {name} cannot be written, {error.strerror}; training goes on"
                )
            self.failing.add(name)
        else:
            self.failing.discard(name)


def out_of_patience(config: Config, memory: Memory) -> bool:
    """Whether early stopping ends the run."""
    limit = config.train.early_stopping
    return limit is not None and memory.stale_evaluations >= limit


def loop(
    run: Run,
    state: TrainState,
    sharding: TrainState,
    memory: Memory,
    total: int,
    report: Report,
    stop: Callable[[], bool],
) -> tuple[TrainState, Memory]:
    """Trains from where `state` stands to step `total`, an early end, or a stop.

    Returns the state and the memory it ends with; the last step is logged and, with a
    run directory, on its way to disk.
    """
    config, train = run.config, run.config.train
    ids, first = run.split("train"), int(state.step)
    rows = placement.local_rows(run.mesh, config.data.batch_size)
    update = jax.jit(
        functools.partial(
            train_step, config, gather=placement.gathered(run.mesh, config.parallel.fsdp)
        ),
        donate_argnums=0,
        out_shardings=(sharding, placement.replicated(run.mesh)),
    )
    _, key = prng_keys(config)
    clock = _Clock(first)
    waiting: tuple[int, Any] | None = None
    for step in range(first, total):
        batch = batching.batch_at(ids, config.data, train.seed, step, rows)
        batch = placement.put_batch(run.mesh, batch)
        clock.prepared(waiting is None or waiting[1]["loss"].is_ready())
        state, metrics = update(state, batch, key)
        done = step + 1
        # The step just dispatched runs while the one before it is looked at.
        if waiting is not None:
            memory = _log(run, waiting, clock, memory, report)
            if waiting[0] == first + 1:
                # The first step waited for compilation, which is not its speed.
                clock = _Clock(first + 1)
        waiting = (done, metrics)
        _tolerate(run, report, lambda checkpoints: checkpoints.poll())

        last, stopping = done == total, stop()
        evaluating = last or _due(done, train.eval_every)
        sampling = _due(done, train.sample_every)
        saving = last or stopping or _due(done, train.checkpoint_every)
        if not (evaluating or sampling or saving):
            continue
        memory = _log(run, waiting, clock, memory, report)
        if memory.skipped_updates and not (last or stopping):
            # The parameters may be what makes updates fail: those of before stay.
            saving = False
        waiting, validation, best = None, None, memory.best_step
        if evaluating and len(run.split("validation")) > 1:
            validation = _evaluate(run, state, "validation", report)
            memory = memory.after(validation.nats_per_char, done)
        exhausted = out_of_patience(config, memory)
        if sampling or last:
            _sample(run, state, report)
        if saving or exhausted or memory.best_step != best:
            _tolerate(run, report, lambda checkpoints: checkpoints.wait())
            # A step on the disk whose metrics are not would resume with lines missing.
            report.sync()
            _tolerate(run, report, _saving(run, state, memory, validation))
        if validation is not None and run.workdir is not None and processes.is_first():
            _draw_curves(run, run.workdir / run_directory.CURVES, report)
        if exhausted:
            report.bar.message(
                f"stopping early: no improvement in {memory.stale_evaluations} evaluations "
                f"since step {memory.best_step:,}"
            )
        if stopping or exhausted:
            break
        clock.restart(done)
    report.bar.message(clock.summary())
    return state, memory


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


class _Clock:
    """Measures training alone: evaluation, samples and saves do not count."""

    def __init__(self, step: int) -> None:
        self.trained = self.waited = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step, self.time, self.idle = step, time.perf_counter(), 0.0
        self.busy = self.time

    def ended(self) -> None:
        """A step has just ended, and the device has begun with the next one."""
        now = time.perf_counter()
        self.trained += now - self.busy
        self.busy = now

    def prepared(self, idle: bool) -> None:
        """The next step can begin, and the device has nothing to do if `idle`."""
        if idle:
            # It may have been later that it ran out of work.
            waited = time.perf_counter() - self.busy
            self.idle += waited
            self.waited += waited

    def steps_per_second(self, step: int) -> float:
        return (step - self.step) / self._elapsed()

    def input_wait(self) -> float:
        """The share of time, at most, that the device waited for input."""
        return min(self.idle / self._elapsed(), 1.0)

    def summary(self) -> str:
        share = min(self.waited / max(self.trained, 1e-9), 1.0)
        return f"the device waited for input {share:.1%} of the training time, at most"

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.time, 1e-9)


def _log(
    run: Run, waiting: tuple[int, Any], clock: _Clock, memory: Memory, report: Report
) -> Memory:
    step, metrics = waiting
    with report.patience():
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    clock.ended()
    loss, norm, skipped = values["loss"], values["grad_norm"], values["skipped"]
    in_a_row = memory.skipped_updates + 1 if skipped else 0
    memory = dataclasses.replace(memory, skipped_updates=in_a_row)
    if skipped:
        report.write(step=step, split="train", loss=loss, grad_norm=norm, skipped=True)
        report.bar.message(
            f"warning: the update of step {step:,} was skipped (loss {loss:.4g}, gradient "
            f"norm {norm:.4g})"
        )
        if in_a_row >= SKIPPED_UPDATES:
            rate = run.config.optimizer.learning_rate
            raise Diverged(
                f"training diverged: {in_a_row} updates in a row were skipped up to step "
                f"{step:,} (loss {loss:.4g}, gradient norm {norm:.4g}): lower "
                f"optimizer.learning_rate ({rate}) or set optimizer.clip_norm; no "
                "checkpoint was saved since the first of them."
            )
        return memory
    data = run.config.data
    speed = clock.steps_per_second(step) * data.batch_size * data.sequence_length
    report.bar.update(step, loss, bits(loss), speed)
    if _due(step, run.config.train.log_every):
        report.write(
            step=step,
            split="train",
            loss=loss,
            bits_per_char=bits(loss),
            learning_rate=values["learning_rate"],
            grad_norm=norm,
            chars_per_second=speed,
            input_wait=clock.input_wait(),
        )
        clock.restart(step)
    return memory


def _evaluate(run: Run, state: TrainState, split: Split, report: Report) -> Evaluation:
    step, ids = int(state.step), run.split(split)
    score = evaluate(run.config, state.params, ids, mesh=run.mesh)
    report.write(
        step=step,
        split=split,
        loss=score.nats_per_char,
        bits_per_char=score.bits_per_char,
        rows=score.rows,
    )
    report.bar.message(
        f"step {step:,}: {split} loss {score.nats_per_char:.4f} nats "
        f"({score.bits_per_char:.3f} bits) per character"
    )
    return score


def _sample(run: Run, state: TrainState, report: Report) -> None:
    step, params = int(state.step), state.params
    if run.mesh.size > 1:
        # One text at a time is no work for several devices.
        params = placement.on_one_device(params)
    if not processes.is_first():
        return
    text = run.model(params, step).generate("", SAMPLE_LENGTH, seed=step % 2**32)
    report.bar.message(f"--- sample at step {step:,} ---\n{text}\n---")
    if run.workdir is not None:
        path = run.workdir / run_directory.SAMPLES
        report.attempt(path.name, lambda: samples.append(path, step, text))


def _draw_curves(run: Run, path: Path, report: Report) -> None:
    title = f"{path.parent.name}: {run.config.model.cell}"
    report.attempt(path.name, lambda: curves.draw(report.history, path, title=title))


def _saving(
    run: Run, state: TrainState, memory: Memory, validation: Evaluation | None
) -> Callable[[Checkpoints], None]:
    loss = None if validation is None else validation.nats_per_char
    step = int(state.step)
    items = {"params": state.params, "opt_state": state.opt_state, "carry": state.carry}
    record = run.record(step, memory, loss).to_dict()
    return lambda checkpoints: checkpoints.save(step, items, record)


def _tolerate(run: Run, report: Report, save: Callable[[Checkpoints], None]) -> None:
    """Does something with the checkpoints; training goes on if it fails, for a while."""
    if run.checkpoints is None:
        return
    try:
        save(run.checkpoints)
    except OSError as error:
        if run.checkpoints.failures >= FAILED_SAVES:
            raise OSError(
                f"{error}; so have the {FAILED_SAVES - 1} saves before it. Make room or "
                "mend the disk, then go on with the same command."
            ) from error
        report.bar.message(f"warning: {error}; training goes on")


def score_test(run: Run, state: TrainState, report: Report) -> None:
    """The test split, scored once, with the best parameters if they were kept."""
    if len(run.split("test")) < 2:
        return
    if run.checkpoints is not None:
        run.checkpoints.wait()
        processes.wait("saved")
        first = processes.is_first()
        best = processes.from_first(run.checkpoints.resolve("best") if first else 0)
        place = jax.tree.map(lambda leaf: leaf.sharding, state.params)
        target = {"params": placement.abstract(state.params, place)}
        params = run.checkpoints.restore(best, target)["params"]
        state = dataclasses.replace(state, params=params)
    _evaluate(run, state, "test", report)
