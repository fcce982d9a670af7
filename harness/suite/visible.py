"""Characters that cannot be seen, which copying from web pages and word processors leaves in a suite."""

from __future__ import annotations

import unicodedata

_OFTEN = {
    0x00: "a zero byte",
    0xA0: "a no-break space",
    0xAD: "a soft hyphen",
    0x200B: "a zero-width space",
    0x202F: "a narrow no-break space",
    0x3000: "an ideographic space",
    0xFEFF: "a byte-order mark",
}


def is_visible(character: str) -> bool:
    """Whether it can be seen; a space can, since there is one kind of it."""
    return character.isprintable() or character in "\t\n\r"


def visible(text: str) -> str:
    """`text` with U+00A0 and the like in place of what cannot be seen."""
    return "".join(each if is_visible(each) else f"<{_code(each)}>" for each in text)


def invisible(text: str) -> dict[int, str]:
    """Line -> what it has that cannot be seen, and where: "column 3 is U+00A0, a no-break space"."""
    found: dict[int, str] = {}
    if text.isascii() and text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return found
    for number, line in enumerate(text.split("\n"), 1):
        where = [at for at, each in enumerate(line, 1) if not is_visible(each)]
        if where:
            first = line[where[0] - 1]
            name = _OFTEN.get(ord(first)) or unicodedata.name(first, "a control character").lower()
            more = f"; {len(where) - 1} more in this line" if len(where) > 1 else ""
            found[number] = f"column {where[0]} is {_code(first)}, {name}{more}"
    return found


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
