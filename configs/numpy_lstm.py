"""The NumPy LSTM: one layer, one-hot, 25 steps of back-propagation through time.

    python train.py --config numpy_lstm
    python train.py --config numpy_lstm --data.source path/to/anna.txt

The original asks for a text of at least 2 MB, here Anna Karenina. It leaves rows, width and
optimizer open: here 32 rows, 256 units, Adam 2e-3.

Not run to its end. Three epochs (6,702 steps) on two CPU cores (Sapphire Rapids, float32)
took 2.5 minutes: validation 1.437 nats. The original publishes no loss.
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(source="anna", batch_size=32, sequence_length=25),
        model=ModelConfig(cell="lstm", num_layers=1, hidden_size=256, dropout=0.0),
        optimizer=OptimizerConfig(
            name="adam", learning_rate=2e-3, schedule="constant", warmup_steps=0
        ),
        train=TrainConfig(
            steps=None, epochs=5, eval_every=1000, checkpoint_every=1000, sample_every=1000
        ),
    )
