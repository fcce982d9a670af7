"""What an implementation that fails does wrong: its outputs explained by variants of the specification.

Imports the rest of `parity`.
"""
