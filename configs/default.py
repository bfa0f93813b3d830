"""The default run: a 2 x 256 LSTM on the Python language reference, no download.

    python train.py

@DEFAULT@
"""

from charjax import Config


def get_config() -> Config:
    return Config()
