"""Write text with a trained model: `python sample.py --help` lists everything."""

import sys

from charjax.cli import sample

if __name__ == "__main__":
    sys.exit(sample())
