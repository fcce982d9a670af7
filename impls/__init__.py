"""The implementations, one folder a framework. None imports another.

Each knows `harness.spec`, and what all of them share: `impls.architecture` and `impls.spectral`.
"""
