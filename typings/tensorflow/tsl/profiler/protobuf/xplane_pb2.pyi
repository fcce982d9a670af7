"""The trace of TensorFlow's profiler, as `impls/tf/breakdown.py` reads it."""

from collections.abc import Mapping, Sequence

class XEventMetadata:
    name: str
    display_name: str

class XEvent:
    metadata_id: int
    offset_ps: int
    duration_ps: int

class XLine:
    name: str
    display_name: str
    timestamp_ns: int
    events: Sequence[XEvent]

class XPlane:
    name: str
    lines: Sequence[XLine]
    event_metadata: Mapping[int, XEventMetadata]

class XSpace:
    planes: Sequence[XPlane]
    @classmethod
    def FromString(cls, serialized: bytes, /) -> XSpace: ...
