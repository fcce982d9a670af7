"""TODO(docstring)."""

from __future__ import annotations

import argparse

from rich.console import Console

from harness.commands.common import _print_json


def _compare(args: argparse.Namespace) -> int:
    from harness.analysis.compare import compare
    from harness.views.compare import show

    comparison = compare(args.run_a, args.run_b, args.tolerance)
    show(Console(stderr=args.json), comparison)
    if args.json:
        _print_json(comparison.to_json())
    return 0 if comparison.ok else 1
