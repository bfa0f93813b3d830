"""A split of a run's own text, or a text file, scored with the run's model."""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charjax.config.checks import check_instance, checked, checked_path
from charjax.config.data import OnUnknown, Split
from charjax.devices.backend import computing
from charjax.errors import InputError
from charjax.evaluation.dynamic import Learning, learning
from charjax.evaluation.evaluate import Evaluation, evaluate
from charjax.evaluation.options import Dynamic
from charjax.evaluation.protocols import document_batches
from charjax.language_model import LanguageModel, load
from charjax.reporting.progress import reading
from charjax.run.text_of_run import find_text
from charjax.storage import run_directory
from charjax.storage.record import Record, read
from charjax.storage.saved_model import reading as reading_run
from charjax.text.batching import stream_window, stream_windows
from charjax.text.corpus import Decoded
from charjax.text.corpus import load as load_corpus
from charjax.text.documents import Documents
from charjax.text.sources import absolute, check_stays
from charjax.text.survey import survey
from charjax.text.watch import Watch

# Windows of training text whose gradients dynamic evaluation knows.
_LOOKED_AT = 500

_SCORED = ", or score a text as it is with `text`"


def evaluate_run(
    workdir: str | Path,
    split: Split | None = None,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    text: str | Path | None = None,
    encoding: str = "utf-8",
    window: int | None = None,
    rows: int | None = None,
    step: str | int = "best",
    on_unknown: OnUnknown = "error",
    dynamic: Dynamic | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Scores a split of a run's own text, or a text file.

    Args:
      workdir: a run's directory, or a model that was saved, which needs `source` or `text`.
      split: "train", "validation" (the default) or "test".
      source: where the run's own text is now, a path or several in the run's order; None
        looks where it was, and where it is if run and text were moved together.
      text: the path of a text file to score instead; for a text in memory there is
        `charjax.load(workdir).score(text)`.
      encoding: of that file; a byte-order mark overrides it.
      window: score windows of so many symbols, each from zero state; None carries the
        state along contiguous rows.
      rows: rows the text is cut into; None is the run's `train.eval_rows`.
      step: "best" (falls back to the newest), "latest", or the number of a step on disk.
      on_unknown: what to do with characters of the file that the model does not know.
      dynamic: let the model go on learning from what it is scored on (dynamic evaluation);
        the run's own training text is looked at for that, so `source` may stand beside
        `text`. `rows` None is then 1.
      quiet: show no progress while a large text is read.

    Returns:
      JSON values: `nats_per_char`, `bits_per_char`, `perplexity` (per character),
      `characters`, `rows`, `window`, `protocol`, `step` and `text`, the split or the file;
      of a model of bytes, whose characters are those of UTF-8, also `nats_per_byte`,
      `bits_per_byte` and `bytes`; of a model of documents, whose ends are scored too, also
      `nats_per_symbol`, `bits_per_symbol`, `symbols` and `documents`.

    Raises:
      InputError: no run or checkpoint there, or a text that cannot be scored: absent,
        unreadable, too short, or not the one that the run was trained on.
    """
    for name, given in (("split", split), ("source", source if not dynamic else None)):
        if given is not None and text is not None:
            raise InputError(f"`{name}` and `text` are both given: give one of them.")
    checked("`split`", split, Split | None)
    check_instance("dynamic", dynamic, (Dynamic, type(None)), "such as Dynamic(rate=1e-3)")
    workdir = checked_path("workdir", workdir)
    model = load(workdir, step)
    with reading(quiet) as watch:
        if text is None:
            split = split or "validation"
            record = reading_run(workdir, model.step, read)
            symbols = _of_split(workdir, record, split, source, watch, _SCORED)
        else:
            path = checked_path("text", text)
            symbols = _of_file(path, model, encoding, on_unknown, watch)
        learns = None
        if dynamic is not None:
            record = reading_run(workdir, model.step, read)
            learned = _of_split(workdir, record, "train", source, watch)
            learns = _learning(model, learned, dynamic)
    score = evaluate(
        *(model.config, model.params, symbols),
        rows=rows,
        window=window,
        learning=learns,
    )
    per_symbol = {
        "nats_per_symbol": score.nats_per_symbol,
        "bits_per_symbol": score.bits_per_symbol,
        "symbols": score.symbols,
        "documents": score.documents,
    }
    per_byte = {
        "nats_per_byte": score.nats_per_byte,
        "bits_per_byte": score.bits_per_byte,
        "bytes": score.bytes,
    }
    return {
        **(per_symbol if score.documents is not None else {}),
        **(per_byte if score.bytes is not None else {}),
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
        "characters": score.characters,
        "rows": score.rows,
        "window": score.window,
        "protocol": _protocol(score, dynamic),
        "step": model.step,
        "text": split or str(text),
    }


def _protocol(score: Evaluation, dynamic: Dynamic | None) -> str:
    if dynamic is not None:
        return "dynamic"
    return "stateful" if score.window is None else "windowed"


@computing()
def _learning(
    model: LanguageModel, learned: np.ndarray | Documents, dynamic: Dynamic
) -> Learning:
    length = dynamic.length
    if isinstance(learned, Documents):
        batches = itertools.islice(document_batches(learned, 1, length), _LOOKED_AT)
    else:
        count = stream_windows(len(learned), 1, length)
        spread = sorted({k * count // _LOOKED_AT for k in range(_LOOKED_AT)})
        batches = (stream_window(learned, 1, length, window) for window in spread)
    return learning(model.config, model.params, batches, dynamic)


def text_of_run(
    workdir: str | Path,
    split: Split = "train",
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    step: str | int = "best",
    quiet: bool = False,
) -> Decoded:
    """The text that a run has learned from, or another split of it, as pieces of `str`.

    A line end stands behind each of its documents.

    Args:
      workdir: a run's directory, or a model that was saved, which needs `source`.
      split: "train", "validation" or "test".
      source: where the text is now, as in `evaluate_run`.
      step: the checkpoint whose text it is, as in `charjax.load`.
      quiet: show no progress while a large text is read.

    Raises:
      InputError: no run or checkpoint there, or not the text that it was trained on.
    """
    checked("`split`", split, Split)
    workdir = checked_path("workdir", workdir)
    record = reading_run(workdir, step, read)
    with reading(quiet) as watch:
        symbols = _of_split(workdir, record, split, source, watch)
    return Decoded(symbols, record.text.vocabulary)


def _of_split(
    workdir: Path,
    record: Record,
    split: Split,
    source: Any,
    watch: Watch,
    instead: str = "",
) -> np.ndarray | Documents:
    """A split of a run's text; `instead` says what else can be given."""
    data, given = record.config.data, None
    if source is not None:
        given = tuple(absolute(dataclasses.replace(data, source=source).sources))
    elif not run_directory.holds_run(workdir):
        raise InputError(
            f"{workdir} holds a saved model, without the text it has learned: give "
            f"`source=PATH`{instead}."
        )
    with contextlib.suppress(InputError):
        # Where a run that went on has found its text.
        now = run_directory.read_config(workdir).data.source
        data = dataclasses.replace(data, source=now)
    remedy = f"`source=PATH`{instead}"
    found = find_text(data, workdir, record, given=given, remedy=remedy, watch=watch)
    part = load_corpus(found, watch).split(split, data.split)
    if len(part) == 0:
        raise InputError(f"`split` is {split}: data.split {data.split} has none.")
    return part


def _of_file(
    path: Path, model: LanguageModel, encoding: str, on_unknown: OnUnknown, watch: Watch
) -> np.ndarray | Documents:
    with contextlib.suppress(OSError):
        check_stays(path, f"`text` is {path}")
    if not path.is_file():
        raise InputError(f"`text` is {path}: there is no such file.")
    try:
        data = dataclasses.replace(
            model.config.data,
            source=str(path.absolute()),
            encoding=encoding,
            start_marker=None,
            end_marker=None,
        )
        found = survey(data, None, model.vocabulary, on_unknown, watch)
    except InputError as error:
        message = str(error).replace("data.encoding", "encoding")
        raise InputError(f"`text` is {path}: {message}") from error
    return load_corpus(found, watch).whole
