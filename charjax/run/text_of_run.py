"""The text of a run, found again: it may have moved, alone or together with the run."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from charjax.config.data import DataConfig
from charjax.config.schema import Config
from charjax.errors import InputError
from charjax.storage import replacement, run_directory
from charjax.storage.record import Record
from charjax.text import sources
from charjax.text.description import TextDescription, named
from charjax.text.survey import Survey, survey
from charjax.text.watch import Watch, silent

Paths = tuple[str, ...]

_REMEDY = "`data.source=PATH`, or start over with `fresh=True` or another `workdir`"


def from_workdir(paths: Paths, workdir: Path) -> Paths:
    """Absolute paths as paths from a run's directory; nothing for what is no path.

    >>> from_workdir(("/home/anna/text.txt",), Path("/home/anna/runs/first"))
    ('../../text.txt',)
    """
    if set(paths) & {*sources.NAMES, sources.IN_MEMORY}:
        return ()
    try:
        return tuple(os.path.relpath(path, workdir) for path in paths)
    except ValueError:
        # On Windows there is no way from one drive to another.
        return ()


def survey_text(
    config: Config,
    stored: Config | None,
    before: Path | None,
    record: Record | None,
    text: str | bytes | None,
    watch: Watch,
) -> Survey:
    """The survey of a run's text.

    `before` holds a run: it goes on, from the checkpoint of `record`, if its `stored`
    config is given, or else starts over. Raises InputError for another text than the one
    that it was trained on.
    """
    if before is not None and record is None and text is None:
        text = _kept_text(before, config)
        if stored is None and text is None:
            config = _where_it_moved(before, config)
    if stored is None or before is None:
        return survey(config.data, text, watch=watch)
    asked = config.data.sources
    given = None if asked == stored.data.sources else asked
    if record is not None:
        return find_text(stored.data, before, record, given=given, text=text, watch=watch)
    if given is not None:
        raise InputError(
            f"data.source: the run in {before} has {named(stored.data.sources)}, asked "
            f"for {named(given)}, and there is no checkpoint that says whether it is the "
            "same text: leave it as it is, give another `workdir`, or start over with "
            "`fresh=True`."
        )
    return survey(config.data, text, watch=watch)


def _kept_text(workdir: Path, config: Config) -> bytes | None:
    """The text that the run in `workdir` kept, if a config names the same source."""
    try:
        own = replacement.own_config(workdir)
    except InputError:
        return None
    same = own.data.source == config.data.source
    text = run_directory.kept_text(workdir) if same else None
    if text is None and config.data.sources == (sources.IN_MEMORY,):
        raise InputError(
            f"data.source is {sources.IN_MEMORY!r}: {workdir / run_directory.CORPUS}, "
            "where the run kept its text, is not there: restore it, or start over with "
            "`fresh=True` and another data.source."
        )
    return text


def _where_it_moved(workdir: Path, config: Config) -> Config:
    """A config that names the source of the run in `workdir`, where that is now if the
    run and its text were moved together."""
    paths, record = config.data.sources, replacement.newest_record(workdir)
    if record is None or record.config.data.sources != paths or all(map(_is_there, paths)):
        return config
    moved = _moved(workdir, record)
    if len(moved) != len(paths) or not all(map(_is_there, moved)):
        return config
    return config.replace(**{"data.source": moved})


def _moved(workdir: Path, record: Record) -> Paths:
    base = os.path.abspath(workdir)
    return tuple(os.path.normpath(os.path.join(base, path)) for path in record.sources)


def find_text(
    data: DataConfig,
    workdir: Path,
    record: Record,
    *,
    given: Paths | None = None,
    text: str | bytes | None = None,
    remedy: str = _REMEDY,
    watch: Watch = silent,
) -> Survey:
    """The survey of the text that a checkpoint learned from, known by its fingerprint.

    A `text` or `given` paths are the only place to look. Without them it may be the run's
    own copy, in `data.source`, in the checkpoint's `data.source`, or where that would be
    if the run's directory and its text were moved together. The survey's `data` says where
    it was. Raises InputError where no place has it; `remedy` says what to give then.
    """
    if text is not None:
        places = [(data.sources, text)]
    elif given is not None:
        places = [(given, None)]
    else:
        places = _known_places(data, workdir, record)
    problems = []
    for paths, content in places:
        try:
            place = dataclasses.replace(data, source=paths)
            found = survey(place, content, watch=watch)
        except InputError as error:
            problems.append(_reason(paths, content, error))
            continue
        if _same(found.text, record):
            return found
        kept = str(workdir / run_directory.CORPUS)
        label = "`text`" if text is not None else kept if content is not None else None
        problems.append(_is_another(found.text, label))
    raise _not_found(problems, workdir, record, remedy)


def check_text(record: Record, workdir: Path, text: TextDescription) -> None:
    """Refuses a text, by its fingerprint, other than the one a checkpoint learned from."""
    if not _same(text, record):
        raise _not_found([_is_another(text)], workdir, record, _REMEDY)


def _same(text: TextDescription, record: Record) -> bool:
    return text.fingerprint == record.text.fingerprint


def _known_places(
    data: DataConfig, workdir: Path, record: Record
) -> Iterator[tuple[Paths, bytes | None]]:
    kept = run_directory.kept_text(workdir)
    if kept is not None:
        yield data.sources, kept
    then = record.config.data.sources
    found = [data.sources, then]
    moved = _moved(workdir, record)
    if len(moved) == len(then):
        pairs = list(zip(then, moved, strict=True))
        # Of several texts, some may have moved with the run.
        found += [
            moved,
            tuple(old if _is_there(old) else new for old, new in pairs),
            tuple(new if _is_there(new) else old for old, new in pairs),
        ]
    for paths in dict.fromkeys(found):
        if paths != (sources.IN_MEMORY,):
            yield paths, None


def _is_there(path: str) -> bool:
    try:
        return bool(sources.files((path,)))
    except InputError:
        return False


def _reason(paths: Paths, content: str | bytes | None, error: InputError) -> str:
    # Names and addresses are relative, and a path here never is.
    absent = [p for p in paths if os.path.isabs(p) and not os.path.lexists(p)]
    if content is None and absent:
        return f"{named(tuple(absent))}: there is no such file"
    return str(error).removeprefix("data.source is ").rstrip(".")


def _is_another(text: TextDescription, label: str | None = None) -> str:
    length = f"{text.length:,} {text.vocabulary.kind}"
    return f"{label or named(text.sources)}: the text is not the one ({length})"


def _not_found(
    problems: list[str], workdir: Path, record: Record, remedy: str
) -> InputError:
    text, then = record.text, record.config.data.sources
    count, kind = f"{text.length:,}", text.vocabulary.kind
    order = f", in the order {named(then)}," if len(then) > 1 else ""
    where = "; ".join(problems) or f"there is no {workdir / run_directory.CORPUS}"
    field = "" if where.startswith("`text`") else "data.source: "
    return InputError(
        f"{field}{where}. {workdir} was trained on a text of {count} {kind}, "
        f"fingerprint {text.fingerprint[:12]}: give its path{order} with {remedy}."
    )
