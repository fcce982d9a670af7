"""TODO(docstring)."""

from __future__ import annotations

import argparse


def _ui(args: argparse.Namespace) -> int:
    from harness.views.mlflow.server import serve

    serve(args.out, args.mlflow_uri, args.port, open_browser=not args.no_browser)
    return 0
