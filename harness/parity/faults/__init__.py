"""The faults that test the ladder, as edits of the sources of an implementation, and that the diagnosis knows by name.

Imports `spec`.
"""
