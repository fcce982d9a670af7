"""How long Hypothesis searches: the same few examples each time in `make test`; with CAPSBENCH_FUZZ=N, N new ones a test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COUNT = int(os.environ.get("CAPSBENCH_FUZZ") or 0)
_ALL = tuple(HealthCheck)
settings.register_profile(
    "test", derandomize=True, max_examples=30, deadline=None, database=None, suppress_health_check=_ALL
)
settings.register_profile(
    "deep", max_examples=max(1, _COUNT), deadline=None, print_blob=True, suppress_health_check=_ALL
)
settings.load_profile("deep" if _COUNT else "test")
