"""The loop: step, log, evaluate, sample, save.

Everything here has side effects on purpose; what it calls to compute is pure.
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax

from charjax.config.schema import Config
from charjax.devices import mesh as meshes
from charjax.devices import placement, processes
from charjax.errors import Diverged
from charjax.evaluation.evaluate import evaluate
from charjax.evaluation.units import bits
from charjax.reporting.report import Report
from charjax.run.clock import Clock
from charjax.run.opened import Run
from charjax.run.start import prng_keys
from charjax.storage.record import Standing
from charjax.storage.saver import Saver
from charjax.text import batching
from charjax.text.corpus import Split
from charjax.training.state import TrainState
from charjax.training.step import train_step

# Characters of the samples that training shows.
SAMPLE_LENGTH = 300
# So many in a row end the run.
SKIPPED_UPDATES = 10
FAILED_SAVES = 3

Waiting = Callable[[], AbstractContextManager[None]]
"""A context for what waits for other processes."""


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    evaluation: bool
    sample: bool
    save: bool
    stop: bool
    """The run ends here, though not at its last step."""

    last: bool

    def __bool__(self) -> bool:
        return self.evaluation or self.sample or self.save


def is_over(config: Config, total: int, step: int, standing: Standing) -> bool:
    """Whether a run is at its last step, or early stopping ends it."""
    return step >= total or _out_of_patience(config, standing)


def _out_of_patience(config: Config, standing: Standing) -> bool:
    limit = config.train.early_stopping
    return limit is not None and standing.stale_evaluations >= limit


def loop(
    run: Run,
    state: TrainState,
    standing: Standing,
    report: Report,
    stop: Callable[[], bool],
) -> tuple[TrainState, Standing]:
    """Trains from where `state` stands to the last step, an early end, or a stop.

    Returns what it ends with; the last step is logged and, with a run directory, on its
    way to disk.
    """
    first, total, clock = int(state.step), run.plan.total, Clock(int(state.step))
    update, batch_after = _update(run), _batches(run)
    unread: tuple[int, Any] | None = None
    with processes.watched() as waiting:
        for step in range(first + 1, total + 1):
            batch = batch_after(step - 1)
            clock.prepared(unread is None or unread[1]["loss"].is_ready())
            state, metrics = update(state, batch)
            # The step just dispatched runs while the one before it is looked at.
            if unread is not None:
                standing = _log(run, unread, clock, standing, report, waiting)
                if unread[0] == first + 1:
                    # The first step waited for compilation, which is not its speed.
                    clock = Clock(first + 1)
            unread = step, metrics
            _tolerate(run, report, Saver.poll)

            due = _due(run.config, step, step == total, stop())
            if not due:
                continue
            standing = _log(run, unread, clock, standing, report, waiting)
            unread = None
            standing = _pause(run, state, step, standing, due, report)
            if due.stop or _out_of_patience(run.config, standing):
                break
            clock.restart(step)
    report.message(clock.summary())
    return state, standing


def _update(run: Run) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:
    plan, config = run.plan, run.config
    gather = placement.gathered(plan.mesh, config)
    step = jax.jit(
        functools.partial(
            train_step,
            config,
            optimizer=plan.optimizer,
            recurrence=plan.recurrence,
            gather=gather,
        ),
        donate_argnums=0,
        out_shardings=(plan.sharding, placement.replicated(plan.mesh)),
    )
    _, key = prng_keys(config)
    return lambda state, batch: step(state, batch, key)


def _batches(run: Run) -> Callable[[int], batching.Batch]:
    """The batch that follows so many updates, on the devices."""
    data, seed, mesh = run.config.data, run.config.train.seed, run.plan.mesh
    ids, rows = run.split("train"), meshes.local_rows(mesh, data.batch_size)
    return lambda step: placement.put_batch(
        mesh, batching.batch_at(ids, data, seed, step, rows)
    )


def _due(config: Config, step: int, last: bool, stop: bool) -> Due:
    train = config.train
    return Due(
        evaluation=last or _divides(train.eval_every, step),
        sample=last or _divides(train.sample_every, step),
        save=last or stop or _divides(train.checkpoint_every, step),
        stop=stop,
        last=last,
    )


def _divides(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _pause(
    run: Run, state: TrainState, step: int, standing: Standing, due: Due, report: Report
) -> Standing:
    """Evaluates, samples and saves, as far as that is due."""
    loss, best = None, standing.best_step
    if due.evaluation and len(run.split("validation")) > 1:
        loss = _evaluate(run, state, "validation", report)
        standing = standing.after(loss, step)
    exhausted = _out_of_patience(run.config, standing)
    if due.sample:
        _sample(run, state, report)
    # Where updates fail, the parameters may be the reason: those of before stay.
    save = due.save and (not standing.skipped_updates or due.last or due.stop)
    if save or exhausted or standing.best_step != best:
        _save(run, state, step, standing, loss, report)
    if loss is not None:
        report.draw(run.config.model.cell)
    if exhausted:
        report.message(
            f"stopping early: no improvement in {standing.stale_evaluations} evaluations "
            f"since step {standing.best_step:,}"
        )
    return standing


def _log(
    run: Run,
    unread: tuple[int, Any],
    clock: Clock,
    standing: Standing,
    report: Report,
    waiting: Waiting,
) -> Standing:
    """Reads the metrics of a step, which waits for its end, and passes them on."""
    step, metrics = unread
    with waiting():
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    clock.ended()
    if values["skipped"]:
        return _skipped(run, step, values, standing, report)
    loss, data = values["loss"], run.config.data
    speed = clock.steps_per_second(step) * data.batch_size * data.sequence_length
    report.progress.update(step, loss, bits(loss), speed)
    if _divides(run.config.train.log_every, step):
        report.write(
            step=step,
            split="train",
            loss=loss,
            bits_per_char=bits(loss),
            learning_rate=values["learning_rate"],
            grad_norm=values["grad_norm"],
            chars_per_second=speed,
            input_wait=clock.input_wait(),
        )
        clock.restart(step)
    return dataclasses.replace(standing, skipped_updates=0)


def _skipped(
    run: Run, step: int, values: dict[str, Any], standing: Standing, report: Report
) -> Standing:
    """Tells of an update that was skipped; raises Diverged if too many were in a row."""
    loss, norm, in_a_row = values["loss"], values["grad_norm"], standing.skipped_updates + 1
    report.write(step=step, split="train", loss=loss, grad_norm=norm, skipped=True)
    report.message(
        f"warning: the update of step {step:,} was skipped (loss {loss:.4g}, gradient norm "
        f"{norm:.4g})"
    )
    if in_a_row >= SKIPPED_UPDATES:
        rate = run.config.optimizer.learning_rate
        raise Diverged(
            f"training diverged: {in_a_row} updates in a row were skipped up to step "
            f"{step:,} (loss {loss:.4g}, gradient norm {norm:.4g}): lower "
            f"optimizer.learning_rate ({rate}) or set optimizer.clip_norm; no checkpoint "
            "was saved since the first of them."
        )
    return dataclasses.replace(standing, skipped_updates=in_a_row)


def _evaluate(run: Run, state: TrainState, split: Split, report: Report) -> float:
    """Scores a split, and returns its nats per character."""
    step, ids = int(state.step), run.split(split)
    score = evaluate(run.config, state.params, ids, mesh=run.plan.mesh)
    nats, in_bits = score.nats_per_char, score.bits_per_char
    report.write(step=step, split=split, loss=nats, bits_per_char=in_bits, rows=score.rows)
    report.message(
        f"step {step:,}: {split} loss {nats:.4f} nats ({in_bits:.3f} bits) per character"
    )
    return nats


def _sample(run: Run, state: TrainState, report: Report) -> None:
    model = run.model(state)
    if processes.is_first():
        text = model.generate("", SAMPLE_LENGTH, seed=model.step % 2**32)
        report.sample(model.step, text)


def _save(
    run: Run,
    state: TrainState,
    step: int,
    standing: Standing,
    validation_loss: float | None,
    report: Report,
) -> None:
    items = {"params": state.params, "opt_state": state.opt_state, "carry": state.carry}
    record = run.record(step, standing, validation_loss).to_dict()
    _tolerate(run, report, Saver.wait)
    # A step on the disk whose metrics are not would resume with lines missing.
    report.sync()
    _tolerate(run, report, lambda checkpoints: checkpoints.save(step, items, record))


def _tolerate(run: Run, report: Report, action: Callable[[Saver], None]) -> None:
    """Does something with the checkpoints; training goes on if it fails, for a while."""
    if run.checkpoints is None:
        return
    try:
        action(run.checkpoints)
    except OSError as error:
        if run.checkpoints.failures >= FAILED_SAVES:
            raise OSError(
                f"{error}; so have the {FAILED_SAVES - 1} saves before it. Make room on "
                "the disk or repair it, then go on with the same command."
            ) from error
        report.message(f"warning: {error}; training goes on")


def score_test(run: Run, state: TrainState, report: Report) -> None:
    """Scores the test split, unless that was done, with the best parameters that were
    kept."""
    step = int(state.step)
    scored = any(
        line.get("split") == "test" and line.get("step") == step for line in report.history
    )
    # The first process alone has read the history.
    if processes.from_first(int(scored)) or len(run.split("test")) < 2:
        return
    if run.checkpoints is not None:
        run.checkpoints.wait()
        processes.wait("saved")
        first = processes.is_first()
        best = processes.from_first(run.checkpoints.resolve("best") if first else 0)
        params = run.checkpoints.restore(best, {"params": run.plan.abstract.params})
        state = dataclasses.replace(state, **params)
    _evaluate(run, state, "test", report)
