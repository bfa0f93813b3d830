"""`fit(config)`: the one impure orchestrator. It reads in the order it happens:

1. the plan: config, text and devices, looked at before anything is written (`plan.py`)
2. the run directory, locked
3. the text's ids
4. the state: fresh, from another run's parameters, or restored
5. the loop: step, log, evaluate, sample, save
6. the end: last checkpoint on disk, test split, picture
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax

from charjax.config.checks import check_instance, checked, checked_path, refuse
from charjax.config.schema import Config
from charjax.devices import memory, processes
from charjax.devices.backend import computing
from charjax.errors import Diverged
from charjax.evaluation import units
from charjax.language_model import LanguageModel
from charjax.reporting import metrics
from charjax.reporting.progress import reading
from charjax.reporting.report import Report, open_report
from charjax.run.directory import locked, opened, settle
from charjax.run.interruption import (
    OnInterrupt,
    check_cell,
    exception,
    noted,
    resolved,
    stop_cell,
)
from charjax.run.introduction import how_to_train_longer, introduction
from charjax.run.kernels import with_kernels
from charjax.run.loop import loop
from charjax.run.plan import Plan, check_agreement, going_on, is_over, plan
from charjax.run.run import Run, score_test
from charjax.run.start import first_state
from charjax.storage import run_directory
from charjax.storage.checkpoints import warn
from charjax.storage.place import Place
from charjax.storage.record import Standing
from charjax.text.corpus import load as load_corpus
from charjax.text.vocabulary import Vocabulary
from charjax.training.state import TrainState


@dataclass(frozen=True, eq=False)
class FitResult:
    """What training leaves in memory."""

    state: TrainState = dataclasses.field(repr=False)
    """The state after the last update."""

    vocabulary: Vocabulary
    """The symbols behind the ids."""

    history: list[dict[str, Any]] = dataclasses.field(repr=False)
    """The lines of `metrics.jsonl`."""

    best_loss: float | None
    """Lowest validation loss in nats per character, per byte for a model of bytes, or per
    symbol for one of documents; None if never evaluated."""

    workdir: Path | None
    """Where the run is kept; None if it is not."""

    config: Config
    """The config as it ran, its schedule resolved."""

    interrupted: bool
    """Whether Ctrl-C ended it; the same call goes on, if there is a `workdir`."""

    model: LanguageModel
    """The model at the end of training, ready to write; `charjax.load(workdir)` gives
    the best one."""

    def __repr__(self) -> str:
        best = ""
        if self.best_loss is not None:
            best = f", best loss {self.best_loss:.4f} {units.of_loss(self.config)}"
        where = "" if self.workdir is None else f", in {self.workdir}"
        ended = ", interrupted" if self.interrupted else ""
        return f"<FitResult step {self.model.step:,}{best}{where}{ended}>"


@computing()
def fit(
    config: Config,
    workdir: str | Path | None = None,
    *,
    text: str | bytes | None = None,
    fresh: bool = False,
    strict: bool = False,
    quiet: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_interrupt: OnInterrupt | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> FitResult:
    """Trains a model, or goes on with a run that was stopped.

    Ctrl-C, or a notebook's button, ends training after the step under way, with a
    checkpoint; a second one ends it at once, and so does one before the first step.

    Args:
      config: everything about the run.
      workdir: where to keep it; None keeps nothing. A directory that holds a run is
        resumed, bit for bit as if it had never stopped; then only the run's length,
        cadences, early stopping and `optimizer.schedule_steps` may differ from its own
        config, and the place of its text.
      text: the text itself, instead of `config.data.source`.
      fresh: start over with `config`, even if `workdir` holds a run; that is replaced once
        the first checkpoint of the new one is whole. A text that it kept is used again
        where `config` names the same source.
      strict: refuse to resume where a checkpoint is damaged, instead of going on from the
        newest that is not.
      quiet: show no progress.
      stop: asked after every update; True ends the run there, with a checkpoint. Among
        several processes all must answer the same.
      on_interrupt: what follows Ctrl-C: "return" the result, with `interrupted` True, or
        "raise" a KeyboardInterrupt that has it as `.result`, so that a loop of fits ends
        too; None raises, but in IPython returns, and only the next fit in the same cell
        raises. Where Ctrl-C is handled by
        somebody else, on another thread, and among several processes it is not ours.
      optimizer: turns gradients into updates in place of `config.optimizer`, whose
        `accumulate` and `skip_norm` still count; give a resumed run the same again.
        `metrics.jsonl` then has no `learning_rate`.

    Raises:
      InputError: a config, text or directory that cannot work; nothing was written.
      Diverged: update after update was skipped, loss or gradient being no number.
      MemoryError: the device has not enough memory for a step.
      OSError: several saves in a row failed, or the last one.
      DirectoryGone: an OSError; `workdir` was renamed or deleted meanwhile.
      KeyboardInterrupt: Ctrl-C, as `on_interrupt` says.

    >>> import charjax
    >>> config = charjax.Config(
    ...     data=charjax.DataConfig(batch_size=8, sequence_length=16),
    ...     model=charjax.ModelConfig(hidden_size=32),
    ...     train=charjax.TrainConfig(steps=30),
    ... )
    >>> result = charjax.fit(config, text="the cat sat on the mat. " * 100, quiet=True)
    >>> len(result.model.generate("the ", length=20))
    24
    """
    check_instance("config", config, Config, "such as charjax.load_config('anna')")
    check_instance("text", text, (str, bytes, type(None)), "or a path in data.source")
    workdir = None if workdir is None else checked_path("workdir", workdir)
    flags = {"fresh": fresh, "strict": strict, "quiet": quiet}
    for name, value in flags.items():
        checked(f"`{name}`", value, bool)
    if not callable(stop):
        refuse("`stop`", stop, "expected a function that is asked after every step")
    quiet, after = quiet or not processes.is_first(), resolved(on_interrupt)
    if on_interrupt is None:
        check_cell()
    with noted() as interruption:
        result = _fit(
            *(config, workdir, text, fresh, strict, quiet, optimizer),
            lambda: any((stop(), interruption.stop())),
        )
        if not interruption.received:
            return result
    result = dataclasses.replace(result, interrupted=True)
    if after == "raise":
        raise exception(result)
    if on_interrupt is None:
        stop_cell()
    return result


def _fit(
    config: Config,
    workdir: Path | None,
    text: str | bytes | None,
    fresh: bool,
    strict: bool,
    quiet: bool,
    optimizer: optax.GradientTransformation | None,
    stop: Callable[[], bool],
) -> FitResult:
    # Nobody writes before all have looked, and found the same.
    settle(workdir)
    with processes.all_or_none(), reading(quiet) as watch:
        planned = plan(config, workdir, text, fresh, strict, watch, optimizer)
    check_agreement(planned)
    planned = with_kernels(planned)
    with processes.leaving_together(Diverged), locked(planned) as place:
        with processes.all_or_none(), reading(quiet) as watch:
            corpus = load_corpus(planned.surveyed, watch)
        too_large = memory.explain_shortage(_too_large(planned.config))
        with opened(planned, place) as saver, too_large:
            state, standing = first_state(planned, saver)
            planned = going_on(planned, int(state.step), standing)
            with _reported(planned, place, int(state.step), quiet) as report:
                run = Run(planned, corpus, saver, report)
                return _train(run, state, standing, stop)


@contextlib.contextmanager
def _reported(
    planned: Plan, place: Place | None, first: int, quiet: bool
) -> Iterator[Report]:
    """The report of a run that goes on after step `first`; one process writes its files."""
    place = place if processes.is_first() else None
    if place is not None:
        if first == 0:
            _set_lost_aside(place)
        place.check()
        # A resumed run's length may be new; written once it is known to go on.
        run_directory.write_config(place.files, planned.config)
    unit = units.short(units.unit(planned.config))
    with open_report(place, first, planned.total, quiet, unit) as report:
        yield report


def _set_lost_aside(place: Place) -> None:
    """Where the checkpoints are gone, keeps what was written on the way to them."""
    logged = metrics.read(path := place.files / run_directory.METRICS)
    reached = max((line.get("step", 0) for line in logged), default=0)
    if reached:
        place.check()
        kept = run_directory.set_aside(place.files, reached)
        warn(
            f"{path} goes up to step {reached:,}, but there is no checkpoint in "
            f"{place.files / run_directory.CHECKPOINTS}: training starts again at step 0; "
            f"to go on instead, stop it and restore that folder from a copy ({kept} has "
            "the metrics of before)"
        )


def _train(
    run: Run, state: TrainState, standing: Standing, stop: Callable[[], bool]
) -> FitResult:
    first = int(state.step)
    for line in introduction(run, first):
        run.report.message(line)
    if is_over(run.plan, first, standing):
        early = "early " if first < run.plan.total else ""
        remedy = how_to_train_longer(run, first)
        run.report.message(f"this run ended {early}at step {first:,}; {remedy}")
    else:
        if first > 0:
            run.report.message(f"resuming at step {first:,}")
        state, standing = loop(run, state, standing, stop)
    if is_over(run.plan, int(state.step), standing):
        score_test(run, state)
    return FitResult(
        state=state,
        vocabulary=run.corpus.text.vocabulary,
        history=run.report.history,
        best_loss=standing.best_loss,
        workdir=run.plan.workdir,
        config=run.config,
        interrupted=False,
        model=run.model(state),
    )


def _too_large(config: Config) -> str:
    data, precision = config.data, config.train.precision
    return (
        f"the device has not enough memory for a step of data.batch_size "
        f"{data.batch_size}, data.sequence_length {data.sequence_length} and "
        f"train.precision {precision}: make one of the first two smaller, raise "
        "optimizer.accumulate, or use bfloat16."
    )
