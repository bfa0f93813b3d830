"""What a person wants to know before the first step."""

from collections.abc import Iterator

import jax

from charjax.config.optimizer import ENDING
from charjax.config.schema import Config
from charjax.errors import counted
from charjax.evaluation.units import unit
from charjax.model.variants import cell_of
from charjax.run.run import Run
from charjax.training.freezing import trainable
from charjax.training.schedule import updates_at_zero


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
    yield from plan.notes
    parameters = sum(leaf.size for leaf in jax.tree.leaves(plan.abstract.params))
    devices = counted(plan.mesh.size, f"{jax.devices()[0].device_kind} devices")
    yield (
        f"model: {model.num_layers} x {model.hidden_size} {model.cell.upper()}, "
        f"{parameters:,} parameters, {run.config.train.precision}, on {devices}"
    )
    if (frozen := run.config.train.freeze) is not None:
        trained = trainable(run.config, plan.abstract.params)
        count = sum(leaf.size for leaf in jax.tree.leaves(trained))
        yield f"trained: {count:,} of them; train.freeze keeps {', '.join(frozen)} as is"
    yield f"recurrence: {plan.recurrence.describe(cell_of(model))}"
    steps, epochs = run.config.train.steps, run.config.train.epochs
    limit = ""
    if steps is not None and epochs is not None:
        limit = f" (train.{'steps' if plan.total == steps else 'epochs'} ends first)"
    yield (
        f"run: {counted(plan.total, 'steps')}{limit} of {data.batch_size} x "
        f"{data.sequence_length} {unit(run.config)}s, "
        f"{counted(plan.epoch_steps, 'steps')} an epoch"
    )
    yield from _hints(run, first, parameters)


def _hints(run: Run, first: int, parameters: int) -> Iterator[str]:
    symbols, of = len(run.split("train")), unit(run.config)
    if run.plan.optimizer is None:
        yield from _hints_of_schedule(run.config, first, run.plan.total)
    if parameters > 20 * symbols:
        yield (
            f"hint: {parameters / symbols:.0f} parameters for each {of} of "
            "training text: the model will learn it by heart; try a smaller "
            "model.hidden_size or more dropout"
        )
    elif symbols > 50 * parameters:
        yield (
            f"hint: {symbols / parameters:.0f} {of}s of training text for each "
            "parameter: a larger model.hidden_size would learn more from it"
        )


def _hints_of_schedule(config: Config, first: int, total: int) -> Iterator[str]:
    options, left = config.optimizer, total - first
    horizon, warmup = options.schedule_steps, options.warmup_steps
    zeros = updates_at_zero(config, first, total)
    if zeros > left / 10:
        yield (
            f"warning: the learning rate is 0 in {zeros:,} of the {left:,} steps to come, "
            f"since the {options.schedule} schedule ends at step {horizon:,}; "
            f"optimizer.schedule_steps {total} would make it end with the run"
        )
    elif options.schedule in ENDING and horizon and first < total > horizon:
        yield (
            f"hint: the {options.schedule} schedule ends at step {horizon:,}; from there "
            f"on the learning rate is {options.learning_rate * options.final_scale}"
        )
    if left and first < warmup > total / 10:
        yield (
            f"hint: the learning rate rises during {warmup:,} steps "
            f"(optimizer.warmup_steps), and the run has {total:,}; a tenth of them would "
            f"be {total // 10:,}"
        )


def how_to_train_longer(run: Run, step: int) -> str:
    """What a person may do about a run that has ended after `step` steps."""
    config, options = run.config, run.config.optimizer
    if updates_at_zero(config, step, step + 1):
        return (
            f"its {options.schedule} schedule has come down to 0: to train longer, give a "
            "larger train.steps or train.epochs, and optimizer.schedule_steps for the step "
            "at which the schedule then ends"
        )
    return f"a larger {run.plan.ended_by(step)} goes on"
