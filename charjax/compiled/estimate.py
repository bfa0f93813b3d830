"""How fast a program may run: an estimate from what the compiler says, and its assumptions.

Nothing here was measured on a device.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from charjax.compiled.chips import Chip
from charjax.compiled.collectives import Collective
from charjax.config.schema import Config
from charjax.model.parameters import table
from charjax.model.variants import cell_of

# Between the starts of two small kernels in a row, in a command buffer; and what it costs
# the host to launch one by itself beyond that. Order of magnitude, of an H100.
KERNEL, LAUNCH = 1.5e-6, 1.0e-6
# Of the peak, for products of a few hundred rows.
EFFICIENCY = 0.5


@dataclass(frozen=True)
class Estimate:
    """Of one run of a program."""

    seconds: float
    characters_per_second: float

    floor: float
    """Seconds that its products alone take at the chip's peak."""

    assumptions: tuple[str, ...]


def products(config: Config, vocab_size: int, positions: int, training: bool) -> float:
    """Floating-point operations of the matrix products of so many positions (rows times
    steps); one-hot input is looked up, and only its gradient is a product.

    >>> products(Config(), 65, 1, training=False)
    1606144.0
    """
    groups = table(config.model, vocab_size)
    times = 6 if training else 2
    layers = [groups[name] for name in ("first", "rest") if name in groups]
    operations = 0.0
    for layer in layers:
        for name in ("kernel_x", "kernel_h"):
            size = _size(layer[name].shape)
            looked_up = layer is groups["first"] and name == "kernel_x"
            looked_up &= "embedding" not in groups
            operations += size * ((2 if training else 0) if looked_up else times)
    operations += times * config.model.hidden_size * vocab_size
    if "embedding" in groups and training:
        operations += 2 * _size(groups["embedding"]["table"].shape)
    return operations * positions


def recurrent_product(config: Config, rows: int) -> float:
    """Floating-point operations of one layer's product in one time step."""
    model = config.model
    gates = len(cell_of(model).gates)
    return 2.0 * rows * model.hidden_size * gates * model.hidden_size


def peak(chip: Chip, precision: str) -> float:
    """Operations a second of products of operands of a precision."""
    return chip.bfloat16 if precision == "bfloat16" else chip.float32


def cycles_of(chip: Chip, precision: str, operations: float) -> float:
    """Cycles of a TPU's matrix units for so many operations."""
    assert chip.clock is not None
    return operations / peak(chip, precision) * chip.clock


def of_tpu(
    chip: Chip,
    bundles: int,
    floor: float,
    sent: Iterable[Collective],
    characters: int,
) -> Estimate:
    """Of a TPU that waits for nothing: a bundle a cycle."""
    assert chip.clock is not None
    messages = _messages(chip, sent)
    seconds = max(bundles / chip.clock, floor) + messages
    said = [
        f"a bundle a cycle at {chip.clock / 1e9:.2f} GHz, without waiting for memory",
        *_said_of_messages(chip, messages),
    ]
    return Estimate(seconds, characters / seconds, floor, tuple(said))


def of_gpu(
    chip: Chip,
    kernels: int,
    alone: int,
    floor: float,
    sent: Iterable[Collective],
    characters: int,
) -> Estimate:
    """Of a GPU whose small kernels run one after the other."""
    messages = _messages(chip, sent)
    seconds = floor / EFFICIENCY + kernels * KERNEL + alone * LAUNCH + messages
    said = [
        f"{1e6 * KERNEL:.1f} us a kernel and {1e6 * LAUNCH:.1f} more where it is launched "
        f"alone, products at {EFFICIENCY:.0%} of the peak",
        *_said_of_messages(chip, messages),
    ]
    return Estimate(seconds, characters / seconds, floor, tuple(said))


def _messages(chip: Chip, sent: Iterable[Collective]) -> float:
    # Each byte goes out and another comes in; nothing overlaps.
    return sum(2 * each.bytes for each in sent) / chip.link


def _said_of_messages(chip: Chip, seconds: float) -> list[str]:
    if not seconds:
        return []
    return [f"{1e3 * seconds:.2f} ms of messages at {chip.link / 1e9:.0f} GB/s, not hidden"]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size
