"""The fields of `model`."""

import dataclasses
from typing import Annotated, Any, Literal

from charjax.config.checks import AtLeast, Section, Share, check_fields


@dataclasses.dataclass(frozen=True, repr=False)
class ModelConfig(Section):
    """The network: input, a stack of recurrent layers, a linear head."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """LSTM, GRU (reset after the product, as in PyTorch and cuDNN) or tanh RNN."""

    num_layers: Annotated[int, AtLeast(1)] = 2
    """Recurrent layers."""

    hidden_size: Annotated[int, AtLeast(1)] = 256
    """Units per layer."""

    embedding_size: Annotated[int | None, AtLeast(1)] = None
    """Width of a learned embedding; None feeds the characters one-hot."""

    dropout: Annotated[float, Share(one=False)] = 0.2
    """Share of activations dropped between layers and before the head."""

    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (Jozefowicz et al. 2015)."""

    recurrence: Literal["auto", "plain", "scan", "gpu", "triton", "tpu"] = "auto"
    """What computes the recurrence: plain and scan run everywhere, gpu is written for XLA
    on GPUs, triton and tpu are kernels. auto is the fastest that suits the devices; a
    resumed run may be given another."""

    def __post_init__(self) -> None:
        check_fields(self, "model")

    @property
    def shape(self) -> dict[str, Any]:
        """The fields that decide which parameters there are."""
        others = ("dropout", "forget_bias", "recurrence")
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in others}

    def shaped_like(self, other: "ModelConfig") -> "ModelConfig":
        """This model with the shape of another."""
        return dataclasses.replace(self, **other.shape)
