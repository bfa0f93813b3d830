"""What a run will be, and all that can refuse it, found out without writing anything."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax
from jax import Array

from charjax.config.schema import SPLITS, Config, flatten
from charjax.devices import memory, placement, processes
from charjax.devices import mesh as meshes
from charjax.errors import InputError, counted
from charjax.language_model import load
from charjax.model.network import init
from charjax.model.parameters import Params
from charjax.model.recurrence.choose import Recurrence
from charjax.storage import replacement, run_directory
from charjax.storage.checkpoints import Checkpoints
from charjax.storage.digest import digest, structure
from charjax.storage.record import Record
from charjax.storage.record import read as read_record
from charjax.text import batching
from charjax.text.corpus import boundaries
from charjax.text.description import TextDescription
from charjax.text.sources import IN_MEMORY, absolute
from charjax.text.survey import Survey, survey
from charjax.text.vocabulary import Vocabulary
from charjax.text.watch import Watch
from charjax.training.optimizer import check_usable, name_of
from charjax.training.schedule import resolve, total_steps
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

    resuming: bool
    """Whether the run in `workdir` goes on."""

    surveyed: Survey
    mesh: Any

    recurrence: Recurrence
    """The implementation that training uses."""

    optimizer: optax.GradientTransformation | None
    """In place of what the config says; None is that."""

    make: Callable[[Array], TrainState]
    """The state before the first update, from a PRNG key."""

    abstract: TrainState
    """Shape, dtype and sharding of each leaf of the state."""

    record: Record | None
    """Of the checkpoint to go on from, which is not damaged."""

    origin: Params | None
    """Parameters of `train.init_from`, for a run without a checkpoint."""

    epoch_steps: int
    total: int
    """Steps in an epoch, and in the whole run."""

    @property
    def own_optimizer(self) -> tuple[str | None, str | None]:
        """What a record says of `optimizer`: its name and the structure of its state."""
        return _name_and_structure(self.optimizer, self.abstract)

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
    resuming, replaced = before is not None and not fresh, None
    if before is not None and resuming:
        config = run_directory.resumed_config(run_directory.read_config(before), config)
    elif before is not None:
        run_directory.check_replaceable(before)
        replaced = replacement.description(before)
    if before is not None and text is None:
        text = _kept_text(before, config)
    mesh = meshes.make_mesh(model=config.parallel.model)
    meshes.check_devices(config, mesh)
    surveyed = survey(config.data, text, watch=watch)
    epoch_steps = _epoch_steps(config, surveyed)
    config = resolve(config, epoch_steps)
    vocab_size = surveyed.text.vocabulary.size
    if optimizer is not None:
        key = jax.random.key(0)
        shapes = jax.eval_shape(functools.partial(init, config, vocab_size), key)
        check_usable(config, optimizer, shapes)
    make = functools.partial(initial_state, config, vocab_size, optimizer=optimizer)
    abstract = _abstract(make, config, mesh)
    record = origin = None
    if resuming and workdir is not None and run_directory.has_checkpoint(workdir):
        record = _newest_record(workdir, config, surveyed.text, strict)
        _check_same(record, workdir, _name_and_structure(optimizer, abstract))
    elif config.train.init_from is not None:
        origin = _origin(config, surveyed.text.vocabulary)
    if workdir is not None and not resuming:
        run_directory.check_apart(workdir, config)
    return Plan(
        config=config,
        workdir=workdir,
        replaced=replaced,
        resuming=resuming,
        surveyed=surveyed,
        mesh=mesh,
        recurrence=meshes.recurrence_for(config, mesh),
        optimizer=optimizer,
        make=make,
        abstract=abstract,
        record=record,
        origin=origin,
        epoch_steps=epoch_steps,
        total=total_steps(config, epoch_steps),
    )


def _kept_text(workdir: Path, config: Config) -> bytes | None:
    """The text that the run in `workdir` kept, if a config names the same source."""
    try:
        own = replacement.own_config(workdir)
    except InputError:
        return None
    same = own.data.source == config.data.source
    text = run_directory.kept_text(workdir) if same else None
    if text is None and config.data.sources == (IN_MEMORY,):
        raise InputError(
            f"data.source is {IN_MEMORY!r}: {workdir / run_directory.CORPUS}, where the "
            "run kept its text, is not there: restore it, or start over with `fresh=True` "
            "and another data.source."
        )
    return text


def check_agreement(plan: Plan) -> None:
    """Refuses processes that plan different runs."""
    fields = {name: repr(value) for name, value in flatten(plan.config)}
    origin = "" if plan.origin is None else digest({"params": plan.origin})
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
        start, end = boundaries(surveyed.text.length, name, config.data.split)
        batching.check_length(end - start, config.data, name)
        lengths[name] = end - start
    return batching.batches_per_epoch(lengths["train"], config.data)


def _newest_record(
    workdir: Path, config: Config, text: TextDescription, strict: bool
) -> Record:
    """Of the newest step that is not damaged; refuses another text than the run's."""
    checkpoints = Checkpoints(run_directory.located(workdir, run_directory.CHECKPOINTS))
    read = functools.partial(read_record, checkpoints)
    record = checkpoints.reading("latest", read, strict=strict)
    check_text(record, config, workdir, text)
    return record


def _name_and_structure(
    optimizer: optax.GradientTransformation | None, abstract: TrainState
) -> tuple[str | None, str | None]:
    if optimizer is None:
        return None, None
    return name_of(optimizer), structure(abstract.opt_state)


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


def check_text(
    record: Record, config: Config, workdir: Path, text: TextDescription
) -> None:
    """Refuses a text, by its fingerprint, other than the one a checkpoint learned from."""
    if record.text.fingerprint != text.fingerprint:
        raise InputError(
            f"data.source is {' '.join(config.data.sources)}: the text is not the one "
            f"that {workdir} was trained on ({counted(text.length, 'characters')} now, "
            f"{record.text.length:,} then). Restore the text, or start over with "
            "`fresh=True` or another `workdir`."
        )


def _origin(config: Config, vocabulary: Vocabulary) -> Params:
    """Parameters of `train.init_from`, if vocabulary and shape are the same."""
    directory = config.train.init_from
    assert directory is not None
    try:
        model = load(directory)
    except InputError as error:
        raise InputError(f"train.init_from is {directory!r}: {error}") from error
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
        only = [
            f"{counted(len(here - there), 'symbols')} only here",
            f"{len(there - here)} only there",
        ]
        differs.append(f"the vocabularies differ ({', '.join(only)})")
    if differs:
        raise InputError(
            f"train.init_from is {directory!r}: its parameters do not fit: "
            f"{'; '.join(differs)}. Give the same model and a text of the same symbols."
        )
    return model.params


def _abstract(make: Callable[[Array], TrainState], config: Config, mesh: Any) -> TrainState:
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
