"""`charjax evaluate`: a split of a run's text, or a text file, scored."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

import charjax
from charjax.commands.of_run import OfRun, Switch, source_named
from charjax.commands.signals import Signals
from charjax.config.data import OnUnknown, Split
from charjax.errors import InputError, counted
from charjax.evaluation.options import Dynamic


@dataclass(frozen=True)
class Options(OfRun):
    """Score a split of a run's own text, or a text of yours."""

    split: Split | None = None
    """A split of the run's own text; validation if no text is given."""

    source: Annotated[tuple[str, ...] | None, tyro.conf.arg(name="data.source")] = None
    """Where the run's own text is now, if it was moved."""

    text: Path | None = None
    """A text file to score."""

    encoding: str = "utf-8"
    """Encoding of that file; a byte-order mark overrides it."""

    protocol: Literal["stateful", "windowed"] = "stateful"
    """stateful: contiguous rows, the state carried; windowed: each window of --window
    characters from zero state, as a model of limited context sees it."""

    window: int | None = None
    """Characters in a window of the windowed protocol."""

    rows: int | None = None
    """Rows the text is cut into; the default is the run's train.eval_rows."""

    on_unknown: OnUnknown = "error"
    """What to do with characters that the model does not know."""

    dynamic: Switch = False
    """Let the model go on learning from each segment once it is scored (dynamic
    evaluation, Krause et al. 2018)."""

    dynamic_rate: float | None = None
    """About how far a parameter then moves with each segment."""

    dynamic_decay: float | None = None
    """Share of the way back to where a parameter began, with each segment."""

    dynamic_length: int | None = None
    """Characters in a segment."""

    json: Switch = False
    """Print JSON."""


EXAMPLES = (
    "charjax evaluate --workdir runs/mine --text other.txt",
    "charjax evaluate --split train --json",
)


def run(options: Options, _: Signals) -> int:
    """Prints the score of a split or a text."""
    if (options.protocol == "windowed") != (options.window is not None):
        raise InputError("--protocol windowed and --window N go together: give both.")
    dynamic = _dynamic(options)
    with source_named():
        found = charjax.evaluate_run(
            options.directory(),
            options.split,
            source=options.source,
            text=options.text,
            encoding=options.encoding,
            window=options.window,
            rows=options.rows,
            step=options.step,
            on_unknown=options.on_unknown,
            dynamic=dynamic,
        )
    if options.json:
        print(json.dumps(found))
        return 0
    units = {"symbols": "symbol", "bytes": "byte", "characters": "char"}
    units = {unit: short for unit, short in units.items() if unit in found}
    scores = (
        f"{found[f'nats_per_{short}']:.4f} nats, {found[f'bits_per_{short}']:.4f} bits per "
        f"{unit.removesuffix('s')}"
        for unit, short in units.items()
    )
    amount = ", ".join(counted(found[unit], unit) for unit in units)
    how = f"{counted(found['rows'], 'rows')}, state carried"
    if found["window"] is not None:
        how = f"windows of {found['window']} from zero state"
    elif "documents" in found:
        how = f"{counted(found['documents'], 'documents')}, each from its start to its end"
    if dynamic is not None:
        how += f", learning from each {dynamic.length} characters"
    print(
        f"{found['text']}, step {found['step']:,}: {', '.join(scores)}, "
        f"perplexity {found['perplexity']:.3f} ({amount}, {how})"
    )
    return 0


def _dynamic(options: Options) -> Dynamic | None:
    """How the model goes on learning; None where nothing asks for it."""
    prefix = "dynamic_"
    given = {
        name.removeprefix(prefix): value
        for name, value in vars(options).items()
        if name.startswith(prefix) and value is not None
    }
    return Dynamic(**given) if options.dynamic or given else None
