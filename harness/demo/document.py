"""The demo's page as one HTML document that needs nothing else: scripts, style, weights and test digits are within."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.demo.model import Examples, examples, framing, is_shipped
from harness.prediction.trained import Trained
from harness.weights.files import save_weights

_PAGE = Path(__file__).with_name("page")
SCRIPTS = ("capsnet", "drawing", "pictures", "app")
"""The modules of the page; each imports others by these names."""


def document(trained: Trained, folder: Path, *, missing: Mapping[str, str] | None = None) -> str:
    """The page. `folder` is for a temporary file.

    Args:
        missing: implementation -> why it does not compute here; None for a page without a server, which computes alone.
    """
    file = folder / "page.safetensors"
    save_weights(file, trained.weights)
    shown = {
        "model": trained.model.model_dump(mode="json"),
        "weights": _encoded(file.read_bytes()),
        "classes": trained.class_names,
        "about": _about(trained, is_served=missing is not None),
        "examples": _listed(examples(trained)),
        "framing": framing(trained),
        "served": missing is not None,
        "missing": missing or {},
        "version": __version__,
    }
    modules = {name: _module((_PAGE / f"{name}.js").read_bytes()) for name in SCRIPTS}
    page = (_PAGE / "index.html").read_text("utf-8")
    for mark, text in (
        ("/* STYLE */", (_PAGE / "style.css").read_text("utf-8")),
        ('"IMPORTS"', _json({"imports": modules})),
        ('"DATA"', _json(shown)),
    ):
        page = page.replace(mark, text, 1)
    return page


def _about(trained: Trained, *, is_served: bool) -> dict[str, Any]:
    facts = trained.facts
    file = str(trained.path) if is_served else trained.path.name  # a page for others names no folder of this machine
    return {
        "is_shipped": is_shipped(trained),
        "file": "" if is_shipped(trained) else file,
        "data": facts.get("data") if isinstance(facts.get("data"), str) else trained.data and trained.data.name,
        "impl": trained.impl,
        "epoch": facts.get("epoch"),
        "trial": facts.get("trial"),
        "test_err_pct": facts.get("test_err_pct"),
        "precision": trained.precision,
        "doubts": list(trained.doubts),
    }


def _listed(found: Examples) -> dict[str, Any]:
    pairs = zip(found.images, found.labels, strict=True)
    images = [
        {"layers": [_encoded(layer.tobytes()) for layer in layers], "labels": labels.tolist()}
        for layers, labels in pairs
    ]
    return {"said": found.said, "images": images}


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _module(source: bytes) -> str:
    """A module as an address, which also a page opened as a file may import."""
    return f"data:text/javascript;base64,{_encoded(source)}"


def _json(value: Any) -> str:
    """JSON that ends no `script` element."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c")
