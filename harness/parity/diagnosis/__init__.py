"""What a failing implementation does wrong: its outputs explained by variants of the specification.

Imports the rest of `parity`.
"""
