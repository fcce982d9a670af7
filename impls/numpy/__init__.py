"""The executable specification: forward and hand-derived backward, in float64, written beside the paper.

It runs on NumPy, or on a GPU through CuPy.
"""

from impls.numpy.impl import NumpyImpl

__all__ = ["NumpyImpl"]
