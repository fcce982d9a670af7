"""Whether a trial's seconds are a measure: what its warnings say of the cores that it was timed on."""

from __future__ import annotations

import re

from harness.journal.results import Result

_OF_ITS_CORES = re.compile(
    r"^timed at niceness|"
    r"^other processes had .* of its cores while it was timed|"
    r"^the hypervisor withheld .* of its cores' time|"
    r"^the other hyperthreads of its cores were busy|"
    r"^the container's CPU quota stopped it|"
    r"^the processor slowed itself down|"
    r"^the cores' clock fell|"
    r"^its epochs became .* slower"
)


def is_doubtful(result: Result) -> bool:
    """Whether other work, a low priority or heat had a part in the trial's times."""
    return any(map(_OF_ITS_CORES.match, result.warnings))
