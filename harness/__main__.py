"""`python -m harness` is `capsbench`."""

import os
import sys
from contextlib import suppress

with suppress(FileNotFoundError):
    if sys.path and sys.path[0] == os.getcwd():  # noqa: PTH109
        sys.path.append(sys.path.pop(0))  # first, a file there such as random.py would pass for Python's own

from harness.commands.cli import main

main()
