"""The script `capsbench`, and `python -m harness`."""

import os
import sys
from contextlib import suppress

from harness import interruption


def main() -> None:
    interruption.is_at_once()
    from harness.commands import cli

    cli.main()


if __name__ == "__main__":
    with suppress(FileNotFoundError):  # a working directory that was deleted
        if sys.path and sys.path[0] == os.getcwd():  # noqa: PTH109
            sys.path.append(sys.path.pop(0))  # first, a file there such as random.py would pass for Python's own
    main()
