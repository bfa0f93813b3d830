"""The fields of `parallel`."""

import dataclasses
from typing import Annotated

from charjax.config.checks import AtLeast, Section, check_fields


@dataclasses.dataclass(frozen=True, repr=False)
class ParallelConfig(Section):
    """How several devices share the work; a resumed run may change it."""

    model: Annotated[int, AtLeast(1)] = 1
    """Devices side by side that split each layer's units and the head's symbols. The
    others split the rows of a batch."""

    fsdp: bool = False
    """Split parameters and optimizer state over the devices that split the rows, too."""

    def __post_init__(self) -> None:
        check_fields(self, "parallel")
