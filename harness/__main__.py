"""`python -m harness` is `capsbench`."""

from harness.cli import main

main()
