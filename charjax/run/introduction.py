"""What a person wants to know before the first step."""

from collections.abc import Iterator

import jax

from charjax.config.schema import Config
from charjax.errors import counted
from charjax.model.cells import cell_named
from charjax.run.run import Run


def introduction(run: Run, first: int) -> Iterator[str]:
    """The lines that are shown before step `first + 1`."""
    plan, data, model = run.plan, run.config.data, run.config.model
    if plan.replaced is not None:
        yield (
            "starting over: once its first checkpoint is saved, this run replaces "
            f"{plan.replaced}"
        )
    if first == 0:
        yield from run.corpus.text.lines()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(plan.abstract.params))
    devices = counted(plan.mesh.size, f"{jax.devices()[0].device_kind} devices")
    yield (
        f"model: {model.num_layers} x {model.hidden_size} {model.cell.upper()}, "
        f"{parameters:,} parameters, {run.config.train.precision}, on {devices}"
    )
    yield f"recurrence: {plan.recurrence.describe(cell_named(model.cell))}"
    steps, epochs = run.config.train.steps, run.config.train.epochs
    limit = ""
    if steps is not None and epochs is not None:
        limit = f" (train.{'steps' if plan.total == steps else 'epochs'} ends first)"
    yield (
        f"run: {counted(plan.total, 'steps')}{limit} of {data.batch_size} x "
        f"{data.sequence_length} characters, {counted(plan.epoch_steps, 'steps')} an epoch"
    )
    yield from _hints(run, first, parameters)


def _hints(run: Run, first: int, parameters: int) -> Iterator[str]:
    options, total = run.config.optimizer, run.plan.total
    horizon, characters = options.schedule_steps, len(run.split("train"))
    if options.schedule in ("cosine", "linear") and horizon and first < total > horizon:
        yield (
            f"hint: the {options.schedule} schedule ends at step {horizon:,}; from there "
            f"on the learning rate is {options.learning_rate * options.final_scale}"
        )
    if parameters > 20 * characters:
        yield (
            f"hint: {parameters / characters:.0f} parameters for each character of "
            "training text: the model will learn it by heart; try a smaller "
            "model.hidden_size or more dropout"
        )
    elif characters > 50 * parameters:
        yield (
            f"hint: {characters / parameters:.0f} characters of training text for each "
            "parameter: a larger model.hidden_size would learn more from it"
        )


def how_to_train_longer(config: Config) -> str:
    """What a person may do about a run that has ended."""
    options = config.optimizer
    if options.schedule in ("cosine", "linear") and options.final_scale == 0:
        return (
            f"its {options.schedule} schedule has come down to 0, so to train longer start "
            "another run with train.init_from"
        )
    return "a larger train.steps, train.epochs or train.early_stopping goes on"
