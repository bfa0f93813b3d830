"""Train a model, or go on with a run: `python train.py --help` lists everything."""

import sys

from charjax.cli import train

if __name__ == "__main__":
    sys.exit(train())
