"""SIGINT and SIGTERM of a command; importing the library handles none."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Signals:
    """SIGINT and SIGTERM of a command.

    A signal ends the process at once. Once `stop` has been called, the first signal makes
    it return True instead, and the second ends the process.
    """

    received: list[int]
    asked: list[bool]
    own: set[int] = field(default_factory=set)
    """Signals that the command handles itself."""

    def stop(self) -> bool:
        if not self.asked:
            self.asked.append(True)
        return bool(self.received)

    @contextlib.contextmanager
    def handled_by(self, handle: Callable[..., None]) -> Iterator[None]:
        """Has Python call `handle` on SIGINT, which then ends nothing by itself."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, handle)
        self.own.add(signal.SIGINT)
        try:
            yield
        finally:
            self.own.discard(signal.SIGINT)
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def collected() -> Iterator[Signals]:
    """Collects signals in a thread: Python's own handlers wait until the main thread is
    back from what it is doing, which may be a compilation."""
    signals = Signals([], [])
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def watch() -> None:
        while number := os.read(reading, 1)[0]:
            if number not in handled or number in signals.own:
                continue
            if signals.received or not signals.asked:
                os.write(2, b"\ninterrupted\n")
                os._exit(128 + number)
            signals.received.append(number)
            os.write(
                2, b"\nstopping after this step, with a checkpoint; again to stop now\n"
            )

    handled = (signal.SIGINT, signal.SIGTERM)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = [signal.signal(number, lambda *_: None) for number in handled]
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
        os.write(writing, b"\0")
        watching.join()
        os.close(reading)
        os.close(writing)
