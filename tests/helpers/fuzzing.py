"""What fuzzed files are made of: good ones with a few bytes changed, and text of the words that a format knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_HOSTILE = (
    b"\0",
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\n",
    b'"',
    b"{",
    b"[" * 300,
    b"-1",
    b"1e999",
    b"9" * 400,
    b"null",
    b"\xe2\x80\xa8",
)
"""What readers of bytes stumble over."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON value, NaN and infinities included, as Python writes them."""


@st.composite
def changed(draw: st.DrawFn, good: Sequence[bytes]) -> bytes:
    """A good file with up to four changes: bytes replaced, put in, cut out, copied to another place; or cut short."""
    content = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        new = draw(st.sampled_from(_HOSTILE) | st.binary(max_size=8))
        match draw(st.integers(0, 4)):
            case 0:
                content[place : place + len(new)] = new
            case 1:
                content[place:place] = new
            case 2:
                del content[place : place + length]
            case 3:
                to = draw(st.integers(0, len(content)))
                content[to:to] = content[place : place + 4 * length]
            case _:
                del content[place:]
    return bytes(content)


@st.composite
def replaced(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document in which one to three values, anywhere, are others, are gone, or have other names."""
    for _ in range(draw(st.integers(1, 3))):
        document = _replaced(draw, document)
    return document


def _replaced(draw: st.DrawFn, document: Any) -> Any:
    if isinstance(document, dict) and document and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(document, key=str)))
        match draw(st.integers(0, 9)):
            case 0:
                return {name: value for name, value in document.items() if name != key}
            case 1:
                return {draw(st.text(max_size=6)) if name == key else name: value for name, value in document.items()}
            case _:
                return {**document, key: _replaced(draw, document[key])}
    if isinstance(document, list) and document and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(document) - 1))
        return [_replaced(draw, each) if at == place else each for at, each in enumerate(document)]
    return draw(JSON)
