"""char-rnn with Karpathy's defaults, on Tiny Shakespeare.

    python train.py --config char_rnn
    python train.py --config char_rnn --data.source path/to/your.txt --model.cell gru

LSTM 2 x 128 on one-hot characters, 50 rows of 50 characters, RMSProp 2e-3 with decay
0.95, every gradient element clipped to plus or minus 5, the learning rate times 0.97 each
epoch after the tenth, 50 epochs, 95/5 split. The last 5 % are one contiguous piece here;
char-rnn takes the last 5 % of each of its 50 rows, which is easier.

Not run to its end. Ten epochs (4,240 steps) on two CPU cores (Sapphire Rapids, float32)
took 5 minutes on a busy machine: training loss about 1.35 nats, best validation 1.603 (on
the contiguous tail). char-rnn publishes no loss for this text.
"""

from charjax import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            source="tinyshakespeare",
            split=(0.95, 0.05, 0.0),
            batch_size=50,
            sequence_length=50,
        ),
        model=ModelConfig(cell="lstm", num_layers=2, hidden_size=128, dropout=0.0),
        optimizer=OptimizerConfig(
            name="rmsprop",
            learning_rate=2e-3,
            schedule="exponential",
            warmup_steps=0,
            decay_rate=0.97,
            decay_after_epochs=10,
            beta2=0.95,
            clip_norm=None,
            clip_value=5.0,
        ),
        train=TrainConfig(
            steps=None, epochs=50, eval_every=1000, checkpoint_every=1000, sample_every=1000
        ),
    )
