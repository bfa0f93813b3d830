"""`fit(config)`: the one impure orchestrator. It reads in the order it happens:

1. the config: a new run's, or a resumed run's own
2. the text, surveyed and checked before anything is written
3. the run directory, locked
4. the state: fresh, from another run's parameters, or restored
5. the loop: step, log, evaluate, sample, save
6. the end: last checkpoint on disk, test split, picture
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charjax.config import Config, InputError, to_dict
from charjax.evaluation import Evaluation, evaluate
from charjax.language_model import LanguageModel, load
from charjax.model.network import Params
from charjax.reporting import curves, samples
from charjax.reporting.metrics import MetricsFile, bits, read, truncate_after
from charjax.reporting.progress import Progress, progress
from charjax.storage import run_directory
from charjax.storage.checkpoints import Checkpoints
from charjax.text import batching
from charjax.text.corpus import Corpus, Split, Survey, boundaries, survey, text_without_file
from charjax.text.corpus import load as load_corpus
from charjax.text.vocabulary import Vocabulary
from charjax.training import parallel
from charjax.training.optimizer import resolve, total_steps
from charjax.training.state import TrainState, initial_state
from charjax.training.step import train_step

SAMPLE_LENGTH = 300


class Diverged(RuntimeError):
    """The loss is no longer a number; the last good checkpoint stays."""


@dataclass(frozen=True)
class FitResult:
    """What training leaves in memory."""

    state: TrainState
    """The state after the last update."""

    vocabulary: Vocabulary
    """The symbols behind the ids."""

    history: list[dict[str, Any]]
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


@dataclass(frozen=True)
class Memory:
    """What the host remembers between steps; it is in every checkpoint's record."""

    best_loss: float | None = None
    best_step: int | None = None
    stale_evaluations: int = 0

    def after(self, loss: float, step: int) -> "Memory":
        """The memory after an evaluation."""
        if self.best_loss is None or loss < self.best_loss:
            return Memory(loss, step, 0)
        return dataclasses.replace(self, stale_evaluations=self.stale_evaluations + 1)


def fit(
    config: Config,
    workdir: str | Path | None = None,
    *,
    text: str | bytes | None = None,
    fresh: bool = False,
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
      quiet: show no progress.
      stop: asked after every update; True ends the run there, with a checkpoint.

    Raises:
      InputError: a config, text or directory that cannot work; nothing was written.
      Diverged: the loss stopped being a number.

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
    if text is not None:
        config = config.replace(**{"data.source": ["memory"]})
    resuming = workdir is not None and run_directory.holds_run(workdir) and not fresh
    if resuming:
        assert workdir is not None
        config = run_directory.resumed_config(run_directory.read_config(workdir), config)

    mesh = parallel.make_mesh()
    parallel.check_devices(config, mesh)
    kept = None if not resuming or workdir is None else run_directory.kept_text(workdir)
    surveyed = survey(config.data, kept if text is None else text)
    config = _checked(config, surveyed)
    origin = None
    if config.train.init_from is not None and not resuming:
        origin = _origin(config, surveyed.vocabulary)

    with contextlib.ExitStack() as stack:
        checkpoints = None
        if workdir is not None:
            stack.enter_context(run_directory.lock(workdir))
            if fresh:
                run_directory.start_over(workdir)
        corpus = load_corpus(surveyed)
        if workdir is not None:
            if not resuming:
                run_directory.create(workdir, config, text_without_file(config.data, text))
            directory = workdir / run_directory.CHECKPOINTS
            checkpoints = stack.enter_context(Checkpoints(directory))
        return _train(_Run(config, corpus, mesh, workdir, checkpoints), origin, quiet, stop)


def _checked(config: Config, surveyed: Survey) -> Config:
    """Refuses a text that is too short; fixes the schedule's horizon."""
    train = 0
    for name in ("train", "validation", "test"):
        start, end = boundaries(surveyed.length, name, config.data.split)
        batching.check_length(end - start, config.data, name)
        train = end - start if name == "train" else train
    return resolve(config, batching.batches_per_epoch(train, config.data))


def _origin(config: Config, vocabulary: Vocabulary) -> Params:
    """Parameters of `train.init_from`, if vocabulary and shape are the same."""
    directory = config.train.init_from
    assert directory is not None
    model = load(directory)
    differs = [
        f"model.{name} is {there!r} there and {here!r} here"
        for (name, there), here in zip(
            dataclasses.asdict(model.config.model).items(),
            dataclasses.asdict(config.model).values(),
            strict=True,
        )
        if there != here and name not in ("dropout", "forget_bias")
    ]
    if model.vocabulary != vocabulary:
        here, there = set(vocabulary.symbols), set(model.vocabulary.symbols)
        only = [f"{len(here - there)} symbols only here", f"{len(there - here)} only there"]
        differs.append(f"the vocabularies differ ({', '.join(only)})")
    if differs:
        raise InputError(
            f"train.init_from is {directory!r}: its parameters do not fit: "
            f"{'; '.join(differs)}. Give the same model and a text of the same symbols."
        )
    return model.params


@dataclass(frozen=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: Config
    corpus: Corpus
    mesh: Any
    workdir: Path | None
    checkpoints: Checkpoints | None

    def split(self, name: Split) -> np.ndarray:
        return self.corpus.split(name, self.config.data.split)

    def model(self, params: Params, step: int) -> LanguageModel:
        corpus = self.corpus
        return LanguageModel(self.config, params, corpus.vocabulary, corpus.counts, step)

    def record(self, step: int, memory: Memory, validation_loss: float | None) -> Any:
        """What makes a checkpoint explain itself."""
        return {
            "step": step,
            "config": to_dict(self.config),
            "vocabulary": self.corpus.vocabulary.to_dict(),
            "symbol_counts": self.corpus.counts.tolist(),
            "corpus": {
                "fingerprint": self.corpus.fingerprint,
                "characters": len(self.corpus.ids),
            },
            "validation_loss": validation_loss,
            "memory": dataclasses.asdict(memory),
            "versions": _versions(),
        }


def _versions() -> dict[str, str]:
    packages = ("charjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """The keys of the initial parameters and of the steps."""
    initial, steps = jax.random.split(jax.random.key(config.train.seed))
    return initial, steps


def _start(run: _Run, origin: Params | None) -> tuple[TrainState, Any, Memory]:
    """The state to begin with, its sharding and the host's memory."""
    config, vocab_size = run.config, run.corpus.vocabulary.size
    make = functools.partial(initial_state, config, vocab_size)
    key, _ = _keys(config)
    shapes = jax.eval_shape(make, key)
    sharding = parallel.state_sharding(run.mesh, shapes)
    step = None if run.checkpoints is None else run.checkpoints.latest()
    if step is None:
        state = jax.jit(make, out_shardings=sharding)(key)
        if origin is not None:
            params = jax.device_put(origin, sharding.params)
            state = dataclasses.replace(state, params=params)
        return state, sharding, Memory()
    assert run.checkpoints is not None
    record = run.checkpoints.record(step)
    _check_corpus(run, record)
    target = parallel.abstract(shapes, sharding)
    items = run.checkpoints.restore(
        step,
        {"params": target.params, "opt_state": target.opt_state, "carry": target.carry},
    )
    count = jax.device_put(np.int32(step), sharding.step)
    return TrainState(step=count, **items), sharding, Memory(**record["memory"])


def _check_corpus(run: _Run, record: dict[str, Any]) -> None:
    if record["corpus"]["fingerprint"] != run.corpus.fingerprint:
        raise InputError(
            f"data.source is {' '.join(run.config.data.sources)}: the text is not the one "
            f"that {run.workdir} was trained on ({len(run.corpus.ids):,} characters now, "
            f"{record['corpus']['characters']:,} then). Restore the text, or start over "
            "with --fresh or another --workdir."
        )


@dataclass(frozen=True)
class _Report:
    """Where a run's news goes."""

    bar: Progress
    file: MetricsFile | None
    history: list[dict[str, Any]]

    def write(self, **fields: Any) -> None:
        self.history.append(fields)
        if self.file is not None:
            self.file.write(**fields)


def _train(
    run: _Run, origin: Params | None, quiet: bool, stop: Callable[[], bool]
) -> FitResult:
    config, workdir = run.config, run.workdir
    state, sharding, memory = _start(run, origin)
    first = int(state.step)
    epoch_steps = batching.batches_per_epoch(len(run.split("train")), config.data)
    total = total_steps(config, epoch_steps)
    history: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        file = None
        if workdir is not None:
            metrics = workdir / run_directory.METRICS
            truncate_after(metrics, first)
            samples.truncate_after(workdir / run_directory.SAMPLES, first)
            history = read(metrics)
            file = stack.enter_context(MetricsFile(metrics))
        bar = stack.enter_context(progress(max(total, 1), first_step=first, quiet=quiet))
        for line in _introduction(run, state.params, first, total, epoch_steps):
            bar.message(line)
        if first < total and not _exhausted(config, memory):
            report = _Report(bar, file, history)
            state, memory = _loop(run, state, sharding, memory, total, report, stop)
            if int(state.step) == total or _exhausted(config, memory):
                _score_test(run, state, report)
    return FitResult(
        state=state,
        vocabulary=run.corpus.vocabulary,
        history=history,
        best_loss=memory.best_loss,
        workdir=workdir,
        config=config,
        model=run.model(state.params, int(state.step)),
    )


def _introduction(
    run: _Run, params: Params, first: int, total: int, epoch_steps: int
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
    yield (
        f"run: {total:,} steps of {data.batch_size} x {data.sequence_length} characters, "
        f"{epoch_steps:,} steps an epoch"
    )
    if count > 20 * characters:
        yield (
            f"hint: {count / characters:.0f} parameters for each character of training "
            "text: the model will recite; try a smaller model.hidden_size or model.dropout 0.5"
        )
    elif characters > 50 * count:
        yield (
            f"hint: {characters / count:.0f} characters of training text for each "
            "parameter: a larger model.hidden_size would learn more from it"
        )
    if first >= total:
        yield f"the run is finished at step {first:,}; a larger train.steps or train.epochs goes on"
    elif first > 0:
        yield f"resuming at step {first:,}"


def _exhausted(config: Config, memory: Memory) -> bool:
    limit = config.train.early_stopping
    return limit is not None and memory.stale_evaluations >= limit


def _loop(
    run: _Run,
    state: TrainState,
    sharding: TrainState,
    memory: Memory,
    total: int,
    report: _Report,
    stop: Callable[[], bool],
) -> tuple[TrainState, Memory]:
    config, train = run.config, run.config.train
    ids, first = run.split("train"), int(state.step)
    rows = parallel.local_rows(run.mesh, config.data.batch_size)
    update = jax.jit(
        functools.partial(train_step, config),
        donate_argnums=0,
        out_shardings=(sharding, parallel.replicated(run.mesh)),
    )
    _, key = _keys(config)
    clock = _Clock(first)
    waiting: tuple[int, Any] | None = None
    for step in range(first, total):
        batch = batching.batch_at(ids, config.data, train.seed, step, rows)
        state, metrics = update(state, parallel.put_batch(run.mesh, batch), key)
        done = step + 1
        # The step just dispatched runs while the one before it is looked at.
        if waiting is not None:
            _log(run, waiting, clock, report)
        waiting = (done, metrics)

        last, stopping = done == total, stop()
        evaluating = last or _due(done, train.eval_every)
        sampling = _due(done, train.sample_every)
        saving = last or stopping or _due(done, train.checkpoint_every)
        if not (evaluating or sampling or saving):
            continue
        _log(run, waiting, clock, report)
        waiting, validation, best = None, None, memory.best_step
        if evaluating and len(run.split("validation")) > 1:
            validation = _evaluate(run, state, "validation", report)
            memory = memory.after(validation.nats_per_char, done)
        exhausted = _exhausted(config, memory)
        if sampling or last:
            _sample(run, state, report)
        if run.checkpoints is not None and (saving or exhausted or memory.best_step != best):
            _save(run, state, memory, validation)
        if validation is not None and run.workdir is not None:
            title = f"{run.workdir.name}: {config.model.cell}"
            curves.draw(report.history, run.workdir / run_directory.CURVES, title=title)
        if exhausted:
            report.bar.message(
                f"stopping early: no improvement in {memory.stale_evaluations} evaluations "
                f"since step {memory.best_step:,}"
            )
        if stopping or exhausted:
            break
        clock.restart(done)
    return state, memory


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


class _Clock:
    """Measures training alone: evaluation, samples and saves do not count."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        self.step, self.time = step, time.perf_counter()

    def steps_per_second(self, step: int) -> float:
        return (step - self.step) / max(time.perf_counter() - self.time, 1e-9)


def _log(run: _Run, waiting: tuple[int, Any], clock: _Clock, report: _Report) -> None:
    step, metrics = waiting
    values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    loss, norm = values["loss"], values["grad_norm"]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        rate = run.config.optimizer.learning_rate
        raise Diverged(
            f"training diverged at step {step:,} (loss {loss}, gradient norm {norm}): "
            f"lower optimizer.learning_rate ({rate}) or set optimizer.clip_norm; the last "
            "checkpoint is untouched."
        )
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
        )
        clock.restart(step)


def _evaluate(run: _Run, state: TrainState, split: Split, report: _Report) -> Evaluation:
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


def _sample(run: _Run, state: TrainState, report: _Report) -> None:
    step = int(state.step)
    text = run.model(state.params, step).generate("", SAMPLE_LENGTH, seed=step % 2**32)
    report.bar.message(f"--- sample at step {step:,} ---\n{text}\n---")
    if run.workdir is not None:
        samples.append(run.workdir / run_directory.SAMPLES, step, text)


def _save(
    run: _Run, state: TrainState, memory: Memory, validation: Evaluation | None
) -> None:
    assert run.checkpoints is not None
    loss = None if validation is None else validation.nats_per_char
    step = int(state.step)
    items = {"params": state.params, "opt_state": state.opt_state, "carry": state.carry}
    run.checkpoints.save(step, items, run.record(step, memory, loss))


def _score_test(run: _Run, state: TrainState, report: _Report) -> None:
    """The test split, scored once, with the best parameters if they were kept."""
    if len(run.split("test")) < 2:
        return
    if run.checkpoints is not None:
        run.checkpoints.wait()
        best = run.checkpoints.resolve("best")
        place = jax.tree.map(lambda leaf: leaf.sharding, state.params)
        target = {"params": parallel.abstract(state.params, place)}
        params = run.checkpoints.restore(best, target)["params"]
        state = dataclasses.replace(state, params=params)
    _evaluate(run, state, "test", report)
