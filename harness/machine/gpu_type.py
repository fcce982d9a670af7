"""Names of GPU types, as in `resources.gpu_type`: those that Ray's nodes report, such as H100, A100 or GeForce-RTX-5090."""

from __future__ import annotations

import re
from collections.abc import Iterable


def gpu_type(product: str) -> str | None:
    """The type of a GPU whose driver calls it `product`: "NVIDIA H100 80GB HBM3" -> "H100"; None for no name.

    The maker's name is left out. Of a name in capitals and digits, the words up to the first with a digit count.
    """
    words = product.split()
    if words[:1] == ["NVIDIA"] or len(words) > 1:
        words = words[1:]
    model: list[str] = []
    for word in words:
        found = re.match(r"[A-Z0-9]+", word)
        if found is None or (found[0] != word and not any(map(str.isdigit, found[0]))):
            break
        model.append(found[0])
        if any(map(str.isdigit, found[0])):
            return "-".join(model)
    return "-".join(words) or None


def gpu_types(products: Iterable[str]) -> tuple[str, ...]:
    """The types of a node's GPUs."""
    return tuple(dict.fromkeys(filter(None, map(gpu_type, products))))
