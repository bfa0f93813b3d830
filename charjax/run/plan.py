"""What a run will be, and all that can refuse it, found out without writing anything."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from charjax.config.data import SPLITS
from charjax.config.schema import Config, flatten
from charjax.devices import memory, placement, processes
from charjax.devices import mesh as meshes
from charjax.devices.proof import Proof
from charjax.errors import InputError, counted
from charjax.language_model import LanguageModel
from charjax.model.network import init
from charjax.model.recurrence.choose import Recurrence
from charjax.run import origin as origins
from charjax.run.text_of_run import survey_text
from charjax.storage import replacement, run_directory, saved_model
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.digest import digest, structure
from charjax.storage.record import Record, Standing
from charjax.storage.record import read as read_record
from charjax.text import batching
from charjax.text.corpus import length_of_split
from charjax.text.description import named
from charjax.text.sources import IN_MEMORY, absolute
from charjax.text.survey import Survey
from charjax.text.watch import Watch
from charjax.training.freezing import trainable
from charjax.training.optimizer import check_usable, name_of
from charjax.training.schedule import resolve, total_steps, updates_at_zero, with_end
from charjax.training.state import TrainState, initial_state


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that can begin."""

    config: Config
    """A resumed run's own, or the one given; its schedule resolved."""

    workdir: Path | None
    """Where the run is kept; None keeps nothing."""

    replaced: str | None
    """The run in `workdir` whose place this one will take, in words; None if there is
    none."""

    stored: Config | None
    """The config of the run in `workdir` that goes on; None for a new run."""

    end: int | None
    """A new end for that run's schedule, from the step on where it goes on."""

    notes: list[str]
    """What a person should know of it."""

    surveyed: Survey
    mesh: Any

    recurrence: Recurrence
    """The implementation that training uses."""

    proof: Proof | None
    """The kernels that it may be; None where there is none to prove."""

    optimizer: optax.GradientTransformation | None
    """In place of what the config says; None is that."""

    make: Callable[..., TrainState]
    """The state before the first update, from a PRNG key or from parameters after it."""

    abstract: TrainState
    """Shape, dtype and sharding of each leaf of the state."""

    record: Record | None
    """Of the checkpoint to go on from, which is not damaged."""

    origin: LanguageModel | None
    """The model in `train.init_from`, for a run without a checkpoint."""

    epoch_steps: int
    total: int
    """Steps in an epoch, and in the whole run."""

    @property
    def own_optimizer(self) -> tuple[str | None, str | None]:
        """What a record says of `optimizer`: its name and the structure of its state."""
        if self.optimizer is None:
            return None, None
        return name_of(self.optimizer), structure(self.abstract.opt_state)

    def ended_by(self, step: int) -> str:
        """The fields that end the run after `step`, with their values, in words."""
        train = self.config.train
        limits = ["train.steps"] if train.steps == self.total else []
        if train.epochs is not None:
            alone = self.config.replace(**{"train.steps": None})
            if total_steps(alone, self.epoch_steps) == self.total:
                limits.append("train.epochs")
        if step < self.total:
            limits = ["train.early_stopping"]
        values = dict(flatten(self.config))
        return " and ".join(f"{name} (now {values[name]})" for name in limits)

    @property
    def resuming(self) -> bool:
        """Whether the run in `workdir` goes on."""
        return self.stored is not None

    @property
    def sharding(self) -> TrainState:
        """Of each leaf of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)


def plan(
    config: Config,
    workdir: Path | None,
    text: str | bytes | None,
    fresh: bool,
    strict: bool,
    watch: Watch,
    optimizer: optax.GradientTransformation | None = None,
) -> Plan:
    """Looks at everything a run needs; the arguments are those of `fit`.

    Raises InputError for what cannot work, OutOfMemory for a state that is too large.
    """
    source = [IN_MEMORY] if text is not None else absolute(config.data.sources)
    config = config.replace(**{"data.source": source})
    before = None if workdir is None or not run_directory.holds_run(workdir) else workdir
    requested, stored, record, replaced, notes = config, None, None, None, []
    if before is not None and fresh:
        run_directory.check_replaceable(before)
        replaced = replacement.description(before)
    elif before is not None:
        stored = run_directory.read_config(before)
        config = run_directory.resumed_config(stored, requested)
        record = _newest_record(before, strict)
    origin = origins.read(config) if record is None else None
    if origin is not None and stored is None:
        config, notes = origins.with_shape(config, origin)
    mesh = meshes.make_mesh(model=config.parallel.model)
    meshes.check_devices(config, mesh)
    surveyed = survey_text(config, stored, before, record, text, watch)
    config = dataclasses.replace(config, data=surveyed.data)
    if stored is not None and config.data.sources != stored.data.sources:
        notes.append(f"data.source: the run's text is now {named(config.data.sources)}")
    epoch_steps = _epoch_steps(config, surveyed)
    config = resolve(config, epoch_steps)
    vocabulary = surveyed.text.vocabulary
    if origin is not None:
        origins.check_fits(config, vocabulary, origin)
        notes += origins.changes(config, vocabulary, origin)
    vocab_size = vocabulary.size
    _check_optimizer(optimizer, config, vocab_size)
    make = functools.partial(initial_state, config, vocab_size, optimizer=optimizer)
    abstract = _abstract(make, config, mesh)
    planned = Plan(
        config=config,
        workdir=workdir,
        replaced=replaced,
        stored=stored,
        end=None if stored is None else _new_end(stored, requested),
        notes=notes,
        surveyed=surveyed,
        mesh=mesh,
        recurrence=meshes.recurrence_for(config, mesh),
        proof=None,
        optimizer=optimizer,
        make=make,
        abstract=abstract,
        record=record,
        origin=origin,
        epoch_steps=epoch_steps,
        total=total_steps(config, epoch_steps),
    )
    _check(planned)
    return planned


def _check(plan: Plan) -> None:
    """Refuses what does not go together, once all is known."""
    workdir, record = plan.workdir, plan.record
    if record is not None and workdir is not None:
        _check_same(record, workdir, plan.own_optimizer)
        going_on(plan, record.step, record.standing)
    if workdir is not None and plan.stored is None:
        saved_model.check_none(workdir)
        run_directory.check_apart(workdir, plan.config)
        if plan.replaced is None:
            run_directory.check_unwritten(workdir, plan.surveyed.bytes_to_keep())


def going_on(plan: Plan, step: int, standing: Standing) -> Plan:
    """The plan of a run that goes on after `step`, with the schedule that it then has.

    Raises InputError where the run is asked to be shorter than that, and where it is asked
    to be longer but all that is left to do would change nothing.
    """
    config, stored, total, notes = plan.config, plan.stored, plan.total, plan.notes
    if stored is None:
        return plan
    asked = plan.end is not None or any(
        getattr(config.train, name) != getattr(stored.train, name)
        for name in ("steps", "epochs", "early_stopping")
    )
    if asked and total < step:
        raise InputError(
            f"{_length(config, total)}: the run in {plan.workdir} is at step {step:,} "
            f"already: give at least {step}, or start another run in another `workdir`."
        )
    over = is_over(plan, step, standing)
    if plan.end is not None and over:
        raise InputError(
            f"optimizer.schedule_steps is {plan.end}: the run in {plan.workdir} has ended, "
            f"and no step would use it: give a larger {plan.ended_by(step)} too."
        )
    if plan.end is not None:
        before = config.optimizer.schedule_steps
        config = with_end(config, plan.end, step)
        notes = [
            *notes,
            f"optimizer.schedule_steps: from step {step:,} on, the "
            f"{config.optimizer.schedule} schedule ends at step {plan.end:,}, no longer at "
            f"{before:,}",
        ]
    if asked and not over and plan.optimizer is None:
        _check_something_is_learned(config, step, total)
    return dataclasses.replace(plan, config=config, notes=notes)


def is_over(plan: Plan, step: int, standing: Standing) -> bool:
    """Whether a run is at its last step, or early stopping ends it."""
    return step >= plan.total or standing.out_of_patience(plan.config)


def _check_something_is_learned(config: Config, step: int, total: int) -> None:
    if updates_at_zero(config, step, total) == total - step:
        options = config.optimizer
        raise InputError(
            f"{_length(config, total)}: the {options.schedule} schedule ends at step "
            f"{options.schedule_steps:,} (optimizer.schedule_steps), so from step {step:,} "
            "on the learning rate is 0 and nothing would be learned. Give the schedule "
            f"another end too, such as `optimizer.schedule_steps={total}`."
        )


def _length(config: Config, total: int) -> str:
    if total == config.train.steps:
        return f"train.steps is {total}"
    return f"train.epochs is {config.train.epochs}, which is {counted(total, 'steps')}"


def _new_end(stored: Config, requested: Config) -> int | None:
    asked = requested.optimizer.schedule_steps
    return None if asked == stored.optimizer.schedule_steps else asked


def check_agreement(plan: Plan) -> None:
    """Refuses processes that plan different runs."""
    fields = {name: repr(value) for name, value in flatten(plan.config)}
    if plan.end is not None:
        fields["optimizer.schedule_steps"] = repr(plan.end)
    origin = "" if plan.origin is None else digest({"params": plan.origin.params})
    others = {
        "optimizer": repr(plan.own_optimizer),
        "text": plan.surveyed.text.fingerprint,
        "model in train.init_from": origin,
    }
    processes.check_agreement({**fields, **others})


def _epoch_steps(config: Config, surveyed: Survey) -> int:
    """Steps in an epoch; refuses a text that is too short."""
    lengths = {}
    for name in SPLITS:
        lengths[name] = length_of_split(surveyed, name)
        batching.check_length(lengths[name], config.data, name)
    return batching.batches_per_epoch(lengths["train"], config.data)


def _newest_record(workdir: Path, strict: bool) -> Record | None:
    """Of the newest step that is not damaged; None where a run has no step yet."""
    if not run_directory.has_checkpoint(workdir):
        return None
    checkpoints = Checkpoints(run_directory.located(workdir, run_directory.CHECKPOINTS))
    read = functools.partial(read_record, checkpoints)
    return checkpoints.reading("latest", read, strict=strict)


def _check_optimizer(
    optimizer: optax.GradientTransformation | None, config: Config, vocab_size: int
) -> None:
    if optimizer is not None:
        key = jax.random.key(0)
        shapes = jax.eval_shape(functools.partial(init, config, vocab_size), key)
        check_usable(config, optimizer, trainable(config, shapes))


def _check_same(record: Record, workdir: Path, own: tuple[str | None, str | None]) -> None:
    """Refuses another optimizer than the run's, where either was passed to `fit`."""
    name, state = own
    usual = "the one of the config"
    then, remedy = record.optimizer or usual, "give fit(optimizer=) the same"
    if record.optimizer is None:
        remedy = "leave out fit(optimizer=)"
    if record.optimizer == name:
        # Records of before the structure was kept have none.
        if record.optimizer_state in (None, state):
            return
        then = f"another {then}, whose state has another structure"
    raise InputError(
        f"optimizer is {name or usual}: the run in {workdir} was trained with {then}; "
        f"{remedy}, or start over with `fresh=True` or another `workdir`."
    )


def _abstract(make: Callable[..., TrainState], config: Config, mesh: Any) -> TrainState:
    """The state's shapes and shardings; refuses a state that the devices cannot hold,
    since compiling its start may hang."""
    shapes = jax.eval_shape(make, jax.random.key(0))
    sharding = placement.state_sharding(mesh, config, shapes)
    device = jax.local_devices()[0]
    limit, needed = memory.of_device(device), placement.bytes_on_device(shapes, sharding)
    if device.platform == "cpu":
        needed *= jax.local_device_count()
    if limit is not None and needed > limit:
        model = config.model
        raise memory.OutOfMemory(
            f"parameters, optimizer state and carry take {needed / 1e9:,.1f} GB of memory, "
            f"and there are {limit / 1e9:,.1f} GB: make model.hidden_size "
            f"({model.hidden_size}), model.num_layers ({model.num_layers}) or "
            "model.embedding_size smaller, or split them with parallel.model or "
            "parallel.fsdp."
        )
    return placement.abstract(shapes, sharding)
