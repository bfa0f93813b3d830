"""The loop: step, log, evaluate, sample, save.

Everything here has side effects on purpose; what it calls to compute is pure.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from charjax.devices import mesh as meshes
from charjax.devices import placement, processes
from charjax.errors import Diverged, counted
from charjax.evaluation.units import bits, of_loss, short, unit
from charjax.run.clock import Clock
from charjax.run.run import Run, evaluate_split, sample, save, tolerate
from charjax.run.start import prng_keys
from charjax.storage.record import Standing
from charjax.storage.saver import Saver
from charjax.text import batching
from charjax.training.program import training_program
from charjax.training.schedule import pieces
from charjax.training.state import TrainState

# Only the config's optimizer tells its learning rate.
_LOGGED = ("learning_rate", "grad_norm")
# So many in a row end the run.
SKIPPED_UPDATES = 10


def loop(
    run: Run, state: TrainState, standing: Standing, stop: Callable[[], bool]
) -> tuple[TrainState, Standing]:
    """Trains from where `state` stands to the last step, an early end, or a stop.

    Returns what it ends with; the last step is logged and, with a run directory, on its
    way to disk.
    """
    first, total, train = int(state.step), run.plan.total, run.config.train
    update, batch_after, clock = _update(run), _batches(run), Clock(first)
    unread: tuple[int, Any] | None = None
    for step in range(first + 1, total + 1):
        batch = batch_after(step - 1)
        clock.prepared(unread is None or unread[1]["loss"].is_ready())
        state, metrics = update(state, batch, step - 1)
        # The step just dispatched runs while the one before it is looked at.
        if unread is not None:
            standing = _log(run, unread, clock, standing)
            if unread[0] == first + 1:
                # The first step waited for compilation, which is not its speed.
                clock = Clock(first + 1)
        unread = step, metrics
        tolerate(run, Saver.poll)

        stopping = stop()
        cadences = (train.eval_every, train.sample_every, train.checkpoint_every)
        ending = stopping or step == total
        if not (ending or any(_due(every, step) for every in cadences)):
            continue
        standing = _log(run, unread, clock, standing)
        unread = None
        standing = _pause(run, state, step, standing, ending)
        if stopping or standing.out_of_patience(run.config):
            break
        clock.restart(step)
    if (hint := clock.hint()) is not None:
        run.report.message(hint)
    return state, standing


def _update(run: Run) -> Callable[[TrainState, Any, int], tuple[TrainState, Any]]:
    """The update of a state and a batch after so many; each piece of a schedule has its
    own program."""
    plan, config = run.plan, run.config
    _, key = prng_keys(config)
    place = plan.mesh, plan.sharding, plan.recurrence, plan.optimizer
    updates = [(until, training_program(piece, *place)) for until, piece in pieces(config)]

    def update(state: TrainState, batch: Any, done: int) -> tuple[TrainState, Any]:
        piece = next(piece for until, piece in updates if done < until)
        return piece(state, batch, key)

    return update


def _batches(run: Run) -> Callable[[int], batching.Batch]:
    """The batch that follows so many updates, on the devices."""
    data, seed, mesh = run.config.data, run.config.train.seed, run.plan.mesh
    ids, rows = run.split("train"), meshes.local_rows(mesh, data.batch_size)
    return lambda step: placement.put_batch(
        mesh, batching.batch_at(ids, data, seed, step, rows)
    )


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _pause(
    run: Run, state: TrainState, step: int, standing: Standing, ending: bool
) -> Standing:
    """Evaluates, samples and saves, as far as that is due."""
    train, last = run.config.train, step == run.plan.total
    loss, best = None, standing.best_step
    if (last or _due(train.eval_every, step)) and len(run.split("validation")) > 1:
        loss = evaluate_split(run, state, "validation")
        standing = standing.after(loss, step)
    if last or _due(train.sample_every, step):
        sample(run, state)
    exhausted = standing.out_of_patience(run.config)
    # Where updates fail, the parameters may be the reason: those of before stay.
    regular = _due(train.checkpoint_every, step) and not standing.skipped_updates
    if ending or regular or exhausted or standing.best_step != best:
        save(run, state, standing, loss)
    if loss is not None:
        run.report.draw(run.config.model.cell)
    if exhausted:
        stale = counted(standing.stale_evaluations, "evaluations")
        run.report.message(
            f"stopping early: no improvement in {stale} since step {standing.best_step:,}"
        )
    return standing


def _log(run: Run, unread: tuple[int, Any], clock: Clock, standing: Standing) -> Standing:
    """Reads the metrics of a step, which waits for its end, and passes them on."""
    step, metrics = unread
    with processes.warning_of_silence():
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
    clock.ended()
    if values["skipped"]:
        return _skipped(run, step, values, standing)
    loss, data = values["loss"], run.config.data
    per = unit(run.config)
    speed = clock.steps_per_second(step) * data.batch_size * data.sequence_length
    run.report.progress.update(step, loss, bits(loss), speed)
    if _due(run.config.train.log_every, step):
        run.report.write(
            step=step,
            split="train",
            loss=loss,
            unit=of_loss(run.config),
            **{f"bits_per_{short(per)}": bits(loss)},
            **{name: values[name] for name in _LOGGED if name in values},
            **{f"{short(per)}s_per_second": speed},
            input_wait=clock.input_wait(),
        )
        clock.restart(step)
    return dataclasses.replace(standing, skipped_updates=0)


def _skipped(run: Run, step: int, values: dict[str, Any], standing: Standing) -> Standing:
    """Warns of an update that was skipped; raises Diverged if too many were in a row."""
    loss, norm, in_a_row = values["loss"], values["grad_norm"], standing.skipped_updates + 1
    fields = {"loss": loss, "unit": of_loss(run.config), "grad_norm": norm}
    run.report.write(step=step, split="train", **fields, skipped=True)
    run.report.message(
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
