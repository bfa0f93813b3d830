"""What one pass of a loop costs, whatever the platform counts."""

from dataclasses import dataclass

from charjax.compiled.hlo import Instruction


@dataclass(frozen=True)
class Loop:
    """A loop of a compiled program, or a kernel that runs over its steps by itself."""

    over: str
    """`time`, `layers`, `parts` of a batch, `characters` drawn, or `other`."""

    direction: str
    """`forward` or `backward`."""

    iterations: int
    """Passes in one run of the loop; several steps may be in each."""

    steps: int
    """What it goes over: time steps, or characters."""

    kernels: int | None = None
    """Of a GPU, in one pass; command buffers or not."""

    bundles: int | None = None
    """Instruction words of a TPU in one pass, without what it waits for memory."""

    cycles: int | None = None
    """Of a TPU in one pass, by the compiler's static profile."""

    def per_step(self, unit: str) -> float | None:
        """Kernels, bundles or cycles of one time step or character; None of other loops.

        >>> Loop("time", "forward", 10, 100, kernels=23).per_step("kernels")
        2.3
        """
        amount = getattr(self, unit)
        if amount is None or self.over not in ("time", "characters", "other"):
            return None
        return amount * self.iterations / self.steps


def direction(instruction: Instruction) -> str:
    """Whether an operation belongs to the gradient, as JAX names it."""
    return "backward" if "transpose(" in instruction.path else "forward"
