"""`capsbench schema`: the JSON Schema of suites, by which editors complete, explain and check them."""

from __future__ import annotations

import argparse

from harness.commands.output import print_json
from harness.suite.schema import schema


def options(command: argparse.ArgumentParser) -> None:
    """The options of `capsbench schema`: none of its own."""
    command.epilog = (
        "Editors with a YAML language server use it where a suite begins with the line "
        "# yaml-language-server: $schema=suite.schema.json"
    )


def main(args: argparse.Namespace) -> int:
    print_json(schema())
    return 0
