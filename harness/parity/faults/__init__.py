"""The faults that test the ladder and that the diagnosis knows by name, as edits of an implementation's sources.

Imports `spec`.
"""
