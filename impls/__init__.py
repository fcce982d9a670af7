"""The implementations, one folder per framework. None imports another.

Each imports `harness.spec`, and the modules that all share: `impls.architecture` and `impls.spectral`.
"""
