"""The run directory: events on disk, the results that they tell, files that are written whole.

Imports `spec`, `weights`, `cost` and `machine`.
"""
