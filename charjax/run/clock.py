"""The clock of training: how fast it goes, and how long the device waits for input."""

import time


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

    def summary(self) -> str:
        share = min(self.waited / max(self.trained, 1e-9), 1.0)
        return f"the device waited for input {share:.1%} of the training time, at most"

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self.time, 1e-9)
