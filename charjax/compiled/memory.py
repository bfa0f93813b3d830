"""What takes the memory of a device while a program runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# JAX takes three quarters of a GPU when it starts, and gives out no more than that.
GPU_SHARE = 0.75


@dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    parts: Mapping[str, int]
    """The arguments: parameters, optimizer, carry, batch; what is left over is `padding`,
    by which a device lays arrays out."""

    temporaries: int
    """What a program keeps for itself: activations, gradients, work space."""

    outputs: int
    """Results that do not take the place of an argument."""

    code: int

    @property
    def peak(self) -> int:
        """All of it."""
        others = self.temporaries + self.outputs + self.code
        return sum(self.parts.values()) + others


def memory(stats: Any, parts: Mapping[str, int]) -> Memory:
    """The memory of a compiled program (`compiled.memory_analysis()`), whose arguments are
    these parts."""
    padding = max(stats.argument_size_in_bytes - sum(parts.values()), 0)
    return Memory(
        parts={**parts, "padding": padding},
        temporaries=stats.temp_size_in_bytes,
        outputs=max(stats.output_size_in_bytes - stats.alias_size_in_bytes, 0),
        code=stats.generated_code_size_in_bytes,
    )
