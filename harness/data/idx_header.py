"""The header of an IDX file: 0, 0, type, number of dimensions, and as many sizes (uint32, big-endian)."""

from __future__ import annotations

import math
import struct

UINT8 = 0x08
MOST_AXES = 8
"""More are no data set's; NumPy has at most 64."""
TYPES = {UINT8: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The NumPy type of each type byte."""


def wrong_length(content: bytes) -> str | None:
    """How much too long or too short an IDX file is, by its own header; None if that is as it should be, or not IDX."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or not 1 <= content[3] <= MOST_AXES:
        return None
    start = 4 + 4 * content[3]
    if len(content) < start:
        return f"truncated in its header, after {len(content)} of {start} bytes"
    count = math.prod(struct.unpack_from(f">{content[3]}I", content, 4))
    expected = start + count * int(TYPES[content[2]][-1])
    if len(content) == expected:
        return None
    if (over := len(content) - expected) > 0:
        return f"{over:,} byte{'s' * (over > 1)} too long: {len(content):,} instead of {expected:,}"
    return f"truncated: {len(content):,} of {expected:,} bytes"
