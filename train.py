"""Train a model, or go on with a run: `python train.py --help` lists everything."""

import signal
import sys

if __name__ == "__main__":
    # Ctrl-C while Python imports needs no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    from charjax.commands.cli import main

    sys.exit(main(only="train"))
