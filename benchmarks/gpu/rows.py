"""The rows, the most worth first: a time limit may cut off the rest."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.work import WORKS, Work

DEVICE, EQUAL, CHOICE = "device", "equal", "choice"
TRAINING, SAMPLING, PROFILE = "train", "sample", "profile"

# The canonical step in one command buffer, and in none.
ONE_BUFFER = "--xla_gpu_enable_command_buffer=+WHILE"
NO_BUFFERS = "--xla_gpu_enable_command_buffer="

# Implementations for a GPU, and what was there before them.
FOR_GPU = ("gpu", "triton")
ALL = (*FOR_GPU, "scan")


@dataclass(frozen=True)
class Row:
    """One question, answered in a process of its own."""

    name: str
    """Unique; what `--continue` knows it by."""

    kind: str

    work: str = "canonical"
    """A name in `WORKS`."""

    request: dict[str, Any] = field(default_factory=dict)
    """What the worker is told beside the work."""

    flags: str = ""
    """Added to XLA_FLAGS."""

    seconds: float = 100
    """After which it is given up."""


def rows(torch: bool) -> list[Row]:
    """All rows; PyTorch's where that is installed."""
    canonical = [
        *(_charjax(name, "bfloat16") for name in FOR_GPU),
        _cudnn("tf32"),
        *_torch("bfloat16", "tf32", also_layers=True, there=torch),
        *(_charjax(name, "tf32") for name in FOR_GPU),
    ]
    exact = [
        *(_charjax(name, "float32") for name in FOR_GPU),
        _cudnn("float32"),
        *_torch("float32", there=torch),
    ]
    large = [
        row
        for work in ("batch-1024", "batch-8192")
        for row in (
            *(_charjax(name, "bfloat16", work) for name in FOR_GPU),
            *_torch("bfloat16", work=work, there=torch),
            _cudnn("tf32", work),
            *(_charjax(name, "tf32", work) for name in FOR_GPU),
        )
    ]
    small = [
        row
        for work in ("char-rnn", "island")
        for row in (
            *(_charjax(name, "bfloat16", work) for name in FOR_GPU),
            *(_charjax(name, "tf32", work) for name in FOR_GPU),
            *_torch("bfloat16", "tf32", work=work, there=torch),
        )
    ]
    rest = [
        *(_charjax("scan", precision) for precision in ("bfloat16", "tf32")),
        _flax(),
        *(_charjax("gpu", "bfloat16", work) for work in ("gru", "rnn")),
        *_torch("bfloat16", work="gru", there=torch),
        *(
            _charjax("gpu", "float32", work)
            for work in ("batch-1024", "batch-8192", "char-rnn", "island")
        ),
    ]
    return [
        Row("device", DEVICE),
        *(_equal(name, p) for name in ALL for p in ("bfloat16", "float32")),
        *(_choice(p) for p in ("bfloat16", "float32")),
        *canonical,
        *(_profile(name) for name in FOR_GPU),
        *_with_flags(),
        *_sampling(torch),
        *exact,
        *large,
        *small,
        *(_equal(name, "tf32") for name in FOR_GPU),
        *(_choice("bfloat16", work) for work in ("char-rnn", "island", "batch-1024")),
        *rest,
    ]


def rehearsed(row: Row) -> dict[str, Any]:
    """The work of a row, so small that a CPU does it at once."""
    streams = min(row.request.get("streams", 1), 4)
    return work_of(row, **_TINY) | ({"streams": streams} if row.kind == SAMPLING else {})


def work_of(row: Row, **sizes: Any) -> dict[str, Any]:
    """What the worker is told of a row; `sizes` in place of those of its work."""
    work: Work = replace(WORKS[row.work], synthetic=True)
    if work.embedding_size is not None and sizes:
        sizes["embedding_size"] = 6
    work = replace(work, **sizes)
    return {"kind": row.kind, **row.request, "work": asdict(work)}


_TINY = {"hidden_size": 8, "batch_size": 8, "sequence_length": 6, "vocab_size": 7}


def _charjax(name: str, precision: str, work: str = "canonical", **more: Any) -> Row:
    request = {"system": "charjax", "precision": precision, "recurrence": name, **more}
    also = "".join(f", {word}" for word in more)
    return Row(f"{work}: charjax {name} {precision}{also}", TRAINING, work, request)


def _cudnn(precision: str, work: str = "canonical") -> Row:
    request = {"system": "cudnn", "precision": precision}
    return Row(f"{work}: jax.experimental.rnn {precision}", TRAINING, work, request)


def _flax() -> Row:
    request = {"system": "flax", "precision": "tf32"}
    return Row("canonical: Flax nn.RNN tf32", TRAINING, "canonical", request)


def _torch(
    *precisions: str, work: str = "canonical", also_layers: bool = False, there: bool
) -> list[Row]:
    if not there:
        return []
    kinds = [(precision, "stack") for precision in precisions]
    kinds += [("float16", "layers")] if also_layers else []
    return [
        Row(
            f"{work}: PyTorch {precision}, {variant}",
            *(TRAINING, work),
            {"system": "torch", "precision": precision, "variant": variant},
        )
        for precision, variant in kinds
    ]


def _equal(name: str, precision: str) -> Row:
    request = {"recurrence": name, "precision": precision}
    return Row(f"{name} {precision} against plain", EQUAL, "canonical", request)


def _choice(precision: str, work: str = "canonical") -> Row:
    request = {"precision": precision}
    return Row(f"{work}: what auto takes in {precision}", CHOICE, work, request)


def _profile(name: str) -> Row:
    request = {"system": "charjax", "precision": "bfloat16", "recurrence": name}
    return Row(f"profile: {name} bfloat16", PROFILE, "canonical", request, seconds=120)


def _with_flags() -> list[Row]:
    kinds = [("one command buffer", ONE_BUFFER), ("no command buffers", NO_BUFFERS)]
    found = [_charjax(name, "bfloat16", resident=True) for name in FOR_GPU]
    for name in FOR_GPU:
        row = _charjax(name, "bfloat16")
        found += [
            replace(row, name=f"{row.name}, {words}", flags=flags) for words, flags in kinds
        ]
    return found


def _sampling(torch: bool) -> list[Row]:
    systems = [("charjax", {"system": "charjax"})]
    if torch:
        systems.append(("PyTorch", {"system": "torch", "variant": "default"}))
    found = [
        Row(
            f"sampling, {streams} streams: {name} bfloat16",
            *(SAMPLING, "canonical"),
            {**request, "task": "sample", "precision": "bfloat16", "streams": streams},
        )
        for streams in (256, 1, 1024)
        for name, request in systems
    ]
    one = next(row for row in found if row.request["streams"] == 1)
    return [*found, replace(one, name=f"{one.name}, one command buffer", flags=ONE_BUFFER)]
