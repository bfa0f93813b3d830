"""`python -m charjax`: the same as the `charjax` command."""

import sys

from charjax.commands.cli import main

sys.exit(main())
