"""The same training in charjax and in PyTorch, from the same initial weights.

    python -m benchmarks.parity --text path/to/tinyshakespeare.txt --steps 2000

LSTM, GRU and tanh RNN of char-rnn's size (2 x 128, one-hot, 50 rows of 50 characters)
with Adam 2e-3 and gradient norm 5, on the same batches. Writes the losses to
docs/parity.json and the curves to docs/parity.png. PyTorch keeps two biases where charjax
has one, so the second is zero and frozen for LSTM and RNN; GRUs have both.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from charjax.devices import mesh as meshes
from charjax.text.batching import batch_at
from charjax.text.corpus import load
from charjax.text.survey import survey
from charjax.training.state import initial_state
from charjax.training.step import train_step


def make_config(cell: Any, text: str, steps: int) -> Config:
    return Config(
        data=DataConfig(source=text, batch_size=50, sequence_length=50),
        model=ModelConfig(cell=cell, num_layers=2, hidden_size=128, dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="constant", warmup_steps=0),
        train=TrainConfig(steps=steps),
    )


def train_charjax(config: Config, ids: np.ndarray, vocab_size: int) -> list[float]:
    """Losses of each step, nats per character."""
    state = initial_state(config, vocab_size, jax.random.key(config.train.seed))
    recurrence = meshes.recurrence_for(config, meshes.make_mesh(jax.devices()[:1]))
    step = functools.partial(train_step, config, recurrence=recurrence)
    update = jax.jit(step, donate_argnums=0)
    losses = []
    for step in range(config.train.steps or 0):
        batch = batch_at(ids, config.data, config.train.seed, step)
        state, metrics = update(state, batch, jax.random.key(0))
        losses.append(metrics["loss"].item())
    return losses


def torch_modules(config: Config, vocab_size: int) -> tuple[Any, Any]:
    """PyTorch's modules with the weights charjax starts from."""
    import torch
    from torch import nn

    model, gates = config.model, {"lstm": 4, "gru": 3, "rnn": 1}[config.model.cell]
    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[config.model.cell]
    layers = kind(vocab_size, model.hidden_size, model.num_layers, batch_first=True)
    head = nn.Linear(model.hidden_size, vocab_size)
    params = initial_state(config, vocab_size, jax.random.key(config.train.seed)).params
    rows = gates * model.hidden_size
    with torch.no_grad():
        for layer in range(model.num_layers):
            own = params["first"]
            if layer > 0:
                own = {name: leaf[layer - 1] for name, leaf in params["rest"].items()}
            for name, theirs in (("kernel_x", "weight_ih"), ("kernel_h", "weight_hh")):
                kernel = np.asarray(own[name]).reshape(-1, rows).T
                getattr(layers, f"{theirs}_l{layer}").copy_(torch.tensor(kernel.copy()))
            bias = np.array(own["bias"]).reshape(-1)
            second = np.array(own.get("bias_h", np.zeros_like(bias))).reshape(-1)
            getattr(layers, f"bias_ih_l{layer}").copy_(torch.tensor(bias))
            getattr(layers, f"bias_hh_l{layer}").copy_(torch.tensor(second))
            if model.cell != "gru":
                getattr(layers, f"bias_hh_l{layer}").requires_grad_(False)
        head.weight.copy_(torch.tensor(np.array(params["head"]["kernel"]).T.copy()))
        head.bias.copy_(torch.tensor(np.array(params["head"]["bias"])))
    return layers, head


def train_torch(config: Config, ids: np.ndarray, vocab_size: int) -> list[float]:
    """The same in PyTorch."""
    import torch
    from torch.nn import functional

    layers, head = torch_modules(config, vocab_size)
    weights = [p for p in (*layers.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(weights, config.optimizer.learning_rate)
    carry, losses = None, []
    for step in range(config.train.steps or 0):
        batch = batch_at(ids, config.data, config.train.seed, step)
        if batch.reset.all():
            carry = None
        one_hot = functional.one_hot(torch.tensor(batch.inputs).long(), vocab_size).float()
        hidden, carry = layers(one_hot, carry)
        parts = carry if isinstance(carry, tuple) else (carry,)
        detached = tuple(part.detach() for part in parts)
        carry = detached if isinstance(carry, tuple) else detached[0]
        mask = torch.tensor(batch.mask)
        targets = torch.tensor(batch.targets).long()
        loss = functional.cross_entropy(head(hidden)[mask], targets[mask])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip_norm or float("inf"))
        optimizer.step()
        losses.append(loss.item())
    return losses


def draw(results: dict[str, dict[str, list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (cell, losses) in zip(
        figure.subplots(1, 3, sharey=True), results.items(), strict=True
    ):
        for name, style in (("PyTorch", "-"), ("charjax", "--")):
            smooth = np.convolve(losses[name], np.ones(50) / 50, "valid")
            axes.plot(np.arange(len(smooth)) + 50, smooth, style, label=name)
        axes.set(title=cell.upper(), xlabel="step", ylim=(1.3, 3.0))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel("training loss, nats per character\n(mean of 50 steps)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="charjax and PyTorch, step by step")
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    results = {}
    for cell in ("lstm", "gru", "rnn"):
        config = make_config(cell, options.text, options.steps)
        corpus = load(survey(config.data))
        ids, size = corpus.split("train", config.data.split), corpus.text.vocabulary.size
        assert isinstance(ids, np.ndarray)
        losses = {
            "PyTorch": train_torch(config, ids, size),
            "charjax": train_charjax(config, ids, size),
        }
        results[cell] = losses
        ends = {name: float(np.mean(values[-100:])) for name, values in losses.items()}
        apart = np.abs(np.subtract(losses["PyTorch"], losses["charjax"]))
        print(
            f"{cell}: last 100 steps, mean: PyTorch {ends['PyTorch']:.4f}, "
            f"charjax {ends['charjax']:.4f}; largest difference at one step "
            f"{apart.max():.4f}, in the first 100 {apart[:100].max():.2e}",
            flush=True,
        )
    options.out.mkdir(exist_ok=True)
    rounded = {
        cell: {name: [round(x, 4) for x in values[::10]] for name, values in both.items()}
        for cell, both in results.items()
    }
    (options.out / "parity.json").write_text(json.dumps(rounded) + "\n")
    draw(results, options.out / "parity.png")


if __name__ == "__main__":
    main()
