"""`charjax sample --interactive`: lines in, text out, until the input ends."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charjax.commands.dialogue import COMMANDS, Dialogue, Told, answer, settable
from charjax.commands.exit_codes import as_options
from charjax.commands.signals import Signals
from charjax.commands.texts import write
from charjax.config.data import OnUnknown
from charjax.errors import InputError
from charjax.sampling.options import SamplingOptions

if TYPE_CHECKING:
    from charjax.language_model import LanguageModel

_PROMPT = "> "


@dataclass
class _Interrupt:
    """Ctrl-C: ends the text that is being written, or the line that is being typed."""

    reading: bool = False
    received: bool = False

    def handle(self, *_: Any) -> None:
        if self.reading:
            raise KeyboardInterrupt
        self.received = True


def converse(
    model: "LanguageModel",
    told: Told,
    options: SamplingOptions,
    prime: str,
    on_unknown: OnUnknown,
    signals: Signals,
) -> int:
    """Answers line after line; returns the exit code."""
    from charjax.sampling import continuation

    dialogue = Dialogue(continuation.begun(model.trained), told, options)
    interrupt = _Interrupt()
    if sys.stdin is not None and sys.stdin.isatty():
        _say("Type text to go on from; Enter writes more, /help says what else there is.")
    with signals.handled_by(interrupt.handle), _line_editing():
        lines = _lines(interrupt)
        if prime:
            dialogue = _written(model, dialogue, prime, on_unknown, interrupt)
        for line in lines:
            try:
                said, todo = answer(dialogue, line)
                match todo.what:
                    case "write":
                        said = _written(model, said, todo.text, on_unknown, interrupt)
                    case "save":
                        _save(said.text, todo.text)
                    case "new":
                        said = replace(said, standing=continuation.begun(model.trained))
                    case "quit":
                        return 0
                    case "say":
                        _say(todo.text)
            except InputError as error:
                _say(as_options(str(error)))
            except MemoryError as error:
                _say(str(error) or "there is not enough memory for this.")
            else:
                dialogue = said
    return 0


def _written(
    model: "LanguageModel",
    dialogue: Dialogue,
    typed: str,
    on_unknown: OnUnknown,
    interrupt: _Interrupt,
) -> Dialogue:
    """The dialogue after one more turn, which is shown as it is made."""
    from charjax.sampling import continuation
    from charjax.sampling.settings import Settings

    told, pieces = dialogue.told, []
    interrupt.received = False
    standing = continuation.told(model.trained, dialogue.standing, typed, on_unknown)
    settings = Settings(told.seed, on_unknown, options=dialogue.options)
    made = continuation.going_on(model.trained, standing, told.length, settings)
    for piece, after in made:
        if interrupt.received:
            break
        standing = after
        pieces.append(piece)
        write(piece)
    written = "".join(pieces)
    if not written.endswith("\n"):
        write("\n")
    if not written and not interrupt.received:
        _say("nothing is left to draw: see /options.")
    return dialogue.after(typed, written, standing)


def _save(text: str, name: str) -> None:
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"/save {name}: it is there already; give another name.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"/save {name}: {reason}.") from None
    _say(f"saved in {path}")


def _lines(interrupt: _Interrupt) -> Iterator[str]:
    """The lines of standard input: typed at a prompt, or read from a file or pipe."""
    if sys.stdin is None:
        return
    read = _typed if sys.stdin.isatty() else _piped
    while True:
        try:
            interrupt.reading = True
            line = read()
            interrupt.reading = False
            if line is None:
                return
        except KeyboardInterrupt:
            _say("\n(/quit or Ctrl-D ends)")
        except UnicodeDecodeError as error:
            _say(f"a line is not UTF-8 at byte {error.start}: it is left out.")
        else:
            yield line


def _typed() -> str | None:
    try:
        if sys.stdout.isatty():
            return input(_PROMPT)
        # Output goes to a file; `input` would write the prompt into it.
        print(_PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None
    except EOFError:
        print()
        return None


def _piped() -> str | None:
    data = sys.stdin.buffer.readline()
    return data.decode("utf-8").rstrip("\r\n") if data else None


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """History, line editing and commands completed by Tab, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    known = (*(name.partition(" ")[0] for name in COMMANDS), *settable())
    names = [f"/{name}" for name in known]
    before: Callable[..., Any] | None = readline.get_completer()

    def complete(word: str, number: int) -> str | None:
        found = [name for name in names if name.startswith(word) and word.startswith("/")]
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
    sys.stderr.flush()
