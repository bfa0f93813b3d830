"""The fields of `model`."""

import dataclasses
from typing import Annotated, Any, Literal

from charjax.config.checks import AtLeast, Section, Share, check_fields, refuse

WITHOUT_HIDDEN_KERNEL = ("mingru", "minlstm")
"""The cells whose gates see the input alone."""

_OF_TRAINING = (
    *("dropout", "locked_dropout", "recurrent_dropout", "input_dropout"),
    *("forget_bias", "recurrence"),
)


@dataclasses.dataclass(frozen=True, repr=False)
class ModelConfig(Section):
    """The network: input, a stack of recurrent layers, a linear head."""

    cell: Literal["lstm", "gru", "rnn", "mingru", "minlstm"] = "lstm"
    """LSTM, GRU (reset after the product, as in PyTorch and cuDNN), tanh RNN; minGRU and
    minLSTM, whose gates see the input alone (Feng et al. 2024)."""

    num_layers: Annotated[int, AtLeast(1)] = 2
    """Recurrent layers."""

    hidden_size: Annotated[int, AtLeast(1)] = 256
    """Units per layer."""

    embedding_size: Annotated[int | None, AtLeast(1)] = None
    """Width of a learned embedding; None feeds the characters one-hot."""

    dropout: Annotated[float, Share(one=False)] = 0.2
    """Share of activations dropped between layers and before the head."""

    locked_dropout: bool = False
    """Whether dropout drops the same units at every step of a window (Gal and Ghahramani
    2016)."""

    recurrent_dropout: Annotated[float, Share(one=False)] = 0.0
    """Share of the hidden-to-hidden weights dropped, once a window (weight drop, Merity et
    al. 2018)."""

    input_dropout: Annotated[float, Share(one=False)] = 0.0
    """Share of the symbols that read as nothing, once a window (Gal and Ghahramani 2016;
    embedding dropout in Merity et al. 2018)."""

    layer_norm: bool = False
    """Whether the gates are normalised (layer normalisation, Ba et al. 2016)."""

    residual: bool = False
    """Whether each layer but the first adds its output to what it reads."""

    sum_layers: bool = False
    """Whether the head reads the sum of all layers' outputs (Melis et al. 2020)."""

    tied: bool = False
    """Whether the embedding is the head's kernel too (Press and Wolf 2017); needs
    embedding_size equal to hidden_size."""

    forget_bias: float = 1.0
    """Initial bias of the LSTM's forget gate (Jozefowicz et al. 2015)."""

    recurrence: Literal["auto", "plain", "scan", "gpu", "triton", "tpu"] = "auto"
    """What computes the recurrence: plain and scan run everywhere, gpu is written for XLA
    on GPUs, triton and tpu are kernels. auto is the fastest that suits the devices; a
    resumed run may be given another."""

    def __post_init__(self) -> None:
        check_fields(self, "model")
        if self.cell in WITHOUT_HIDDEN_KERNEL:
            for name in ("recurrent_dropout", "layer_norm"):
                if value := getattr(self, name):
                    refuse(
                        *(f"model.{name}", value),
                        f"a {self.cell} has no hidden-to-hidden kernel for it; leave it "
                        "out, or take another model.cell",
                    )
        if self.tied and self.embedding_size != self.hidden_size:
            refuse(
                *("model.tied", self.tied),
                f"the embedding can be the head only where model.embedding_size (now "
                f"{self.embedding_size}) is model.hidden_size (now {self.hidden_size}); "
                "make them equal",
            )

    @property
    def shape(self) -> dict[str, Any]:
        """The fields that decide which parameters there are, and what they mean."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in _OF_TRAINING}

    def shaped_like(self, other: "ModelConfig") -> "ModelConfig":
        """This model with the shape of another."""
        return dataclasses.replace(self, **other.shape)
