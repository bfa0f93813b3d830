"""The default run: a 2 x 256 LSTM on the Python language reference, no download.

    python train.py

A few minutes on two CPU cores; `docs/performance.md` has what it reaches.
"""

from charjax import Config


def get_config() -> Config:
    return Config()
