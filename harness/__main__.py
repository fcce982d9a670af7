"""`python -m harness` is `capsbench`."""

from harness.commands.cli import main

main()
