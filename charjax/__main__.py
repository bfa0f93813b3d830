"""`python -m charjax`: the same as the `charjax` command."""

import sys

from charjax.cli import main

sys.exit(main())
