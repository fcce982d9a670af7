"""The supervisor's side of a worker process: start it, give it cores and GPUs, read its events, end it.

Imports `spec`, `machine` and `cost`; never `worker`, which is its other end.
"""
