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
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charjax.config.schema import Config, flatten
from charjax.devices import memory, placement, processes
from charjax.errors import Diverged, InputError
from charjax.language_model import LanguageModel
from charjax.model.network import Params
from charjax.reporting import samples
from charjax.reporting.metrics import MetricsFile, read, truncate_after
from charjax.reporting.progress import progress, reading
from charjax.run.loop import Report, Run, loop, out_of_patience, prng_keys, score_test
from charjax.run.plan import Plan, plan, same_text
from charjax.storage import run_directory
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.digest import digest
from charjax.storage.record import Memory
from charjax.storage.record import read as read_record
from charjax.text import batching
from charjax.text.corpus import load as load_corpus
from charjax.text.corpus import text_without_file
from charjax.text.vocabulary import Vocabulary
from charjax.training.optimizer import total_steps
from charjax.training.state import TrainState, initial_state

# Seconds until a file that one process wrote must be seen by the others; NFS looks into a
# directory again after a minute.
_SHARED = 75


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
    """Lowest validation loss in nats per character; None if never evaluated."""

    workdir: Path | None
    """Where the run is kept; None if it is not."""

    config: Config
    """The config as it ran, its schedule resolved."""

    model: LanguageModel
    """The model at the end of training, ready to write; `charjax.load(workdir)` gives
    the best one."""


def fit(
    config: Config,
    workdir: str | Path | None = None,
    *,
    text: str | bytes | None = None,
    fresh: bool = False,
    strict: bool = False,
    quiet: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Trains a model, or goes on with a run that was stopped.

    Args:
      config: everything about the run.
      workdir: where to keep it; None keeps nothing. A directory that holds a run is
        resumed, bit for bit as if it had never stopped; then only the run's length,
        cadences and early stopping may differ from its own config.
      text: the text itself, instead of `config.data.source`.
      fresh: start over, even if `workdir` holds a run.
      strict: refuse to resume where a checkpoint is damaged, instead of going on from the
        newest that is not.
      quiet: show no progress.
      stop: asked after every update; True ends the run there, with a checkpoint. Among
        several processes all must answer the same.

    Raises:
      InputError: a config, text or directory that cannot work; nothing was written.
      Diverged: update after update was skipped, loss or gradient being no number.
      MemoryError: the device has not enough memory for a step.
      OSError: several saves in a row failed, or the last one.

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
    workdir = None if workdir is None else Path(workdir)
    # Nobody writes before all have looked, and found the same.
    with processes.all_or_none(), reading(quiet or not processes.is_first()) as watch:
        planned = plan(config, workdir, text, fresh, strict, watch)
    _check_agreement(planned)
    config, resuming = planned.config, planned.resuming

    with processes.leaving_together(Diverged), contextlib.ExitStack() as stack:
        with processes.all_or_none():
            if workdir is not None and processes.is_first():
                stack.enter_context(run_directory.lock(workdir))
        if workdir is not None:
            _check_shared(workdir, resuming)
        with processes.all_or_none(), reading(quiet or not processes.is_first()) as watch:
            corpus = load_corpus(planned.surveyed, watch)
        checkpoints = None
        if workdir is not None:
            directory = workdir / run_directory.CHECKPOINTS
            # What a killed run left is tidied up before the others read.
            with processes.all_or_none():
                if processes.is_first():
                    if not resuming:
                        # Only now that nothing can be refused any more.
                        _make(workdir, config, text, fresh)
                    checkpoints = stack.enter_context(Checkpoints(directory))
            with processes.all_or_none():
                if not processes.is_first():
                    checkpoints = stack.enter_context(Checkpoints(directory))
        run = Run(config, corpus, planned.mesh, workdir, checkpoints)
        return _train(run, planned.origin, quiet or not processes.is_first(), stop)


def _check_agreement(planned: Plan) -> None:
    fields = {name: _digest(repr(value)) for name, value in flatten(planned.config)}
    origin = "" if planned.origin is None else digest({"params": planned.origin})
    processes.check_agreement(
        {
            **fields,
            "text": planned.surveyed.fingerprint,
            "model in train.init_from": _digest(origin),
        }
    )


def _check_shared(workdir: Path, resuming: bool) -> None:
    """Refuses a directory that not all processes see, or that they see otherwise."""
    lock = processes.from_first(run_directory.lock_holder(workdir))
    patience = time.monotonic() + _SHARED
    with processes.all_or_none():
        # Some file systems show a new file to other hosts only after a while.
        while run_directory.lock_holder(workdir) != lock:
            if time.monotonic() > patience:
                raise InputError(
                    f"--workdir is {workdir}: process {jax.process_index()} does not see "
                    "there what process 0 has just written: put it on a file system that "
                    "all processes share."
                )
            time.sleep(0.2)
    processes.check_agreement({"run in --workdir": _digest(str(resuming))})


def _make(workdir: Path, config: Config, text: str | bytes | None, fresh: bool) -> None:
    own_text = text_without_file(config.data, text)
    if fresh:
        run_directory.start_over(workdir)
    run_directory.create(workdir, config, own_text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _start(run: Run, origin: Params | None) -> tuple[TrainState, Any, Memory]:
    """The state to begin with, its sharding and the host's memory."""
    config, vocab_size = run.config, run.corpus.vocabulary.size
    make = functools.partial(initial_state, config, vocab_size)
    key, _ = prng_keys(config)
    shapes = jax.eval_shape(make, key)
    sharding = placement.state_sharding(run.mesh, shapes, config.parallel.fsdp)
    found = None
    if run.checkpoints is not None and processes.is_first():
        found = run.checkpoints.latest()
    step = processes.from_first(-1 if found is None else found)
    if step < 0:
        if run.mesh.size > 1 and jax.default_backend() == "cpu":
            # Each of several CPU devices would do all the work, on the same cores.
            state = placement.put(jax.jit(make)(key), sharding)
        else:
            state = jax.jit(make, out_shardings=sharding)(key)
        if origin is not None:
            params = placement.put(origin, sharding.params)
            state = dataclasses.replace(state, params=params)
        return state, sharding, Memory()
    assert run.checkpoints is not None and run.workdir is not None
    record = read_record(run.checkpoints, step)
    # Again, since a step that was whole but had no name yet has one only now.
    same_text(record, config, run.workdir, run.corpus.fingerprint, len(run.corpus.ids))
    target = placement.abstract(shapes, sharding)
    items = run.checkpoints.restore(
        step,
        {"params": target.params, "opt_state": target.opt_state, "carry": target.carry},
    )
    count = placement.put(np.int32(step), sharding.step)
    return TrainState(step=count, **items), sharding, record.memory


def _train(
    run: Run, origin: Params | None, quiet: bool, stop: Callable[[], bool]
) -> FitResult:
    config, workdir = run.config, run.workdir
    with memory.told(_too_large(config)):
        state, sharding, remembered = _start(run, origin)
    first = int(state.step)
    own = workdir if processes.is_first() else None
    if own is not None:
        # A resumed run's length may be new; written once it is known to go on.
        run_directory.write_config(own, config)
    epoch_steps = batching.batches_per_epoch(len(run.split("train")), config.data)
    total = total_steps(config, epoch_steps)
    history: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        file = None
        if own is not None:
            metrics = own / run_directory.METRICS
            truncate_after(metrics, first)
            samples.truncate_after(own / run_directory.SAMPLES, first)
            history = read(metrics)
            file = stack.enter_context(MetricsFile(metrics))
        bar = stack.enter_context(progress(max(total, 1), first_step=first, quiet=quiet))
        for line in _introduction(run, state.params, first, total, epoch_steps):
            bar.message(line)
        patience = stack.enter_context(processes.watched())
        report = Report(bar, file, history, patience)
        if first >= total or out_of_patience(config, remembered):
            early = "early " if first < total else ""
            bar.message(f"this run ended {early}at step {first:,}; {_how_to_go_on(config)}")
        else:
            if first > 0:
                bar.message(f"resuming at step {first:,}")
            with memory.told(_too_large(config)):
                state, remembered = loop(
                    run, state, sharding, remembered, total, report, stop
                )
        step = int(state.step)
        scored = any(
            line.get("split") == "test" and line.get("step") == step for line in history
        )
        # The first process alone has read the history.
        scored = bool(processes.from_first(int(scored)))
        if (step >= total or out_of_patience(config, remembered)) and not scored:
            score_test(run, state, report)
    params = state.params if run.mesh.size == 1 else placement.on_one_device(state.params)
    return FitResult(
        state=state,
        vocabulary=run.corpus.vocabulary,
        history=history,
        best_loss=remembered.best_loss,
        workdir=workdir,
        config=config,
        model=run.model(params, int(state.step)),
    )


def _too_large(config: Config) -> str:
    data, precision = config.data, config.train.precision
    return (
        f"the device has not enough memory for a step of data.batch_size "
        f"{data.batch_size}, data.sequence_length {data.sequence_length} and "
        f"train.precision {precision}: make one of the first two smaller, raise "
        "optimizer.accumulate, or use bfloat16."
    )


def _how_to_go_on(config: Config) -> str:
    options = config.optimizer
    if options.schedule in ("cosine", "linear") and options.final_scale == 0:
        return (
            f"its {options.schedule} schedule has come down to 0, so to train longer start "
            "another run with train.init_from"
        )
    return "a larger train.steps, train.epochs or train.early_stopping goes on"


def _introduction(
    run: Run, params: Params, first: int, total: int, epoch_steps: int
) -> Iterator[str]:
    """What a person wants to know before the first step."""
    if first == 0:
        yield from run.corpus.report.lines()
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    characters = len(run.split("train"))
    data, model = run.config.data, run.config.model
    devices = f"{run.mesh.size} {jax.devices()[0].device_kind} device(s)"
    yield (
        f"model: {model.num_layers} x {model.hidden_size} {model.cell.upper()}, "
        f"{count:,} parameters, {run.config.train.precision}, on {devices}"
    )
    steps, epochs = run.config.train.steps, run.config.train.epochs
    limit = ""
    if steps is not None and epochs is not None:
        limit = f" (train.{'steps' if total == steps else 'epochs'} ends first)"
    yield (
        f"run: {total:,} steps{limit} of {data.batch_size} x {data.sequence_length} "
        f"characters, {epoch_steps:,} steps an epoch"
    )
    options = run.config.optimizer
    horizon = options.schedule_steps
    if options.schedule in ("cosine", "linear") and horizon and first < total > horizon:
        yield (
            f"hint: after step {horizon:,}, where the {options.schedule} schedule was born "
            f"to end, the learning rate stays {options.learning_rate * options.final_scale}"
        )
    if count > 20 * characters:
        yield (
            f"hint: {count / characters:.0f} parameters for each character of training "
            "text: the model will recite; try a smaller model.hidden_size or more dropout"
        )
    elif characters > 50 * count:
        yield (
            f"hint: {characters / count:.0f} characters of training text for each "
            "parameter: a larger model.hidden_size would learn more from it"
        )
