"""A worker process from inside: it reads its job from stdin, computes, and emits events.

Imports `spec`, `data`, `weights`, `parity`, `machine` and `cost`; never `journal` or what is above it.
"""
