"""PyTorch's rows: nn.LSTM, nn.GRU and nn.RNN doing the same work.

Variants of training: "stack" is one module of all layers, as notebooks write it; "layers"
is one module a layer with the input padded to a multiple of 128, the layout that reaches
cuDNN's persistent kernel in float16. Variants of sampling: "default", and "no-mkldnn",
which keeps oneDNN from repacking the weights at each call.
"""

import contextlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.work import Work
from charjax.sampling.chunks import CHUNK
from charjax.text.batching import batch_at

MODULES: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "device": name,
    }


class Network(nn.Module):
    """Input, recurrent layers, dropout, head."""

    def __init__(self, work: Work, variant: str) -> None:
        super().__init__()
        self.work = work
        width = work.embedding_size or work.vocab_size
        if variant == "layers":
            width = -(-width // 128) * 128
        self.width = width
        kind, hidden = MODULES[work.cell], work.hidden_size
        self.embedding = None
        if work.embedding_size is not None:
            self.embedding = nn.Embedding(work.vocab_size, work.embedding_size)
        if variant == "layers":
            widths = [width] + [hidden] * (work.num_layers - 1)
            self.layers = nn.ModuleList(kind(w, hidden, batch_first=True) for w in widths)
        else:
            dropout = work.dropout if work.num_layers > 1 else 0.0
            stack = kind(width, hidden, work.num_layers, batch_first=True, dropout=dropout)
            self.layers = nn.ModuleList([stack])
        self.dropout = nn.Dropout(work.dropout)
        self.head = nn.Linear(hidden, work.vocab_size)

    def forward(self, ids: Any, carry: Any) -> Any:
        if self.embedding is not None:
            x = self.embedding(ids)
        else:
            x = functional.one_hot(ids, self.width).float()
        after = []
        for index, layer in enumerate(self.layers):
            x, state = layer(x, None if carry is None else carry[index])
            # The stacked module drops between its own layers; the last output is ours.
            x = self.dropout(x)
            after.append(state)
        return self.head(x), after


def _autocast(precision: str) -> Any:
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    if precision in ("float32", "tf32"):
        return contextlib.nullcontext()
    return torch.autocast(DEVICE, dtype=getattr(torch, precision))


def training(work: Work, precision: str, variant: str) -> Any:
    """One update after another: autocast, clip, Adam, each loss read a step late."""
    torch.manual_seed(0)
    config, ids = work.config("float32"), work.ids()
    model = Network(work, variant).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=DEVICE == "cuda")
    scaler = torch.amp.GradScaler(DEVICE, enabled=precision == "float16")
    held: dict[str, Any] = {"carry": None, "step": 0}

    def run(count: int) -> float:
        waiting = None
        for _ in range(count):
            batch = batch_at(ids, config.data, 0, held["step"])
            inputs = torch.from_numpy(batch.inputs).to(DEVICE).long()
            targets = torch.from_numpy(batch.targets).to(DEVICE).long()
            with _autocast(precision):
                logits, carry = model(inputs, held["carry"])
                loss = functional.cross_entropy(
                    logits.float().flatten(0, 1), targets.flatten()
                )
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            held["carry"] = [_detached(state) for state in carry]
            held["step"] += 1
            if waiting is not None:
                waiting.item()
            waiting = loss.detach()
        assert waiting is not None
        return waiting.item()

    return run, versions()


def _detached(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return state.detach()


def sampling(work: Work, precision: str, streams: int, variant: str) -> Any:
    """Character after character in so many streams, brought to the host in chunks."""
    torch.manual_seed(0)
    model = Network(work, "stack").to(DEVICE).eval()
    ids = torch.zeros(streams, 1, dtype=torch.long, device=DEVICE)
    held: dict[str, Any] = {"ids": ids, "carry": None}
    plain = variant == "no-mkldnn"

    def run(count: int) -> None:
        mkldnn = torch.backends.mkldnn.flags(enabled=not plain)
        with torch.inference_mode(), _autocast(precision), mkldnn:
            for _ in range(count):
                chunk = []
                for _ in range(CHUNK):
                    logits, held["carry"] = model(held["ids"], held["carry"])
                    probs = functional.softmax(logits[:, 0].float(), dim=-1)
                    held["ids"] = torch.multinomial(probs, 1)
                    chunk.append(held["ids"])
                torch.cat(chunk, 1).cpu()

    return run, versions()
