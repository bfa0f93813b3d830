"""The clock of training: how fast it goes, and how long the device waits for input."""

import time

# From these on it is worth a word: a share of the training time, and seconds.
_LONG_SHARE, _LONG = 0.2, 2.0


class Clock:
    """Measures training alone: evaluation, samples and saves do not count."""

    def __init__(self, step: int) -> None:
        self.trained = self.waited = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        """Measure the speed from this step on."""
        self.step, self.time, self.idle = step, time.perf_counter(), 0.0
        self.busy = self.time

    def ended(self) -> None:
        """A step has just ended, and the device has begun with the next one."""
        now = time.perf_counter()
        self.trained += now - self.busy
        self.busy = now

    def prepared(self, idle: bool) -> None:
        """The next step can begin, and the device has nothing to do if `idle`."""
        if idle:
            # An upper bound: it may have run out of work only just now.
            waited = time.perf_counter() - self.busy
            self.idle += waited
            self.waited += waited

    def steps_per_second(self, step: int) -> float:
        """Steps each second since `restart`."""
        return (step - self.step) / self._elapsed()

    def input_wait(self) -> float:
        """The share of time since `restart`, at most, that the device waited for input."""
        return min(self.idle / self._elapsed(), 1.0)

    def hint(self) -> str | None:
        """What to do where the device waited long for input; None where it did not."""
        share = min(self.waited / max(self.trained, 1e-9), 1.0)
        if share < _LONG_SHARE or self.waited < _LONG:
            return None
        return (
            f"hint: the device waited for input {share:.0%} of the training time, at most: "
            "a larger data.batch_size or data.sequence_length makes more of each step, and "
            "$CHARJAX_CACHE_DIR on a faster disk makes the text come sooner"
        )

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.time, 1e-9)
