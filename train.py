"""Train a model, or go on with a run: `python train.py --help` lists everything."""

import signal
import sys

if __name__ == "__main__":
    # Ctrl-C while the imports take their second or two needs no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from charjax.commands.cli import train

    sys.exit(train())
