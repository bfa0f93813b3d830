"""Tiny Shakespeare in a minute or two on a laptop's CPU, to set beside nanoGPT's.

    python train.py --config tinyshakespeare
    charjax evaluate --workdir runs/tinyshakespeare --protocol windowed --window 64

Trained on contiguous streams, 64 characters at a time, for about the time that nanoGPT's
laptop setting takes on the same machine; its split too, the last 10 % for validation.
The second command scores as nanoGPT does: windows of 64 characters from empty state.

TODO measured
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(source="tinyshakespeare", batch_size=32, sequence_length=64),
        model=ModelConfig(cell="lstm", num_layers=2, hidden_size=256, dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup_steps=50),
        train=TrainConfig(steps=None, epochs=1.0, eval_every=250, sample_every=500),
    )
