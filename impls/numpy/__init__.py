"""The executable specification: forward and hand-derived backward pass, in float64, written to be read beside the paper.

It runs on NumPy, or on a GPU through CuPy.
"""

from impls.numpy.impl import NumpyImpl

__all__ = ["NumpyImpl"]
