"""The run directory: events on disk, the results computed from them, files that are written in full or not at all.

Imports `spec`, `weights`, `cost` and `machine`.
"""
