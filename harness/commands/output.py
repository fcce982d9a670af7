"""What commands print: one document on stdout, progress lines on stderr."""

from __future__ import annotations

import json
from typing import Any


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


def tell(line: str, style: str = "dim") -> None:
    """Prints a line to stderr."""
    from rich.text import Text

    from harness.views.messages import Console

    Console(stderr=True).print(Text(line, style), soft_wrap=True)
